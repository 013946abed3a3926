//! The shard servers: finds the shard that owns a document and asks it, by a call or over a socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use millpond_shared::http1::{Fields, Framing};
use millpond_shared::projection::Projection;
use millpond_shared::route;
use millpond_shared::shard_map::{Owner, Slot};
use millpond_shared::version::ShardId;
use millpond_shared::wire::{self, headers};

use super::answer::{Answer, Payload};
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::{OriginError, Replicas, role};
use crate::live::{Least, Live};

/// How often a document is asked for: it may move while it is.
const ATTEMPTS: usize = 3;
/// How long it takes at most to hear of the shard map by which a shard does not own a document.
const MAP_WAIT: Duration = Duration::from_secs(1);

/// What the proxy knows of the shards.
pub struct Shards {
    projections: Arc<Vec<Projection>>,
    live: Arc<Live>,
    places: BTreeMap<ShardId, Place>,
}

/// Where a shard is.
enum Place {
    Here(Arc<dyn wire::Origin>),
    There(Arc<Replicas>),
}

impl Shards {
    /// Shards that are neither `here` nor among `there` answer with an error.
    pub fn new(
        projections: Arc<Vec<Projection>>,
        live: Arc<Live>,
        here: Option<(Arc<dyn wire::Origin>, Vec<ShardId>)>,
        there: BTreeMap<ShardId, Arc<Replicas>>,
    ) -> Shards {
        let mut places: BTreeMap<ShardId, Place> =
            there.into_iter().map(|(shard, replicas)| (shard, Place::There(replicas))).collect();
        if let Some((origin, shards)) = here {
            places.extend(shards.into_iter().map(|shard| (shard, Place::Here(Arc::clone(&origin)))));
        }
        Shards { projections, live, places }
    }

    /// Shard that owns the document a path names; `None`: the path names none.
    pub fn owner(&self, path: &str) -> Option<ShardId> {
        Some(self.live.map()?.owner(self.slot(path)?).shard)
    }

    fn slot(&self, path: &str) -> Option<Slot> {
        let route = route::find(&self.projections, path)?;
        let projection = self.projections.get(route.projection)?;
        Some(Slot::of(&projection.name, &route.key))
    }

    pub(super) async fn ask(
        &self,
        pool: &Arc<Pool>,
        outgoing: &Outgoing<'_>,
        payload: Payload<'_>,
        retry: bool,
    ) -> Result<Answer, OriginError> {
        let Some(slot) = self.slot(outgoing.target()) else { return Ok(self.no_document(outgoing)) };
        let unknown =
            || OriginError::Unreachable("the shards have not said which of them owns the document".to_owned());
        let mut map = self.live.map().ok_or_else(unknown)?;
        let can_be_sent_again = payload.framing == Framing::None;
        let mut first = Some(payload);
        for _ in 0..ATTEMPTS {
            let Owner { shard, since } = map.owner(slot);
            let least = self.live.least(shard);
            let least = Least { position: least.position.max(since), ..least };
            let outgoing = outgoing.to_shard(least, map.version());
            let payload = first.take().unwrap_or_else(|| Payload::none(None));
            let answer = match self.places.get(&shard).ok_or(OriginError::NoShard(shard))? {
                Place::Here(origin) => role::ask(origin.as_ref(), &outgoing, payload).await?,
                Place::There(replicas) => replicas.ask(pool, &outgoing, payload, retry).await?,
            };
            let by = answer.head.fields.get_str(headers::MAP_VERSION).and_then(|version| version.parse::<u32>().ok());
            let has_moved = answer.head.status == StatusCode::MISDIRECTED_REQUEST
                && by.is_some_and(|version| version > map.version());
            // Several shards of one process go by one map, and the one that owns the document by that has answered.
            let another = answer.head.fields.get_str(headers::SHARD).and_then(|by| by.parse::<ShardId>().ok());
            let another = another.filter(|by| *by != shard);
            if !has_moved && another.is_none() || !can_be_sent_again {
                return Ok(answer);
            }
            // Those who follow its shard hear of that at the same time.
            map = self.live.map_above(map.version(), MAP_WAIT).await.ok_or_else(unknown)?;
            if another == Some(map.owner(slot).shard) {
                return Ok(answer);
            }
        }
        Err(unknown())
    }

    fn no_document(&self, outgoing: &Outgoing<'_>) -> Answer {
        let paths: Vec<&str> = self
            .projections
            .iter()
            .flat_map(|projection| &projection.outputs)
            .map(|output| output.path.as_str())
            .collect();
        let body = serde_json::json!({ "error": "no projection has an output at this path", "outputs": paths });
        let fields: Fields =
            [("Content-Type", "application/json"), ("Cache-Control", "no-store")].into_iter().collect();
        Answer::whole(outgoing.method(), StatusCode::NOT_FOUND, fields, body.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::{Bytes, BytesMut};
    use http::{Request, Response};
    use millpond_shared::config::{At, Complaints, Source};
    use millpond_shared::http1::{Limits, take_request};
    use millpond_shared::projection::{WrittenProjection, judge};
    use millpond_shared::shard_map::{Final, FirstMap, MapState, ShardMap};

    use super::*;
    use crate::cache::{Store, StoreLimits};
    use crate::rules::Rule;
    use crate::upstreams::outgoing::Conditions;

    const PROJECTION: &str = r#"
        [[projection]]
        name = "p"
        kind = "latest"
        key = "{data.k}"
        item = { n = "{data.n}" }
          [[projection.output]]
          path = "/p/{key}"
          format = "json"
    "#;

    fn projections() -> Vec<Projection> {
        #[derive(Default, serde::Deserialize)]
        struct Written {
            projection: Vec<At<WrittenProjection>>,
        }
        let (mut source, mut complaints) = (Source::default(), Complaints::default());
        let written: Written = source.read("test.toml", PROJECTION, &mut complaints);
        judge(&written.projection, &|_| Err(("no templates".to_owned(), String::new())), &mut complaints)
    }

    /// Answers of a process with both shards, one after the other: status, and whose answer it is.
    struct Process {
        answers: Mutex<Vec<(u16, ShardId)>>,
        map_version: u32,
        /// Learnt as soon as the first answer is given.
        learns: Option<ShardMap>,
        live: Arc<Live>,
    }

    #[async_trait]
    impl wire::Origin for Process {
        async fn answer(&self, _: Request<Bytes>) -> Response<Bytes> {
            let (status, shard) = self.answers.lock().unwrap().remove(0);
            if let Some(map) = self.learns.clone() {
                let live = Arc::clone(&self.live);
                tokio::spawn(async move { live.learn(&map) });
            }
            let response = Response::builder().status(status).header(headers::SHARD, shard);
            response.header(headers::MAP_VERSION, self.map_version).body(Bytes::new()).unwrap()
        }
    }

    /// Asks for a document of shard `from`, which has gone to the other one, of which the proxy may hear; its status, and
    /// how many answers nobody asked for.
    async fn asked(answers: &[(u16, ShardId)], is_told: bool) -> (Result<u16, OriginError>, usize) {
        let (first, moved) = moved();
        let live = Live::new(Arc::new(Store::new(StoreLimits::with_budget(1 << 20))), 0..2).with_map(first.clone());
        let live = Arc::new(live);
        let answers = Mutex::new(answers.to_vec());
        let learns = is_told.then(|| moved.clone());
        let process = Arc::new(Process { answers, map_version: moved.version(), learns, live: Arc::clone(&live) });
        let here = Some((Arc::clone(&process) as Arc<dyn wire::Origin>, vec![0, 1]));
        let shards = Shards::new(Arc::new(projections()), live, here, BTreeMap::new());
        let head = take_request(&mut BytesMut::from("GET /p/k HTTP/1.1\r\nHost: h\r\n\r\n"), &Limits::default());
        let (head, rule) = (head.unwrap().unwrap(), Rule::everything("r", "shards"));
        let outgoing = Outgoing::new(&head, &rule, Conditions::None, Least::default(), None);
        let answer = shards.ask(&Arc::new(Pool::new()), &outgoing, Payload::none(None), true).await;
        let left = process.answers.lock().unwrap().len();
        (answer.map(|answer| answer.head.status.as_u16()), left)
    }

    /// The map at first, and after `k` has gone to the other shard.
    fn moved() -> (ShardMap, ShardMap) {
        let (first, slot) = (MapState::first(FirstMap { version: 1, shards: 2 }), Slot::of("p", "k"));
        let to = 1 - first.map.owner(slot).shard;
        let ended = Some(Final { offsets: Vec::new(), position: Some(9) });
        let moved = first.begin([slot].into_iter().collect(), to).and_then(|state| state.hold(2, ended));
        (first.map, moved.and_then(|state| state.complete(2, 5)).unwrap().map)
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_for_a_document_that_moves() {
        let from = moved().0.owner(Slot::of("p", "k")).shard;
        let to = 1 - from;
        for (answers, is_told, expected, left, why) in [
            (&[(200, from)][..], false, Some(200), 0, "nothing has moved"),
            (&[(421, from), (200, to)], true, Some(200), 0, "the new owner is asked once the map is known"),
            (&[(421, from), (200, to)], false, None, 1, "the map is waited for, and does not come"),
            (&[(200, to), (404, to)], true, Some(200), 1, "the new owner has answered already"),
            (&[(200, to), (404, to)], false, None, 1, "whose the answer is can't be told"),
            (&[(200, 7), (404, to)], true, Some(404), 0, "an answer by no owner"),
            (&[(421, from), (421, to), (200, from)], true, Some(421), 1, "a refusal by the map that is known is one"),
        ] {
            let (status, unasked) = asked(answers, is_told).await;
            let status = match status {
                Ok(status) => Some(status),
                Err(OriginError::Unreachable(_)) => None,
                Err(other) => panic!("{why}: {other}"),
            };
            assert_eq!((status, unasked), (expected, left), "{why}");
        }
    }
}
