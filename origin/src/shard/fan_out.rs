//! Documents that tell each other, on a NATS server that has hardly any room: the shard must not wait for its queues
//! while they wait for it.

use std::sync::Arc;
use std::time::Duration;

use millpond_shared::route::Route;
use millpond_shared::shard_map::{FirstMap, MapState};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::time::timeout;

use super::testing::Site;
use super::{Found, Opening, Shard, ShardMetrics, ShardSettings};
use crate::dispatch::{Dispatcher, DispatcherSettings};
use crate::projection::testing::{declared, event, home_feeds};
use crate::queue::testing::{Machine, NoMaps};
use crate::queue::{EventQueues, Fate, KnownMap};
use crate::store::Place;

/// Those who follow; their keys are so long that no event goes to all of them.
const FOLLOWERS: usize = 200;
const KEY_BYTES: usize = 500;
/// What is posted in one go, and is told each page of followers.
const POSTS: usize = 8;
const POST_BYTES: usize = 20_000;
/// Room for what is posted, and for nothing that is told of it.
const ROOM_BYTES: u64 = 200_000;
/// Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn follower(number: usize) -> String {
    format!("{number}-{}", "x".repeat(KEY_BYTES))
}

#[tokio::test]
async fn a_shard_that_tells_more_than_its_queues_have_room_for_goes_on_all_the_same() {
    let mut machine = Machine::new(1);
    machine.limits.depth_max_bytes = ROOM_BYTES;
    // A queue that holds a frame takes no other.
    machine.limits.shard_depth_max_bytes = 1;
    let queues = machine.open_on_nats().await;
    let settings = ShardSettings { flush_every: Duration::from_millis(1), ..ShardSettings::default() };
    let site = Site { settings, ..Site::new(declared(&home_feeds(POSTS, FOLLOWERS))) };
    let (stop, stopped) = watch::channel(false);
    let first = FirstMap { version: site.map.version(), shards: site.map.shards() };
    let known = KnownMap::new(Arc::new(NoMaps), first);
    known.tell(MapState::first(first));
    let settings = DispatcherSettings {
        holder: "dispatcher".to_owned(),
        max_events: 100,
        lease_ttl: Duration::from_secs(10),
        pause_max: Duration::from_millis(20),
    };
    let dispatcher = Dispatcher::new(queues.clone(), site.projections.clone(), known, settings, &Registry::new());
    let dispatcher = dispatcher.expect("metrics");
    let dispatching = tokio::spawn(dispatcher.work(0, stopped.clone()));
    let opening = site.opening(Place::Backend(Box::new(site.disk.clone())));
    let opening = Opening { queues: queues.clone(), events: Some(queues.clone()), ..opening };
    let shard = Shard::open(opening, &ShardMetrics::register(&Registry::new()).expect("metrics")).expect("opened");
    let applying = tokio::spawn({
        let shard = shard.clone();
        async move { shard.run(stopped).await }
    });

    let follow = |number: usize| {
        let data = format!(r#"{{"what":"follow","user":"{}","whom":"feed"}}"#, follower(number));
        event(&format!("follow {number}"), 1, &data)
    };
    append(&*queues, (0..FOLLOWERS).map(follow).collect()).await;
    let post = |number: usize| {
        let data = format!(r#"{{"what":"post","user":"feed","text":"{}"}}"#, "y".repeat(POST_BYTES));
        event(&format!("post {number}"), 2, &data)
    };
    append(&*queues, (0..POSTS).map(post).collect()).await;

    let told = async {
        let mut applied = shard.applied();
        for number in 0..FOLLOWERS {
            while shown(&shard, &follower(number)).await < POSTS {
                applied.changed().await.expect("it runs");
            }
        }
    };
    let status = async || crate::queue::QueueRole::status(&*queues).await;
    if timeout(PATIENCE, told).await.is_err() {
        panic!("not all were told: {:?}", status().await);
    }
    stop.send_replace(true);
    applying.await.expect("no panic").expect("stopped");
    dispatching.await.expect("no panic");
}

/// Appends events as producers do: what there is no room for is sent again.
async fn append(queues: &dyn EventQueues, mut events: Vec<millpond_shared::event::Event<'static>>) {
    let sent = async {
        while !events.is_empty() {
            let fates = queues.append(0, None, events.clone()).await.expect("appended");
            let mut fates = fates.into_iter();
            events.retain(|_| fates.next() == Some(Fate::Full));
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, sent).await.expect("there is room again");
}

/// How many posts a home feed shows.
async fn shown(shard: &Arc<Shard>, key: &str) -> usize {
    let home = shard.projections.iter().position(|projection| projection.name == "home").expect("declared");
    let read = shard.document(&Route { projection: home, output: 0, key: key.to_owned() }, None).await.expect("read");
    match read.found {
        Found::Document(rendered) => {
            let body: serde_json::Value = serde_json::from_slice(&rendered.body).expect("JSON");
            body["items"].as_array().map_or(0, Vec::len)
        }
        Found::Nothing(_) => 0,
    }
}
