//! Documents that are sent to PostgreSQL.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::client::{Client, Request};
use crate::harness::eventually;
use crate::harness::pipeline::{ALL, Pipeline};
use crate::harness::postgres::Postgres;

/// Behind which line of the example, and what. `channel-edits` and `page-state` have JSON outputs to compare with.
const DATABASE: (&str, &str) = (
    "  template = \"countries.html.j2\"",
    "\n[database.reports]\nurl = \"file:../reports-url\"\ntable = \"documents\"\n\
     projections = [\"channel-edits\", \"page-state\"]\n",
);

/// Events on two channels and five pages, the last edit of each by another user.
fn post(pipeline: &Pipeline, round: u32) {
    let mut client = Client::of(pipeline.proxy());
    for n in 0..20 {
        let event = json!({
            "time": format!("2015-09-12T00:{round:02}:{n:02}Z"), "user": format!("user {}", n * round), "isRobot": false,
            "channel": format!("#{}", n % 2), "page": format!("page {}\0", n % 5), "comment": "c\0c", "delta": n,
        });
        let posted = client.ask(&Request::post("/events/wiki", event.to_string()));
        assert_eq!((posted.status(), posted.json()["accepted"].as_u64()), (202, Some(1)), "{}", posted.text());
    }
}

/// By projection and key.
type Table<T> = BTreeMap<(String, String), T>;

/// The rows, each with the position of its version.
fn table(postgres: &Postgres) -> Result<Table<(i64, Value)>, String> {
    let rows = postgres.query("SELECT projection, key, position, document::text FROM documents")?;
    let row = |row: &tokio_postgres::Row| {
        let document = serde_json::from_str(row.get(3)).expect("JSON");
        ((row.get(0), row.get(1)), (row.get(2), document))
    };
    Ok(rows.iter().map(row).collect())
}

/// What stands there must become what clients are served.
fn compare(pipeline: &Pipeline, postgres: &Postgres) -> Table<i64> {
    let mut client = Client::of(pipeline.proxy());
    eventually("the table to be what is served", || {
        let table = table(postgres)?;
        if table.len() != 2 + 10 {
            return Err(format!("{} rows", table.len()));
        }
        for ((projection, key), (_, document)) in &table {
            let path = match projection.as_str() {
                "channel-edits" => format!("/channels/{}/edits.json", key.replace('#', "%23")),
                // Keys with a NUL stay as they are in paths.
                _ => format!("/pages/{key}/latest.json"),
            };
            let served = client.get(&path);
            let expected: Value = serde_json::from_str(&served.text().replace("\\u0000", "\u{FFFD}"))
                .map_err(|_| format!("{path}: {}", served.text()))?;
            if *document != expected {
                return Err(format!("{path}: {document} instead of {expected}"));
            }
        }
        Ok(table.into_iter().map(|(place, (position, _))| (place, position)).collect())
    })
}

#[test]
fn documents_reach_a_database_whatever_was_away_meanwhile() {
    let mut postgres = Postgres::start();
    let mut pipeline = Pipeline::changed(&[DATABASE], &[("[shards]", "[shards]\nflush_every = \"50ms\"")]);
    std::fs::write(pipeline.folder().join("reports-url"), postgres.url()).expect("written");
    pipeline.start(ALL);
    post(&pipeline, 1);
    let first = compare(&pipeline, &postgres);

    postgres.stop();
    post(&pipeline, 2);
    pipeline.wait_until_applied();
    eventually("a sending to fail", || match pipeline.sum("millpond_database_failures_total") {
        0.0 => Err("none has".to_owned()),
        _ => Ok(()),
    });
    pipeline.kill9(ALL);
    pipeline.start(ALL);
    postgres.restart();
    let second = compare(&pipeline, &postgres);
    assert!(first.iter().all(|(place, position)| second[place] > *position), "{first:?} {second:?}");
    eventually("nothing to wait any more", || match pipeline.sum("millpond_shard_outbox_documents") {
        0.0 => Ok(()),
        waiting => Err(format!("{waiting} documents wait")),
    });
    assert_eq!(pipeline.metrics(ALL).sum("millpond_database_rows_total", &[("outcome", "refused")]), 0.0);

    // Somebody has emptied the table, and changes its name in the configuration: everything is sent again.
    pipeline.kill9(ALL);
    postgres.query("DROP TABLE documents").expect("dropped");
    let renamed = DATABASE.1.replace("[database.reports]", "[database.billing]");
    pipeline.insert_instead(&[(DATABASE.0, &renamed)]);
    pipeline.start(ALL);
    assert_eq!(compare(&pipeline, &postgres), second);
}
