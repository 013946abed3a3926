//! `millpond shards`: slots move to another shard, and clients see no more of it than a higher version.

use std::path::Path;

use serde_json::{Value, json};

use super::feeds::{compare, hit, version};
use super::model::{Fate, Model};
use crate::harness::client::{Client, Request, get};
use crate::harness::eventually;
use crate::harness::pipeline::{
    ALL, INGEST_ON_NATS, ON_NATS, ONE_PROCESS, Part, Pipeline, QUEUE, SEVERAL_PROCESSES, SHARD_A, SHARD_B,
};
use crate::harness::process::{Finished, finish};

fn shards(pipeline: &Pipeline, part: Part, args: &[&str]) -> Finished {
    let at = pipeline.address(part, "admin").to_string();
    finish(&[&["shards", "--at", at.as_str()], args].concat(), Path::new("."))
}

fn post(client: &mut Client, model: &mut Model, user: usize, round: usize) {
    let event = json!({ "time": round, "user": format!("user{user}"), "channel": "#c", "page": "p", "comment": "x",
        "isRobot": false, "delta": round })
    .to_string();
    let answer = client.ask(&Request::post("/events/wiki", &event));
    assert_eq!((answer.status(), answer.json()["accepted"].as_u64()), (202, Some(1)), "{}", answer.text());
    assert_eq!(model.take(&event), Fate::Accepted);
}

const USERS: usize = 60;

#[test]
fn slots_move_and_their_documents_with_them() {
    for (parts, desk) in [(&ONE_PROCESS[..], ALL), (&SEVERAL_PROCESSES[..], QUEUE), (&ON_NATS[..], INGEST_ON_NATS)] {
        let mut pipeline = Pipeline::of(parts);
        let (mut client, mut model) = (Client::of(pipeline.proxy()), Model::default());
        (0..USERS).for_each(|user| post(&mut client, &mut model, user, 1));
        pipeline.wait_until_applied();
        let url = |user: usize| format!("/users/user{user}/feed.json");
        let before: Vec<(u64, u64)> = (0..USERS).map(|user| version(&hit(&mut client, &url(user), 200))).collect();

        // To the other process, where there are several.
        let done = shards(&pipeline, desk, &["move", "--from", "0", "--count", "256", "--to", "3"]);
        assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
        let listed = shards(&pipeline, desk, &["ls"]);
        let rows: Vec<Vec<&str>> = listed.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((&rows[1][..], &rows[4][..2]), (&["0", "0"][..], &["3", "512"][..]), "{}", listed.stdout);

        let mut moved = 0;
        for (user, before) in before.iter().enumerate() {
            let answer = eventually("a fresh answer", || {
                let answer = client.get(&url(user));
                if answer.status() == 200 && answer.outcome() != "stale" { Ok(answer) } else { Err(answer.text()) }
            });
            let now = version(&answer);
            assert!(now >= *before, "{user}: {now:?} after {before:?}");
            moved += usize::from(now > *before);
        }
        assert!((1..USERS).contains(&moved), "about a quarter has moved: {moved}");

        (0..USERS).for_each(|user| post(&mut client, &mut model, user, 2));
        pipeline.wait_until_applied();
        for (url, document) in model.documents() {
            eventually(&format!("{url} as it must be"), || compare(&client.get(&url), &document));
            hit(&mut client, &url, 200);
        }
        let refused = shards(&pipeline, desk, &["move", "--slots", "0-300", "--to", "1"]);
        assert_eq!(refused.code, Some(1), "{}", refused.stdout);
        assert!(refused.stderr.contains("stays as it is"), "{}", refused.stderr);
        if parts.contains(&SHARD_A) {
            survives_a_restart(&mut pipeline, &url);
        }
    }
}

/// A shard server that is started while nobody can say anything of the shard map goes by what it has heard before.
fn survives_a_restart(pipeline: &mut Pipeline, url: &impl Fn(usize) -> String) {
    [QUEUE, SHARD_A, SHARD_B].into_iter().for_each(|part| pipeline.kill9(part));
    [SHARD_A, SHARD_B].into_iter().for_each(|part| pipeline.start(part));
    for user in 0..USERS {
        let answers = [SHARD_A, SHARD_B].map(|part| get(pipeline.address(part, "shards"), &url(user)).status());
        assert!(matches!(answers, [200, 421] | [421, 200]), "{user}: {answers:?}");
    }
    pipeline.start(QUEUE);
}

#[test]
fn a_configuration_that_does_not_fit_the_map_is_refused_in_words() {
    let count = ("[shards]", "[shard_map]\ncount = 5\n\n[shards]");
    let mut pipeline = Pipeline::replacing(&[count]);
    pipeline.start(ALL);
    let told = shards(&pipeline, ALL, &["ls", "--json"]).stdout;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["first"], json!({ "version": 1, "shards": 5 }));
    pipeline.kill9(ALL);
    let data = pipeline.data();
    let text = std::fs::read_to_string(data.with_file_name("config").join("local.toml")).expect("a file");
    std::fs::write(data.with_file_name("config").join("local.toml"), text.replace("count = 5", "count = 4"))
        .expect("the folder can be written");
    let done = finish(&["run", "--config", "config/local.toml"], data.parent().expect("a folder"));
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let words = "the configuration has 4 shards, but the shard map at the queues has 5 since some were added: set \
                 shard_map.count to 5";
    assert!(done.stderr.contains(words), "{}", done.stderr);
}
