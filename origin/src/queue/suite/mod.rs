//! One suite for both engines, and both ways to reach them: called directly, and over HTTP. All must give the same answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::testing::{Machine, event, round_frame, round_of, taken_ids};
use super::*;
use crate::api::queues::QueuesApi;

const TTL: Duration = Duration::from_secs(10);
const WINDOW: Option<Duration> = Some(Duration::from_secs(600));
/// A wait that no test sees the end of, unless it fails.
const LONG: Duration = Duration::from_secs(30);

/// The doors under test.
struct Doors {
    machine: Machine,
    events: Arc<dyn EventQueues>,
    dispatch: Arc<dyn DispatchQueues>,
    shards: Arc<dyn ShardQueues>,
    maps: Arc<dyn ShardMaps>,
    queues: Arc<dyn QueueRole>,
    _server: Option<watch::Sender<bool>>,
}

async fn embedded(machine: Machine) -> Doors {
    directly(machine.open(), machine)
}

async fn embedded_over_http(machine: Machine) -> Doors {
    over_http(machine.open(), machine).await
}

async fn on_nats(mut machine: Machine) -> Doors {
    directly(machine.open_on_nats().await, machine)
}

async fn on_nats_over_http(mut machine: Machine) -> Doors {
    over_http(machine.open_on_nats().await, machine).await
}

fn directly<Q: QueueRole + 'static>(queues: Arc<Q>, machine: Machine) -> Doors {
    let (events, dispatch, shards, maps) = (queues.clone(), queues.clone(), queues.clone(), queues.clone());
    Doors { machine, events, dispatch, shards, maps, queues, _server: None }
}

async fn over_http(queues: Arc<dyn QueueRole>, machine: Machine) -> Doors {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let (server, down) = watch::channel(false);
    tokio::spawn(crate::http::serve(
        listener,
        Arc::new(QueuesApi::new(queues.clone(), &prometheus::Registry::new()).unwrap()),
        down,
    ));
    let client = Arc::new(QueueClient::new(authority));
    let (events, dispatch, shards, maps) = (client.clone(), client.clone(), client.clone(), client);
    Doors { machine, events, dispatch, shards, maps, queues, _server: Some(server) }
}

/// Each test, in all four ways. It opens its doors by the function that it is given.
macro_rules! suite {
    ($($name:ident)*) => {
        mod called_directly { $(#[tokio::test] async fn $name() { super::$name(super::embedded).await; })* }
        mod called_over_http { $(#[tokio::test] async fn $name() { super::$name(super::embedded_over_http).await; })* }
        mod on_nats { $(#[tokio::test] async fn $name() { super::$name(super::on_nats).await; })* }
        mod on_nats_over_http { $(#[tokio::test] async fn $name() { super::$name(super::on_nats_over_http).await; })* }
    };
}

mod dispatching;
mod events;
mod maps;
mod pulling;
mod role;

fn offsets(fates: &[Fate]) -> Vec<u64> {
    fates.iter().map(|fate| if let Fate::Stored { offset } = fate { *offset } else { 0 }).collect()
}

fn frame(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn lease(doors: &Doors, queue: u16) -> Lease {
    doors.dispatch.acquire(queue, "a", TTL).await.unwrap()
}
