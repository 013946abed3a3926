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
