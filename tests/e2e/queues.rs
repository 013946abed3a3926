//! `millpond queue`, and dead letters from the event that can't be applied to its replay, on both engines.

use crate::harness::client::{Client, Request};
use crate::harness::eventually;
use crate::harness::pipeline::{ALL, INGEST_ON_NATS, ON_NATS, ONE_PROCESS, Part, Pipeline};
use crate::harness::process::{Finished, finish};

/// The command, at the admin socket of a process that has the queues.
fn asked(pipeline: &Pipeline, part: Part, args: &[&str]) -> Finished {
    let at = pipeline.address(part, "admin").to_string();
    finish(&[&["queue", "--at", at.as_str()], args].concat(), std::path::Path::new("."))
}

/// The same, done.
fn queue(pipeline: &Pipeline, part: Part, args: &[&str]) -> Finished {
    let done = asked(pipeline, part, args);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{args:?}");
    done
}

#[test]
fn what_can_not_be_applied_is_laid_aside_shown_and_replayed() {
    // Users' feeds are ordered by a field that one event lacks a good value of.
    let order = ("name = \"user-edits\"", "name = \"user-edits\"\norder = \"{data.delta}\"");
    for (parts, part) in [(&ONE_PROCESS[..], ALL), (&ON_NATS[..], INGEST_ON_NATS)] {
        let mut pipeline = Pipeline::replacing(&[order]);
        parts.iter().for_each(|part| pipeline.start(*part));
        let event = |user: &str, delta: &str| {
            format!(
                r#"{{"time":1,"user":"{user}","page":"p","channel":"c","comment":"x","isRobot":false,"delta":{delta}}}"#
            )
        };
        let body = format!("{}\n{}", event("ada", "\"none\""), event("bob", "5"));
        let posted = Client::of(pipeline.proxy()).ask(&Request::post("/events/wiki", body));
        assert_eq!((posted.status(), posted.json()["accepted"].as_u64()), (202, Some(2)), "{}", posted.text());
        pipeline.wait_until_applied();
        let letters = eventually("the letter", || {
            let told: serde_json::Value =
                serde_json::from_str(&queue(&pipeline, part, &["dead", "--json"]).stdout).expect("JSON");
            match told.as_array().map(Vec::len) {
                Some(1) => Ok(told),
                _ => Err(told.to_string()),
            }
        });
        let letter = &letters[0];
        assert!(
            letter["reason"].as_str().expect("a reason").starts_with("not in user-edits/ada: its `order`"),
            "{letter}"
        );
        assert_eq!(letter["event"]["data"]["user"], "ada");
        let key = letter["key"].as_str().expect("a key");
        let table = queue(&pipeline, part, &["dead"]).stdout;
        assert!(table.lines().nth(1).is_some_and(|line| line.starts_with(key)), "{table}");
        let table = queue(&pipeline, part, &["ls"]).stdout;
        assert!(table.lines().any(|line| line == "dead letters  1"), "{table}");
        assert!(table.contains("primary 0 behind"), "{table}");

        let told = queue(&pipeline, part, &["replay", key]).stdout;
        assert!(told.contains(&format!("{key} is event ")), "{told}");
        // It is no better than before.
        let again = eventually("it to be laid aside again", || {
            let told: serde_json::Value =
                serde_json::from_str(&queue(&pipeline, part, &["dead", "--json"]).stdout).expect("JSON");
            match told[0]["key"].as_str() {
                Some(other) if other != key => Ok(other.to_owned()),
                _ => Err(told.to_string()),
            }
        });
        let (number, _) = again.split_once(':').expect("a key");
        let peeked = queue(&pipeline, part, &["peek", "events", number, "--after", "0", "--json"]).stdout;
        assert!(peeked.starts_with('['), "{peeked}");
    }
}

#[test]
fn a_consumer_that_lives_is_forgotten_by_force_only_and_comes_back() {
    for (parts, part) in [(&ONE_PROCESS[..], ALL), (&ON_NATS[..], INGEST_ON_NATS)] {
        let pipeline = Pipeline::of(parts);
        let ls = || queue(&pipeline, part, &["ls"]).stdout;
        let is_listed =
            |table: &str| table.lines().any(|line| line.starts_with("shard 0 ") && line.contains("primary"));
        eventually("the shard to be known", || if is_listed(&ls()) { Ok(()) } else { Err(ls()) });

        let refused = asked(&pipeline, part, &["forget", "0", "primary"]);
        let words = "it seems to be alive; fix: stop it, ask again 10 s later, or add force=true";
        assert!(refused.code == Some(1) && refused.stderr.contains(words), "{refused:?}");
        let unknown = asked(&pipeline, part, &["forget", "0", "spare/1", "--force"]);
        assert!(
            unknown.stderr.contains("has no consumer `spare/1`; fix: name one that it has: `primary`"),
            "{unknown:?}"
        );

        let told = queue(&pipeline, part, &["forget", "0", "primary", "--force"]).stdout;
        assert_eq!(told, "shard queue 0 has forgotten primary\n");
        eventually("it to be back with its next commit", || if is_listed(&ls()) { Ok(()) } else { Err(ls()) });
    }
}
