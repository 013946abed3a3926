//! The shard servers: finds the shard that owns a document and asks it, by a call or over a socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use millpond_shared::http1::Fields;
use millpond_shared::projection::Projection;
use millpond_shared::route;
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::ShardId;
use millpond_shared::wire;

use super::answer::{Answer, Payload};
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::{OriginError, Replicas, role};

/// What the proxy knows of the shards.
pub struct Shards {
    projections: Arc<Vec<Projection>>,
    map: ShardMap,
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
        map: ShardMap,
        here: Option<(Arc<dyn wire::Origin>, Vec<ShardId>)>,
        there: BTreeMap<ShardId, Arc<Replicas>>,
    ) -> Shards {
        let mut places: BTreeMap<ShardId, Place> =
            there.into_iter().map(|(shard, replicas)| (shard, Place::There(replicas))).collect();
        if let Some((origin, shards)) = here {
            places.extend(shards.into_iter().map(|shard| (shard, Place::Here(Arc::clone(&origin)))));
        }
        Shards { projections, map, places }
    }

    /// Shard that owns the document a path names; `None`: the path names none.
    pub fn owner(&self, path: &str) -> Option<ShardId> {
        let route = route::find(&self.projections, path)?;
        let projection = self.projections.get(route.projection)?;
        Some(self.map.owner_of(&projection.name, &route.key).shard)
    }

    pub(super) async fn ask(
        &self,
        pool: &Arc<Pool>,
        outgoing: &Outgoing<'_>,
        payload: Payload<'_>,
        retry: bool,
    ) -> Result<Answer, OriginError> {
        let Some(shard) = self.owner(outgoing.target()) else { return Ok(self.no_document(outgoing)) };
        let place = self.places.get(&shard).ok_or(OriginError::NoShard(shard))?;
        match place {
            Place::Here(origin) => role::ask(origin.as_ref(), outgoing, payload).await,
            Place::There(replicas) => replicas.ask(pool, outgoing, payload, retry).await,
        }
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
