//! Documents over HTTP: what a shard server answers on its socket, and, in one process, by a call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use millpond_shared::projection::{Projection, document_tag};
use millpond_shared::route::{self, Route};
use millpond_shared::shard_map::MapState;
use millpond_shared::version::{Position, ShardId};
use millpond_shared::wire::{ChangeMessage, Changes, Follow, Origin, headers};

use super::answers::{Asked, again, not_owned_here, not_read, put};
use super::{changes, copies, pages};
use crate::http::{Answer, Handler, method_not_allowed, refusal};
use crate::queue::KnownMap;
use crate::shard::Shard;
use crate::timing::timeout;

/// The shards of this process, as one origin.
pub struct Documents {
    projections: Arc<Vec<Projection>>,
    map: KnownMap,
    shards: BTreeMap<ShardId, Arc<Shard>>,
}

/// How long a request waits for this process to hear of the shard map by which it was sent here.
const MAP_WAIT: Duration = Duration::from_secs(1);
/// How many outputs the answer to an unknown path names.
const OUTPUTS_NAMED_MAX: usize = 20;
/// How long a reader who wants all that the queue holds is kept waiting for the shard map.
const NEWEST_MAP_WAIT: Duration = Duration::from_millis(150);

impl Documents {
    pub fn new(
        projections: Arc<Vec<Projection>>,
        map: KnownMap,
        shards: impl IntoIterator<Item = Arc<Shard>>,
    ) -> Documents {
        let shards = shards.into_iter().map(|shard| (shard.id(), shard)).collect();
        Documents { projections, map, shards }
    }

    /// The shard with this number, if it is here.
    pub(super) fn shard(&self, shard: ShardId) -> Option<&Arc<Shard>> {
        self.shards.get(&shard)
    }

    async fn document(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, Box<Response<Bytes>>> {
        let route = route::find(&self.projections, request.uri().path()).ok_or_else(|| Box::new(self.no_path()))?;
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(Box::new(method_not_allowed("GET, HEAD")));
        }
        let wants_newest = request.headers().contains_key(headers::NEWEST);
        // A slot may have moved, and its documents may have been given by the shard that took it, before this process
        // has heard of it.
        let is_newest_map = wants_newest && self.map.ask_within(NEWEST_MAP_WAIT).await;
        let map = self.map_of(request.headers()).await?;
        let asked = self.asked(&route, &map).ok_or_else(|| Box::new(self.no_path()))?;
        let least = least_position(request.headers())?.max(Some(asked.owner.since).filter(|since| *since > 0));
        let before = pages::asked(asked.kind, request.uri().query())?;
        let shard = self.shard(asked.owner.shard);
        let shard = shard.ok_or_else(|| Box::new(not_owned_here(asked.owner.shard, map.version())))?;
        let newest = match wants_newest {
            true if is_newest_map => Some(shard.newest().await),
            true => Some(None),
            false => None,
        };
        let read = shard.document_page(&route, before.as_ref(), least).await.map_err(|why| Box::new(not_read(why)))?;
        let read = match newest {
            Some(newest) => read.for_newest(newest),
            None => read,
        };
        let mut response = asked.answer(&read, request.headers());
        if let Some(newest) = newest.flatten() {
            put(response.headers_mut(), headers::NEWEST, &newest.to_string());
            put(response.headers_mut(), headers::MAP_VERSION, &map.version().to_string());
        }
        if request.method() == Method::HEAD {
            let length = HeaderValue::from(response.body().len());
            *response.body_mut() = Bytes::new();
            if response.status() != StatusCode::NOT_MODIFIED {
                response.headers_mut().insert(header::CONTENT_LENGTH, length);
            }
        }
        Ok(response)
    }

    /// The shard map, at the version by which the request was sent here, or later.
    async fn map_of(&self, fields: &HeaderMap) -> Result<Arc<MapState>, Box<Response<Bytes>>> {
        let asked = fields.get(headers::MAP_VERSION).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        let asked = asked.unwrap_or(0);
        let is_enough = |state: &Arc<MapState>| state.version() >= asked;
        if let Some(latest) = self.map.latest().filter(is_enough) {
            return Ok(latest);
        }
        let mut told = self.map.watch();
        // Ends in time, or with the process.
        let _ = timeout(MAP_WAIT, told.wait_for(|told| told.as_ref().is_some_and(is_enough))).await;
        self.map.latest().filter(is_enough).ok_or_else(|| {
            let error = format!("version {asked} of the shard map is not known here yet");
            Box::new(again(error, "see whether this process can reach the queues"))
        })
    }

    fn asked(&self, route: &Route, map: &MapState) -> Option<Asked<'_>> {
        let projection = self.projections.get(route.projection)?;
        let output = projection.outputs.get(route.output)?;
        let owner = map.map.owner_of(&projection.name, &route.key);
        let tag = document_tag(&projection.name, &route.key);
        Some(Asked { kind: &projection.kind, output, tag, owner, refresh: projection.refresh })
    }

    fn no_path(&self) -> Response<Bytes> {
        let all = self.projections.iter().flat_map(|projection| &projection.outputs);
        let mut named: Vec<&str> = all.map(|output| output.path.as_str()).collect();
        let more = named.len().saturating_sub(OUTPUTS_NAMED_MAX);
        named.truncate(OUTPUTS_NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let fix = format!("the declared outputs are {}{more}", named.join(", "));
        refusal(StatusCode::NOT_FOUND, "no output has this path", fix)
    }
}

fn least_position(fields: &HeaderMap) -> Result<Option<Position>, Box<Response<Bytes>>> {
    let Some(value) = fields.get(headers::LEAST_POSITION) else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(least) => Ok(Some(least)),
        None => {
            let error = format!("{} is not a position", headers::LEAST_POSITION);
            let fix = "write it as a decimal number, or leave it out";
            Err(Box::new(refusal(StatusCode::BAD_REQUEST, error, fix)))
        }
    }
}

#[async_trait]
impl Origin for Documents {
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.document(&request).await.unwrap_or_else(|refused| *refused)
    }
}

#[async_trait]
impl Handler for Documents {
    async fn handle(&self, request: Request<Bytes>) -> Answer {
        if let Some(page) = copies::answer(self, &request).await {
            return page.into();
        }
        match changes::answer(self, &request) {
            Some(answer) => answer,
            None => self.answer(request).await.into(),
        }
    }

    /// What is asked for here needs no body.
    fn body_limit(&self, _: &str) -> u64 {
        0
    }
}

impl Changes for Documents {
    fn follow(&self, shard: ShardId, follow: Follow) -> Option<BoxStream<'static, ChangeMessage>> {
        self.shard(shard)?.follow(follow)
    }
}

#[cfg(test)]
mod tests;
