//! The socket of the queue role: the doors of its queues over HTTP. `queue::wire` says what crosses it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use millpond_shared::template::decode_key;
use millpond_shared::wire::EventFrame;
use prometheus::Registry;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::desk::Desk;
use crate::http::{Answer, Handler, Refusals, json, method_not_allowed, refusal};
use crate::queue::wire::{
    APPEND_MAX_BYTES, Acquire, Append, Buried, CONTENT_TYPE, Committed, ErrorBody, Fates, HandedHead, Message, Newest,
    OTHER_MAX_BYTES, PUSH_MAX_BYTES, PulledHead, ROOT, Renew, RoundHead, TakenHead, WAIT_MAX_MS, status,
};
use crate::queue::{DeadLetter, HandedOver, Lease, MapChange, Pulled, QueueError, QueueRole, Round, RoundFrame};

/// Answers the requests of dispatchers, shards and ingest in other processes.
pub struct QueuesApi {
    queues: Arc<dyn QueueRole>,
    desk: Desk,
    refusals: Refusals,
}

impl QueuesApi {
    pub fn new(queues: Arc<dyn QueueRole>, registry: &Registry) -> Result<QueuesApi, prometheus::Error> {
        let desk = Desk::new(Arc::clone(&queues));
        Ok(QueuesApi { queues, desk, refusals: Refusals::register(registry, "queue")? })
    }

    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Bytes>, QueueError> {
        let (parts, body) = request.into_parts();
        let Some(names) = names(parts.uri.path()) else { return Ok(no_path()) };
        let query = Query(parts.uri.query().unwrap_or_default());
        if let Some(answer) = self.desk.answer(parts.method.as_str(), &names, query.0).await {
            return Ok(answer);
        }
        match (parts.method.as_str(), names.as_slice()) {
            ("POST", ["dead"]) => self.bury(body).await,
            ("GET", ["map", "changes"]) => {
                let newer = self.queues.map(query.number("after")?, query.wait()?).await?;
                Ok(message(newer, Vec::new()))
            }
            ("POST", ["map"]) => Ok(message(self.queues.change_map(read::<MapChange>(body)?.head).await?, Vec::new())),
            ("POST", ["map", "handed"]) => self.hand_over(body).await,
            ("GET", ["events", queue]) => self.take(number(queue)?, &query).await,
            ("POST", ["events", queue, "append"]) => self.append(number(queue)?, body).await,
            ("POST", ["events", queue, "lease"]) => self.acquire(number(queue)?, body).await,
            ("PUT", ["events", queue, "lease", token]) => self.renew(lease(queue, token)?, body).await,
            ("DELETE", ["events", queue, "lease", token]) => {
                self.queues.release(lease(queue, token)?).await?;
                Ok(done())
            }
            ("POST", ["events", queue, "push", token]) => self.push(lease(queue, token)?, body).await,
            ("GET", ["shards", shard]) => self.pull(number(shard)?, &query).await,
            ("GET", ["shards", shard, "newest"]) => {
                let position = self.queues.newest(number(shard)?).await?;
                Ok(message(Newest { position }, Vec::new()))
            }
            ("PUT", ["shards", shard, "consumers", name]) => {
                let Committed { position } = read::<Committed>(body)?.head;
                self.queues.committed(number(shard)?, &decode_key(name), position).await?;
                Ok(done())
            }
            (_, names) => Ok(other(names)),
        }
    }

    async fn take(&self, queue: u16, query: &Query<'_>) -> Result<Response<Bytes>, QueueError> {
        let lease = Lease { queue, token: query.number("token")? };
        let taken = self.queues.take(lease, query.number("max_events")?, query.wait()?).await?;
        let run = taken.as_ref().map(|taken| (taken.first, taken.last));
        Ok(message(TakenHead { run }, taken.map(|taken| taken.frames).unwrap_or_default()))
    }

    async fn append(&self, queue: u16, body: Bytes) -> Result<Response<Bytes>, QueueError> {
        let Message { head: Append { window_ms }, parts } = read(body)?;
        let [frame] = parts.as_slice() else {
            return Err(invalid(format!("an append holds one frame, not {}", parts.len())));
        };
        let frame = EventFrame::decode(frame).map_err(|error| invalid(error.to_string()))?;
        let events = frame.events.into_iter().map(|event| event.into_owned()).collect();
        let fates = self.queues.append(queue, window_ms.map(Duration::from_millis), events).await?;
        Ok(message(Fates { fates }, Vec::new()))
    }

    async fn acquire(&self, queue: u16, body: Bytes) -> Result<Response<Bytes>, QueueError> {
        let Acquire { holder, ttl_ms } = read(body)?.head;
        let lease = self.queues.acquire_from_elsewhere(queue, &holder, Duration::from_millis(ttl_ms)).await?;
        Ok(message(lease, Vec::new()))
    }

    async fn renew(&self, lease: Lease, body: Bytes) -> Result<Response<Bytes>, QueueError> {
        let Renew { ttl_ms } = read(body)?.head;
        self.queues.renew(lease, Duration::from_millis(ttl_ms)).await?;
        Ok(done())
    }

    async fn push(&self, lease: Lease, body: Bytes) -> Result<Response<Bytes>, QueueError> {
        let Message { head: RoundHead { first, last, map_version, frames }, parts } = read(body)?;
        if frames.len() != parts.len() {
            return Err(invalid(format!("{} shards for {} frames", frames.len(), parts.len())));
        }
        let frames = frames.into_iter().zip(parts);
        let frames = frames.map(|((shard, events), bytes)| RoundFrame { shard, events, bytes }).collect();
        self.queues.push(lease, Round { first, last, map_version, frames }).await?;
        Ok(done())
    }

    async fn hand_over(&self, body: Bytes) -> Result<Response<Bytes>, QueueError> {
        let Message { head: HandedHead { epoch, after }, mut parts } = read(body)?;
        let (Some(bytes), true) = (parts.pop(), parts.is_empty()) else {
            return Err(invalid("what is handed over is one frame".to_owned()));
        };
        Ok(message(self.queues.hand_over(HandedOver { epoch, after, bytes }).await?, Vec::new()))
    }

    async fn bury(&self, body: Bytes) -> Result<Response<Bytes>, QueueError> {
        let Message { head: (), parts } = read(body)?;
        let letters: Result<Vec<_>, _> = parts.iter().map(|part| DeadLetter::decode(part)).collect();
        let refused = self.queues.bury(letters.map_err(invalid)?).await?;
        Ok(message(Buried { refused }, Vec::new()))
    }

    async fn pull(&self, shard: u16, query: &Query<'_>) -> Result<Response<Bytes>, QueueError> {
        let (after, max_bytes) = (query.number("after")?, query.number("max_bytes")?);
        let pulled = self.queues.pull(shard, after, max_bytes, query.wait()?).await?;
        let Pulled { frames, last, events_after } = pulled;
        let (positions, frames) = frames.into_iter().unzip();
        Ok(message(PulledHead { positions, last, events_after }, frames))
    }
}

#[async_trait]
impl Handler for QueuesApi {
    async fn handle(&self, request: Request<Bytes>) -> Answer {
        let answered = self.answer(request).await;
        let failed = |error: QueueError| {
            let body = ErrorBody { error: error.to_string(), queue_error: error };
            json(status(&body.queue_error), &body)
        };
        answered.unwrap_or_else(failed).into()
    }

    fn body_limit(&self, target: &str) -> u64 {
        let path = target.split('?').next().unwrap_or(target);
        match names(path).as_deref() {
            Some(["events", _, "append"] | ["dead"] | ["map", "handed"]) => APPEND_MAX_BYTES,
            Some(["events", _, "push", _]) => PUSH_MAX_BYTES,
            _ => OTHER_MAX_BYTES,
        }
    }

    fn refused(&self, reason: &'static str) {
        self.refusals.count(reason);
    }
}

/// Why there is no answer to this method and path.
fn other(names: &[&str]) -> Response<Bytes> {
    match names {
        ["events", _] | ["shards", _] | ["shards", _, "newest"] => method_not_allowed("GET"),
        ["dead"] | ["map"] => method_not_allowed("GET, POST"),
        ["map", "changes"] => method_not_allowed("GET"),
        ["map", "handed"] => method_not_allowed("POST"),
        ["events", _, "append" | "lease"] | ["events", _, "push", _] => method_not_allowed("POST"),
        ["events", _, "lease", _] | ["shards", _, "consumers", _] => method_not_allowed("PUT, DELETE"),
        _ => no_path(),
    }
}

fn no_path() -> Response<Bytes> {
    refusal(StatusCode::NOT_FOUND, "the queue role has no such path", format!("start at GET {ROOT}"))
}

/// The names below [`ROOT`]; `None` for a path that is not below it.
pub fn names(path: &str) -> Option<Vec<&str>> {
    let below = path.strip_prefix(ROOT)?;
    (below.is_empty() || below.starts_with('/')).then(|| below.split('/').skip(1).collect())
}

/// Name and value pairs behind the `?`.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, QueueError> {
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(other, _)| *other == name).and_then(|(_, value)| value.parse().ok());
        value.ok_or_else(|| invalid(format!("the query needs {name}=NUMBER")))
    }

    fn wait(&self) -> Result<Duration, QueueError> {
        Ok(Duration::from_millis(self.number::<u64>("wait_ms")?.min(WAIT_MAX_MS)))
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, QueueError> {
    text.parse().map_err(|_| invalid(format!("`{text}` is no number of a queue or a token")))
}

fn lease(queue: &str, token: &str) -> Result<Lease, QueueError> {
    Ok(Lease { queue: number(queue)?, token: number(token)? })
}

fn read<H: Serialize + DeserializeOwned>(body: Bytes) -> Result<Message<H>, QueueError> {
    Message::decode(body).map_err(invalid)
}

fn invalid(problem: String) -> QueueError {
    QueueError::Invalid { problem }
}

fn done() -> Response<Bytes> {
    message((), Vec::new())
}

fn message<H: Serialize + DeserializeOwned>(head: H, parts: Vec<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(Message { head, parts }.encode());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::queue::ShardQueues;
    use crate::queue::testing::Machine;

    async fn ask(api: &QueuesApi, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        let Answer::Full(response) = api.handle(request).await else { panic!("a stream") };
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap_or_default())
    }

    #[tokio::test]
    async fn the_status_names_queues_and_consumers_and_a_consumer_can_be_removed() {
        let queues = Machine::new(2).open();
        queues.committed(3, "a b", 0).await.unwrap();
        let api = QueuesApi::new(queues, &Registry::new()).unwrap();
        let (status, told) = ask(&api, "GET", "/_millpond/queues", "").await;
        assert_eq!((status, told["event_queues"].as_array().unwrap().len()), (200, 2));
        assert_eq!(told["shard_queues"][0]["consumers"], serde_json::json!([["a b", 0]]));
        assert_eq!(ask(&api, "DELETE", "/_millpond/queues/shards/3/consumers/a%20b?force=true", "").await.0, 200);
        assert_eq!(ask(&api, "DELETE", "/_millpond/queues/shards/3/consumers/a%20b", "").await.0, 404);
    }

    #[tokio::test]
    async fn what_is_no_request_of_a_role_is_refused_in_words() {
        let api = QueuesApi::new(Machine::new(1).open(), &Registry::new()).unwrap();
        for (method, path, body, status, words) in [
            ("GET", "/", "", 404, "no such path"),
            ("GET", "/_millpond/queuesx", "", 404, "no such path"),
            ("GET", "/_millpond/queues/events/0/x", "", 404, "no such path"),
            ("PUT", "/_millpond/queues", "", 405, "does not take this method"),
            ("GET", "/_millpond/queues/events/0/append", "", 405, "does not take this method"),
            ("GET", "/_millpond/queues/shards/x?after=0&max_bytes=1&wait_ms=0", "", 400, "`x` is no number"),
            ("GET", "/_millpond/queues/shards/0?after=0&max_bytes=1", "", 400, "wait_ms=NUMBER"),
            ("PUT", "/_millpond/queues/shards/0/newest", "", 405, "does not take this method"),
            ("GET", "/_millpond/queues/shards/1024/newest", "", 404, "there is no"),
            ("POST", "/_millpond/queues/events/0/append", "", 400, "the message is empty"),
            ("POST", "/_millpond/queues/events/0/append", "\u{7}x", 400, "has format 7"),
            ("POST", "/_millpond/queues/events/9/lease", "", 400, "the message is empty"),
            ("DELETE", "/_millpond/queues/events/0/lease/1", "", 412, "has run out"),
        ] {
            let (found, told) = ask(&api, method, path, body).await;
            assert_eq!(found, status, "{method} {path}: {told}");
            assert!(told["error"].as_str().unwrap().contains(words), "{method} {path}: {told}");
        }
    }

    #[tokio::test]
    async fn bodies_are_limited_by_what_they_are_for() {
        let api = QueuesApi::new(Machine::new(1).open(), &Registry::new()).unwrap();
        assert_eq!(api.body_limit("/_millpond/queues/events/3/append"), APPEND_MAX_BYTES);
        assert_eq!(api.body_limit("/_millpond/queues/events/3/push/7?x"), PUSH_MAX_BYTES);
        assert_eq!(api.body_limit("/_millpond/queues/events/3/lease"), OTHER_MAX_BYTES);
        assert_eq!(api.body_limit("/append"), OTHER_MAX_BYTES);
    }
}
