//! A proxy that has just started knows nothing of what was given before. Where the replica further ahead is dead then, and
//! the other one is cut off from its queue, documents are older than they were: they say so, and are not kept.

use serde_json::json;

use super::spare::WITH_SPARE;
use crate::harness::client::{Client, Request, Response};
use crate::harness::eventually;
use crate::harness::pipeline::{PROXY, Pipeline, QUEUE, SEVERAL_PROCESSES, SHARD_A, SPARE};
use crate::harness::relay::Weather;

#[test]
fn a_proxy_that_has_just_started_says_that_a_replica_that_is_cut_off_may_be_behind() {
    let mut pipeline = Pipeline::prepared(&WITH_SPARE);
    pipeline.relay(SPARE, QUEUE);
    SEVERAL_PROCESSES.iter().chain([&SPARE]).for_each(|part| pipeline.start(*part));
    let user = user_of_shard_a(&pipeline);
    let url = format!("/users/{user}/feed.json");
    let mut edits = 0;
    for weather in [Weather::Cut, Weather::Stalled] {
        edits += 1;
        post(&pipeline, &user, edits);
        let spare = Client::of(pipeline.address(SPARE, "shards"));
        shows(spare, &url, edits);
        shows(Client::of(pipeline.proxy()), &url, edits);

        pipeline.relay(SPARE, QUEUE).set(weather);
        edits += 1;
        post(&pipeline, &user, edits);
        shows(Client::of(pipeline.proxy()), &url, edits);

        for part in [SHARD_A, PROXY] {
            pipeline.kill9(part);
        }
        pipeline.start(PROXY);
        let mut client = Client::of(pipeline.proxy());
        for _ in 0..2 {
            let older = eventually("an answer of the spare", || match client.get(&url) {
                answer if answer.status() == 200 => Ok(answer),
                answer => Err(format!("{:?}: {}", answer.head, answer.text())),
            });
            let told = ["millpond-behind", "cache-control", "millpond-newest"].map(|name| older.field(name));
            assert_eq!((items(&older), told), (edits - 1, [Some("unknown"), Some("no-store"), None]), "{weather:?}");
        }
        pipeline.relay(SPARE, QUEUE).set(Weather::Clear);
        shows(client, &url, edits);
        pipeline.start(SHARD_A);
    }
}

fn post(pipeline: &Pipeline, user: &str, edit: usize) {
    let event = json!({
        "time": "2015-09-12T01:00:00Z", "channel": "#a", "page": "p", "user": user, "comment": edit.to_string(),
        "isRobot": false, "delta": edit,
    });
    let answer = Client::of(pipeline.proxy()).ask(&Request::post("/events/wiki", event.to_string()));
    assert_eq!(answer.status(), 202, "{}", answer.text());
}

/// Somebody whose documents both replicas have.
fn user_of_shard_a(pipeline: &Pipeline) -> String {
    let mut client = Client::of(pipeline.proxy());
    let of_shard_a = |user: &String| {
        let answer = client.get(&format!("/users/{user}/feed.json"));
        ["0", "1"].contains(&answer.field("millpond-shard").expect("a shard answers"))
    };
    (0..).map(|number| format!("user-{number}")).find(of_shard_a).expect("somebody")
}

/// Waits until so many edits are shown, by an answer that does not say that it may be older.
fn shows(mut client: Client, url: &str, edits: usize) {
    eventually(&format!("{edits} edits"), || {
        let answer = client.get(url);
        match (answer.status(), answer.field("millpond-behind")) {
            (200, None) if items(&answer) == edits => Ok(()),
            _ => Err(format!("{:?}: {}", answer.head, answer.text())),
        }
    });
}

fn items(answer: &Response) -> usize {
    answer.json()["items"].as_array().expect("a feed has items").len()
}
