//! What operators ask of queues: how they stand, what is in them, and the dead letters. On the queue role's own socket, and
//! on the admin socket of every process that has the queues.
//!
//! | request, below `/_millpond/queues` | answer |
//! |---|---|
//! | `GET` | the status of all queues |
//! | `GET events/Q/peek?after=OFFSET&count=N` | events behind an offset |
//! | `GET shards/S/peek?after=POSITION&count=N` | frames behind a position, with their events |
//! | `GET dead?count=N` | dead letters |
//! | `POST dead/KEY/replay` | the event is appended to its event queue again, and the letter removed |
//! | `DELETE dead/KEY` | the letter is removed |
//! | `DELETE shards/S/consumers/NAME` | the consumer is forgotten; while it lives only with `?force` |
//!
//! All answers are JSON. Nothing that is looked at changes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use millpond_shared::template::decode_key;
use millpond_shared::wire::{EventFrame, ShardFrame};
use serde_json::{Value, json};

use crate::http::{json as answer, method_not_allowed, refusal};
use crate::queue::dead::{DEAD_MAX, ShownEvent, ShownLetter};
use crate::queue::{DeadKey, Fate, QueueError, QueueRole, wire};

/// Answers operators.
pub struct Desk {
    queues: Arc<dyn QueueRole>,
}

/// Events, frames or letters in one answer, unless `count` says less.
const COUNT_DEFAULT: usize = 20;
/// And at most; of letters as many as there can be.
const COUNT_MAX: usize = 1_000;
/// A consumer that was heard of within this time counts as alive, in ms: five times the `flush_every` that shards have
/// unless they are told.
const ALIVE_MS: u64 = 10_000;
/// Bytes of frames that are looked at for one answer.
const PEEK_BYTES: usize = 4 << 20;

impl Desk {
    pub fn new(queues: Arc<dyn QueueRole>) -> Desk {
        Desk { queues }
    }

    /// The answer to a request for the names below the root; `None` if it is none for this desk.
    pub async fn answer(&self, method: &str, names: &[&str], query: &str) -> Option<Response<Bytes>> {
        let asked = match (method, names) {
            ("GET", []) => self.status().await,
            ("GET", ["events", queue, "peek"]) => self.events(queue, query).await,
            ("GET", ["shards", shard, "peek"]) => self.frames(shard, query).await,
            ("GET", ["dead"]) => self.dead(query).await,
            ("POST", ["dead", key, "replay"]) => self.replay(key).await,
            ("DELETE", ["dead", key]) => self.remove(key).await,
            ("DELETE", ["shards", shard, "consumers", name]) => self.forget(shard, name, query).await,
            (_, [] | ["events" | "shards", _, "peek"]) => return Some(method_not_allowed("GET")),
            (_, ["dead", _, "replay"]) => return Some(method_not_allowed("POST")),
            (_, ["dead", _]) => return Some(method_not_allowed("DELETE")),
            _ => return None,
        };
        let failed = |error: QueueError| {
            let body = wire::ErrorBody { error: error.to_string(), queue_error: error };
            answer(wire::status(&body.queue_error), &body)
        };
        Some(asked.unwrap_or_else(failed))
    }

    async fn status(&self) -> Result<Response<Bytes>, QueueError> {
        Ok(answer(StatusCode::OK, &self.queues.status().await?))
    }

    async fn events(&self, queue: &str, query: &str) -> Result<Response<Bytes>, QueueError> {
        let (queue, count) = (number(queue)?, count(query, COUNT_MAX)?);
        let status = self.queues.status().await?;
        let found = status.event_queues.iter().find(|found| found.queue == queue);
        let after = named(query, "after")?.unwrap_or(found.map_or(0, |found| found.filed));
        let Some(taken) = self.queues.peek(queue, after, count).await? else {
            return Ok(answer(StatusCode::OK, &Vec::<()>::new()));
        };
        let mut shown = Vec::new();
        for bytes in &taken.frames {
            let frame = EventFrame::decode(bytes).map_err(|error| QueueError::Failed { problem: error.to_string() })?;
            let placed =
                (frame.first..).zip(&frame.events).filter(|(offset, _)| (taken.first..=taken.last).contains(offset));
            shown.extend(placed.map(|(offset, event)| json!({ "offset": offset, "event": ShownEvent::of(event) })));
        }
        Ok(answer(StatusCode::OK, &shown))
    }

    async fn frames(&self, shard: &str, query: &str) -> Result<Response<Bytes>, QueueError> {
        let (shard, count) = (number(shard)?, count(query, COUNT_MAX)?);
        let status = self.queues.status().await?;
        let found = status.shard_queues.iter().find(|found| found.shard == shard);
        let after = named(query, "after")?.unwrap_or(found.map_or(0, |found| found.trimmed));
        let pulled = self.queues.pull(shard, after, PEEK_BYTES, Duration::ZERO).await?;
        let shown = pulled.frames.iter().take(count).map(|(position, bytes)| match ShardFrame::decode(bytes) {
            Ok(frame) => {
                let events = frame.events.iter().map(|filed| {
                    let name = |index: u16| frame.projections.get(usize::from(index)).map_or("?", |name| name.as_ref());
                    let documents = filed.routes.iter().map(|(index, key)| format!("{}/{key}", name(*index)));
                    let documents: Vec<String> = documents.collect();
                    json!({ "offset": filed.offset, "documents": documents, "event": ShownEvent::of(&filed.event) })
                });
                let events: Vec<Value> = events.collect();
                json!({ "position": position, "queue": frame.queue, "first": frame.first, "last": frame.last,
                    "map_version": frame.map_version, "events": events })
            }
            Err(error) => json!({ "position": position, "unreadable": error.to_string() }),
        });
        Ok(answer(StatusCode::OK, &shown.collect::<Vec<_>>()))
    }

    async fn dead(&self, query: &str) -> Result<Response<Bytes>, QueueError> {
        let letters = self.queues.dead(count(query, DEAD_MAX)?).await?;
        Ok(answer(StatusCode::OK, &letters.iter().map(ShownLetter::of).collect::<Vec<_>>()))
    }

    /// Once more, for all projections of the event. If this dies in between, it is there twice: the letter is removed last.
    async fn replay(&self, key: &str) -> Result<Response<Bytes>, QueueError> {
        let key = dead_key(key)?;
        let Some(letter) = self.queues.dead_letter(key).await? else { return Ok(no_letter(key)) };
        // Its id is known: it must not be taken for a repetition.
        let fates = self.queues.append(key.queue, None, vec![letter.event]).await?;
        match fates.first() {
            Some(Fate::Stored { offset }) => {
                self.queues.unbury(key).await?;
                Ok(answer(StatusCode::OK, &json!({ "replayed": key.to_string(), "offset": offset })))
            }
            Some(Fate::TooLarge) => {
                let fix = "remove it with DELETE, or raise max_payload of the NATS servers";
                Ok(refusal(StatusCode::CONFLICT, "the event is larger than a message of the queue may be", fix))
            }
            _ => Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "its event queue is full", "ask again later")),
        }
    }

    async fn remove(&self, key: &str) -> Result<Response<Bytes>, QueueError> {
        let key = dead_key(key)?;
        match self.queues.unbury(key).await? {
            true => Ok(answer(StatusCode::OK, &json!({ "removed": key.to_string() }))),
            false => Ok(no_letter(key)),
        }
    }

    /// One that lives would be back with its next commit, and might find that what it has yet to pull is gone.
    async fn forget(&self, shard: &str, name: &str, query: &str) -> Result<Response<Bytes>, QueueError> {
        let (shard, name) = (number(shard)?, decode_key(name));
        let is_forced = query.split('&').any(|pair| pair == "force" || pair == "force=true");
        let status = self.queues.status().await?;
        let found = status.shard_queues.iter().find(|found| found.shard == shard);
        let heard_ms_ago = found.and_then(|found| found.heard_ms_ago.get(&name)).copied();
        if let Some(ago) = heard_ms_ago.filter(|ago| *ago < ALIVE_MS && !is_forced) {
            let error = format!("`{name}` was heard of {:.1} s ago: it seems to be alive", ago as f64 / 1000.0);
            let fix = format!("stop it, ask again {} s later, or add force=true", ALIVE_MS / 1000);
            return Ok(refusal(StatusCode::CONFLICT, error, fix));
        }
        if self.queues.remove_consumer(shard, &name).await? {
            tracing::info!(shard, consumer = name, "forgot a consumer");
            return Ok(answer(StatusCode::OK, &json!({ "shard": shard, "forgotten": name })));
        }
        let known = found.into_iter().flat_map(|found| &found.consumers);
        let known: Vec<String> = known.map(|(known, _)| format!("`{known}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let error = format!("shard queue {shard} has no consumer `{name}`");
        Ok(refusal(StatusCode::NOT_FOUND, error, format!("name one that it has: {known}")))
    }
}

fn no_letter(key: DeadKey) -> Response<Bytes> {
    refusal(
        StatusCode::NOT_FOUND,
        format!("there is no dead letter {key}"),
        "list them with GET /_millpond/queues/dead",
    )
}

fn dead_key(text: &str) -> Result<DeadKey, QueueError> {
    decode_key(text).parse().map_err(|error: crate::queue::dead::NoDeadKey| invalid(error.to_string()))
}

fn number(text: &str) -> Result<u16, QueueError> {
    text.parse().map_err(|_| invalid(format!("`{text}` is no number of a queue")))
}

fn count(query: &str, most: usize) -> Result<usize, QueueError> {
    let count = named(query, "count")?.unwrap_or(COUNT_DEFAULT as u64);
    Ok(usize::try_from(count).unwrap_or(most).clamp(1, most))
}

fn named(query: &str, name: &str) -> Result<Option<u64>, QueueError> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.find(|(other, _)| *other == name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| invalid(format!("{name} is no number: {value}")))
}

fn invalid(problem: String) -> QueueError {
    QueueError::Invalid { problem }
}

#[cfg(test)]
mod tests {
    use millpond_shared::template::encode_key_part;

    use super::*;
    use crate::queue::ShardQueues;
    use crate::queue::testing::Machine;

    async fn asked(desk: &Desk, method: &str, name: &str, query: &str) -> (StatusCode, Value) {
        let name = encode_key_part(name);
        let answer = desk.answer(method, &["shards", "0", "consumers", &name], query).await.expect("for the desk");
        (answer.status(), serde_json::from_slice(answer.body()).expect("JSON"))
    }

    #[tokio::test]
    async fn a_consumer_is_forgotten_once_it_is_silent_or_by_force() {
        let machine = Machine::new(1);
        let queues = machine.open();
        let desk = Desk::new(queues.clone());
        for name in ["primary", "spare/1"] {
            queues.committed(0, name, 0).await.expect("taken");
        }
        machine.pass_ms(ALIVE_MS - 1);
        queues.committed(0, "primary", 0).await.expect("taken");
        let (status, body) = asked(&desk, "DELETE", "spare/1", "").await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(body["error"], "`spare/1` was heard of 10.0 s ago: it seems to be alive");
        assert_eq!(body["fix"], "stop it, ask again 10 s later, or add force=true");
        machine.pass_ms(1);
        let told = json!({ "shard": 0, "forgotten": "spare/1" });
        assert_eq!(asked(&desk, "DELETE", "spare/1", "").await, (StatusCode::OK, told));
        let (status, body) = asked(&desk, "DELETE", "spare/1", "force=true").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(body["fix"], "name one that it has: `primary`");
        assert_eq!(asked(&desk, "DELETE", "primary", "x=1").await.0, StatusCode::CONFLICT);
        assert_eq!(asked(&desk, "DELETE", "primary", "force").await.0, StatusCode::OK);
        let (_, body) = asked(&desk, "DELETE", "primary", "").await;
        assert_eq!(body["fix"], "name one that it has: none");
        queues.close().await;
    }

    #[tokio::test]
    async fn after_a_restart_nobody_is_taken_for_gone_at_once() {
        let machine = Machine::new(1);
        let queues = machine.open();
        queues.committed(0, "spare", 0).await.expect("taken");
        queues.close().await;
        machine.pass_ms(ALIVE_MS * 9);
        let queues = machine.open();
        let desk = Desk::new(queues.clone());
        assert_eq!(asked(&desk, "DELETE", "spare", "").await.0, StatusCode::CONFLICT);
        machine.pass_ms(ALIVE_MS);
        assert_eq!(asked(&desk, "DELETE", "spare", "").await.0, StatusCode::OK);
        queues.close().await;
    }
}
