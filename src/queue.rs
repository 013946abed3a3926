//! `millpond queue`: what operators ask of queues, at an admin socket or the queue role's own.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use millpond_origin::http::Client;
use millpond_origin::queue::DeadKey;
use millpond_origin::queue::wire::ROOT;
use millpond_shared::template::encode_key_part;
use serde_json::Value;

use crate::Failure;
use crate::token::Token;

#[derive(clap::Args)]
pub struct Arguments {
    /// The admin socket of a process that has [queue], or the queue role's own socket.
    #[arg(long, value_name = "HOST:PORT", global = true, default_value = "127.0.0.1:9181")]
    at: String,
    /// Where the token of the admin socket is, if it has one: env:NAME or file:PATH.
    #[arg(long, value_name = "PLACE", global = true)]
    token: Option<String>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// How all queues stand: depth, oldest age, lag of each consumer.
    Ls,
    /// Show what waits, without taking it.
    Peek {
        #[command(subcommand)]
        of: Peek,
    },
    /// Show events that could not be filed or applied, and why.
    Dead {
        /// Letters to show.
        #[arg(long, default_value_t = 20)]
        count: usize,
    },
    /// Put dead letters back into their event queues.
    Replay {
        /// Keys as `dead` shows them.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<DeadKey>,
    },
    /// Forget a consumer of a shard queue that is gone for good, so that its frames may go.
    Forget {
        /// Number of the shard.
        shard: u16,
        /// Its name, as `ls` shows it.
        consumer: String,
        /// Even if it was heard of just now.
        #[arg(long)]
        force: bool,
    },
}

#[derive(clap::Subcommand)]
enum Peek {
    /// Events of an event queue.
    Events(Start),
    /// Frames of a shard queue.
    Shard(Start),
}

#[derive(clap::Args)]
struct Start {
    /// Its number.
    number: u16,
    /// Behind this offset or position [default: what was filed, or trimmed].
    #[arg(long)]
    after: Option<u64>,
    /// Events or frames to show.
    #[arg(long, default_value_t = 20)]
    count: usize,
}

/// From when on it is told that a consumer says nothing, in ms.
const SILENT_MS: u64 = 10_000;
/// For each answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

pub fn main(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("no runtime: {error}")))?;
    runtime.block_on(asked(arguments))
}

async fn asked(arguments: &Arguments) -> Result<(), Failure> {
    let client = Desk::of(arguments)?;
    let (path, table): (String, fn(&Value) -> Table) = match &arguments.what {
        What::Ls => (ROOT.to_owned(), status),
        What::Peek { of: Peek::Events(start) } => {
            (format!("{ROOT}/events/{}/peek?{}", start.number, start.query()), events)
        }
        What::Peek { of: Peek::Shard(start) } => {
            (format!("{ROOT}/shards/{}/peek?{}", start.number, start.query()), frames)
        }
        What::Dead { count } => (format!("{ROOT}/dead?count={count}"), dead),
        What::Replay { keys } => {
            for key in keys {
                let told = client.ask(Method::POST, &format!("{ROOT}/dead/{key}/replay")).await?;
                if arguments.json {
                    println!("{told}");
                } else {
                    println!("{key} is event {} of event queue {} now", told["offset"], key.queue);
                }
            }
            return Ok(());
        }
        What::Forget { shard, consumer, force } => {
            let path = format!("{ROOT}/shards/{shard}/consumers/{}", encode_key_part(consumer));
            let path = if *force { format!("{path}?force=true") } else { path };
            let told = client.ask(Method::DELETE, &path).await?;
            if arguments.json {
                println!("{told}");
            } else {
                println!("shard queue {shard} has forgotten {consumer}");
            }
            return Ok(());
        }
    };
    let told = client.ask(Method::GET, &path).await?;
    if arguments.json {
        println!("{told}");
    } else {
        table(&told).print();
    }
    Ok(())
}

/// The socket that is asked.
struct Desk {
    client: Client,
    token: Option<Token>,
}

impl Desk {
    fn of(arguments: &Arguments) -> Result<Desk, Failure> {
        let read = |place: &String| Token::read(place, Path::new("")).map_err(|problem| (place.clone(), problem));
        let token = arguments.token.as_ref().map(read).transpose();
        let token = token
            .map_err(|(place, problem)| Failure::Refused(format!("--token {place}: {problem}; fix: {}", Token::FIX)))?;
        Ok(Desk { client: Client::new(arguments.at.as_str()), token })
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Value, Failure> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.field());
        }
        let request = request.body(Bytes::new()).map_err(Failure::from_display)?;
        let answer = self.client.call(request, ANSWER_TIME).await.map_err(Failure::from_display)?;
        let (authority, status) = (self.client.authority(), answer.status());
        let told: Value = serde_json::from_slice(answer.body()).map_err(|_| {
            let fix = "name the admin socket of a process with [queue], or a queue role's";
            Failure::Failed(format!("{authority} answers what is no JSON ({status}); fix: {fix}"))
        })?;
        if status.is_success() {
            return Ok(told);
        }
        let fix = told["fix"].as_str().map(|fix| format!("; fix: {fix}")).unwrap_or_default();
        let error = told["error"].as_str().unwrap_or_default();
        Err(Failure::Failed(format!("{authority} answers {status}: {error}{fix}")))
    }
}

impl Start {
    fn query(&self) -> String {
        let after = self.after.map(|after| format!("after={after}&")).unwrap_or_default();
        format!("{after}count={}", self.count)
    }
}

/// Rows of words, the first of them the names of the columns.
#[derive(Debug, PartialEq, Eq)]
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(columns: &[&str]) -> Table {
        Table(vec![columns.iter().map(|column| (*column).to_owned()).collect()])
    }

    fn lines(&self) -> Vec<String> {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let cell_width =
            |column: usize| self.0.iter().filter_map(move |row| row.get(column)).map(|cell| cell.chars().count());
        let widths: Vec<usize> = (0..columns).map(|column| cell_width(column).max().unwrap_or(0)).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.0.iter().map(line).collect()
    }

    fn print(&self) {
        self.lines().iter().for_each(|line| println!("{line}"));
    }
}

fn list<'a>(told: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    told[name].as_array().into_iter().flatten()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn status(told: &Value) -> Table {
    let mut table = Table::new(&["queue", "last", "done", "waiting", "bytes", "oldest", "consumers"]);
    for queue in list(told, "event_queues") {
        let (last, filed) = (number(&queue["last"]), number(&queue["filed"]));
        table.0.push(vec![
            format!("events {}", queue["queue"]),
            last.to_string(),
            filed.to_string(),
            format!("{} events", last.saturating_sub(filed)),
            queue["bytes"].to_string(),
            format!("{:.1} s", number(&queue["oldest_age_ms"]) as f64 / 1000.0),
        ]);
    }
    for queue in list(told, "shard_queues") {
        let (last, trimmed) = (number(&queue["last"]), number(&queue["trimmed"]));
        let lag = |consumer: &Value| {
            let name = text(&consumer[0]);
            let silent_ms = number(&queue["heard_ms_ago"][&name]);
            let silent =
                if silent_ms < SILENT_MS { String::new() } else { format!(", silent for {} s", silent_ms / 1000) };
            format!("{name} {} behind{silent}", last.saturating_sub(number(&consumer[1])))
        };
        let consumers: Vec<String> = list(queue, "consumers").map(lag).collect();
        table.0.push(vec![
            format!("shard {}", queue["shard"]),
            last.to_string(),
            trimmed.to_string(),
            format!("{} frames", last.saturating_sub(trimmed)),
            queue["bytes"].to_string(),
            String::new(),
            consumers.join(", "),
        ]);
    }
    table.0.push(vec!["dead letters".to_owned(), told["dead"].to_string()]);
    table
}

fn events(told: &Value) -> Table {
    let mut table = Table::new(&["offset", "time", "source", "type", "id", "data"]);
    for one in told.as_array().into_iter().flatten() {
        let event = &one["event"];
        let cells = [&one["offset"], &event["time"], &event["source"], &event["type"], &event["id"]];
        table.0.push(cells.into_iter().map(text).chain([event["data"].to_string()]).collect());
    }
    table
}

fn frames(told: &Value) -> Table {
    let mut table = Table::new(&["position", "queue", "offset", "id", "documents"]);
    for frame in told.as_array().into_iter().flatten() {
        for event in list(frame, "events") {
            let documents: Vec<String> = list(event, "documents").map(text).collect();
            let cells = [&frame["position"], &frame["queue"], &event["offset"], &event["event"]["id"]];
            table.0.push(cells.into_iter().map(text).chain([documents.join(", ")]).collect());
        }
        if let Some(why) = frame["unreadable"].as_str() {
            table.0.push(vec![text(&frame["position"]), why.to_owned()]);
        }
    }
    table
}

fn dead(told: &Value) -> Table {
    let mut table = Table::new(&["key", "laid aside", "source", "id", "reason"]);
    for letter in told.as_array().into_iter().flatten() {
        let cells =
            [&letter["key"], &letter["buried"], &letter["event"]["source"], &letter["event"]["id"], &letter["reason"]];
        table.0.push(cells.into_iter().map(text).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_say_what_json_says() {
        let told = json!({
            "event_queues": [{ "queue": 0, "last": 9, "filed": 7, "bytes": 300, "oldest_age_ms": 1500 }],
            "shard_queues": [{ "shard": 3, "last": 12, "trimmed": 10, "bytes": 80, "consumers": [["primary", 11], ["spare", 10]],
                "heard_ms_ago": { "primary": 700, "spare": 61_200 } }],
            "dead": 2,
        });
        assert_eq!(
            status(&told).lines(),
            [
                "queue         last  done  waiting   bytes  oldest  consumers",
                "events 0      9     7     2 events  300    1.5 s",
                "shard 3       12    10    2 frames  80             primary 1 behind, spare 2 behind, silent for 61 s",
                "dead letters  2",
            ]
        );
        let letter = json!([{ "key": "0:4:1", "buried": "2026-01-01T00:00:00Z", "reason": "why",
            "event": { "source": "s", "id": "x", "data": 1 } }]);
        assert_eq!(dead(&letter).lines()[1], "0:4:1  2026-01-01T00:00:00Z  s       x   why");
        let event = json!([{ "offset": 4, "event": { "time": "t", "source": "s", "type": "k", "id": "x", "data": { "n": 1 } } }]);
        assert_eq!(events(&event).lines()[1], "4       t     s       k     x   {\"n\":1}");
        let frame = json!([{ "position": 1, "queue": 0, "events": [
            { "offset": 4, "documents": ["p/a", "p/b"], "event": { "id": "x" } }] }, { "position": 2, "unreadable": "oh" }]);
        assert_eq!(frames(&frame).lines()[1..], ["1         0      4       x   p/a, p/b", "2         oh"]);
    }
}
