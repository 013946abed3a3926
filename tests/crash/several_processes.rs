//! One process for each role: each is killed while the others go on.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use millpond_shared::clock;
use serde_json::json;

use super::duration;
use super::traffic::Traffic;
use crate::e2e::feeds::hit;
use crate::e2e::model::{Fate, Model, encoded};
use crate::harness::client::{Client, Request, get};
use crate::harness::eventually;
use crate::harness::pipeline::{
    NATS, ON_NATS, PROXY, Part, Pipeline, QUEUE, SEVERAL_PROCESSES, SHARD_A, SHARD_A_ON_NATS, SHARD_B, SHARD_B_ON_NATS,
};
use crate::harness::random::Random;

/// Most events between two kills, and most reads while something is dead.
const EVENTS_MAX: usize = 400;
const READS_MAX: usize = 400;

/// How long the leases of dispatchers are here: one that was killed is not missed for long.
pub const LEASE: Duration = Duration::from_secs(1);

/// In the examples that leave it at its default.
pub const SHORT_LEASE: (&str, &str) = ("[dispatcher]", "lease_ttl = \"1s\"");

/// The same in the examples on NATS, which say how long theirs run.
pub const SHORT_LEASE_ON_NATS: (&str, &str) = ("lease_ttl = \"15s\"", "lease_ttl = \"1s\"");

#[test]
fn each_role_is_killed_again_and_again() {
    each_is_killed("crash::several_processes", Pipeline::prepared(&[SHORT_LEASE]), SEVERAL_PROCESSES);
}

/// Among them the server: what it has acknowledged is there afterwards, and whoever used it goes on.
#[test]
fn each_role_on_nats_is_killed_again_and_again() {
    each_is_killed("crash::on_nats", Pipeline::replacing(&[SHORT_LEASE_ON_NATS]), ON_NATS);
}

fn each_is_killed<const PARTS: usize>(name: &str, mut pipeline: Pipeline, all: [Part; PARTS]) {
    let mut random = Random::told(name);
    all.iter().for_each(|part| pipeline.start(*part));
    let traffic = Traffic::to(pipeline.proxy());
    let mut kills: BTreeMap<&str, usize> = BTreeMap::new();
    thread::scope(|scope| {
        let running = traffic.start(scope, &mut random);
        let began = clock::monotonic();
        // Each in its turn, in another order each time; sometimes the next one dies before the first is back.
        while began.elapsed() < duration() {
            let mut parts = all;
            random.shuffle(&mut parts);
            let mut dead = Vec::new();
            for part in parts {
                if dead.is_empty() {
                    running.wait_for_events(random.below(EVENTS_MAX));
                }
                if part == PROXY {
                    traffic.proxy_ends();
                }
                pipeline.kill9(part);
                *kills.entry(part.file).or_default() += 1;
                dead.push(part);
                if !dead.contains(&PROXY) {
                    running.wait_for_reads(random.below(READS_MAX));
                }
                if random.below(4) > 0 {
                    revive(&mut pipeline, &mut dead);
                }
            }
            revive(&mut pipeline, &mut dead);
        }
        running.stop();
    });
    pipeline.wait_until_applied();
    traffic.compare_all();
    println!("killed: {kills:?}");
}

/// The queue first; and what is killed next is killed once shards have what it had for them: one that can't reach it
/// gives what it has, which may be older than before.
fn revive(pipeline: &mut Pipeline, dead: &mut Vec<Part>) {
    dead.sort_by_key(|part| ![QUEUE, NATS].contains(part));
    dead.iter().for_each(|part| pipeline.start(*part));
    let shards = [SHARD_A, SHARD_B, SHARD_A_ON_NATS, SHARD_B_ON_NATS];
    for part in dead.drain(..).filter(|part| shards.contains(part)) {
        // Some document of each of its shards.
        for user in 0..20 {
            let target = format!("/users/nobody-{user}/feed.json");
            eventually("the shards to have caught up", || match get(pipeline.address(part, "shards"), &target) {
                answer if [404, 421].contains(&answer.status()) && answer.field("millpond-behind").is_none() => Ok(()),
                answer => Err(answer.text()),
            });
        }
    }
}

/// While a shard is dead its cached documents are served, stale, and events are taken; once it is back they show.
#[test]
fn a_dead_shard_is_served_for_from_the_cache() {
    let mut pipeline = Pipeline::prepared(&[SHORT_LEASE]);
    SEVERAL_PROCESSES.iter().for_each(|part| pipeline.start(*part));
    let mut client = Client::of(pipeline.proxy());
    let mut model = Model::default();
    let mut post = |client: &mut Client, round: usize| {
        for user in 0..40 {
            let event =
                json!({ "time": round, "user": format!("user {user}"), "channel": "c", "page": "p" }).to_string();
            let answer = client.ask(&Request::post("/events/wiki", &event));
            assert_eq!((answer.status(), answer.json()["accepted"].as_u64()), (202, Some(1)), "{}", answer.text());
            assert_eq!(model.take(&event), Fate::Accepted);
        }
    };
    let urls: Vec<String> =
        (0..40).map(|user| format!("/users/{}/feed.json", encoded(&format!("user {user}")))).collect();
    post(&mut client, 1);
    pipeline.wait_until_applied();
    let before: Vec<_> = urls.iter().map(|url| hit(&mut client, url, 200)).collect();

    pipeline.kill9(SHARD_A);
    post(&mut client, 2);
    let mut of_dead = Vec::new();
    for (url, before) in urls.iter().zip(&before) {
        let answer = eventually(&format!("{url}, new or stale"), || {
            let answer = client.get(url);
            assert_eq!(answer.status(), 200, "{url}: {:?}", answer.head);
            let is_new = answer.body != before.body;
            assert!(is_new || answer.field("etag") == before.field("etag"));
            if is_new || answer.outcome() == "stale" { Ok(answer) } else { Err(answer.detail().to_owned()) }
        });
        if answer.body == before.body {
            of_dead.push(url);
        }
    }
    assert!((1..urls.len()).contains(&of_dead.len()), "about half belong to the dead shards: {of_dead:?}");

    // Now nobody at all can be asked.
    pipeline.kill9(SHARD_B);
    for url in &urls {
        eventually(&format!("{url}, stale"), || {
            let answer = client.get(url);
            assert_eq!(answer.status(), 200, "{url}: {:?}", answer.head);
            if answer.outcome() == "stale" { Ok(()) } else { Err(answer.detail().to_owned()) }
        });
    }
    let unknown = client.get("/users/nobody%20asked%20before/feed.json");
    assert!([502, 503].contains(&unknown.status()), "{:?}", unknown.head);

    pipeline.start(SHARD_A);
    pipeline.start(SHARD_B);
    let documents = model.documents();
    for url in &urls {
        eventually(&format!("{url} as it must be"), || crate::e2e::feeds::compare(&client.get(url), &documents[url]));
        hit(&mut client, url, 200);
    }
}
