//! Documents over HTTP: what a shard server answers on its socket, and, in one process, by a call.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use millpond_shared::projection::{Output, Projection, document_tag};
use millpond_shared::route::{self, Route};
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::{Position, ShardId, Version};
use millpond_shared::wire::{ChangeMessage, Changes, Follow, Origin, headers};

use super::changes;
use super::conditions::not_modified;
use crate::http::{Answer, Handler, method_not_allowed, refusal};
use crate::shard::{Found, NotRead, Read, Shard};

/// The shards of this process, as one origin.
pub struct Documents {
    projections: Arc<Vec<Projection>>,
    map: Arc<ShardMap>,
    shards: BTreeMap<ShardId, Arc<Shard>>,
}

/// How many outputs the answer to an unknown path names.
const OUTPUTS_NAMED_MAX: usize = 20;

impl Documents {
    pub fn new(
        projections: Arc<Vec<Projection>>,
        map: Arc<ShardMap>,
        shards: impl IntoIterator<Item = Arc<Shard>>,
    ) -> Documents {
        let shards = shards.into_iter().map(|shard| (shard.id(), shard)).collect();
        Documents { projections, map, shards }
    }

    /// The shard with this number, if it is here.
    pub(super) fn shard(&self, shard: ShardId) -> Option<&Arc<Shard>> {
        self.shards.get(&shard)
    }

    async fn document(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, Response<Bytes>> {
        let route = route::find(&self.projections, request.uri().path()).ok_or_else(|| self.no_path())?;
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(method_not_allowed("GET, HEAD"));
        }
        let asked = self.asked(&route).ok_or_else(|| self.no_path())?;
        let least = least_position(request.headers())?;
        let shard = self.shard(asked.shard).ok_or_else(|| not_here(asked.shard))?;
        let read = shard.document(&route, least).await.map_err(not_read)?;
        let mut response = asked.answer(&read, request.headers());
        if request.method() == Method::HEAD {
            let length = HeaderValue::from(response.body().len());
            *response.body_mut() = Bytes::new();
            if response.status() != StatusCode::NOT_MODIFIED {
                response.headers_mut().insert(header::CONTENT_LENGTH, length);
            }
        }
        Ok(response)
    }

    fn asked(&self, route: &Route) -> Option<Asked<'_>> {
        let projection = self.projections.get(route.projection)?;
        let output = projection.outputs.get(route.output)?;
        let shard = self.map.owner_of(&projection.name, &route.key).shard;
        Some(Asked { output, tag: document_tag(&projection.name, &route.key), shard })
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

/// What a request names.
struct Asked<'a> {
    output: &'a Output,
    tag: String,
    /// The shard that owns the document.
    shard: ShardId,
}

impl Asked<'_> {
    fn answer(&self, read: &Read, conditions: &HeaderMap) -> Response<Bytes> {
        match &read.found {
            Found::Document(rendered) => {
                let mut response = Response::new(Bytes::new());
                let fields = response.headers_mut();
                put(fields, header::ETAG.as_str(), &rendered.etag);
                put(fields, header::LAST_MODIFIED.as_str(), &rendered.last_modified);
                self.put_common(fields, rendered.version, read.position);
                if not_modified(conditions, &rendered.etag, &rendered.last_modified) {
                    *response.status_mut() = StatusCode::NOT_MODIFIED;
                } else {
                    put(response.headers_mut(), header::CONTENT_TYPE.as_str(), rendered.content_type);
                    *response.body_mut() = rendered.body.clone();
                }
                response
            }
            // It names its tag and version like any document, so that a proxy can keep it until the first event comes.
            Found::Nothing(version) => {
                let error = format!("no event has reached the document `{}` yet", self.tag);
                let mut response = refusal(StatusCode::NOT_FOUND, error, "check the key, or wait for an event");
                self.put_common(response.headers_mut(), *version, read.position);
                response
            }
        }
    }

    fn put_common(&self, fields: &mut HeaderMap, version: Version, position: Position) {
        put(fields, header::CACHE_CONTROL.as_str(), &self.output.cache_control);
        put(fields, headers::CACHE_TAG, &self.tag);
        put(fields, headers::VERSION, &version.to_string());
        put(fields, headers::POSITION, &position.to_string());
        put(fields, headers::SHARD, &self.shard.to_string());
    }
}

fn put(fields: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}

fn least_position(fields: &HeaderMap) -> Result<Option<Position>, Response<Bytes>> {
    let Some(value) = fields.get(headers::LEAST_POSITION) else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(least) => Ok(Some(least)),
        None => Err(refusal(
            StatusCode::BAD_REQUEST,
            format!("{} is not a position", headers::LEAST_POSITION),
            "write it as a decimal number, or leave it out",
        )),
    }
}

/// 421: the document belongs to a shard that is not in this process.
pub(super) fn not_here(shard: ShardId) -> Response<Bytes> {
    let error = format!("shard {shard} is not here");
    refusal(StatusCode::MISDIRECTED_REQUEST, error, "give all roles the same [shard_map] and ask the process it names")
}

/// 503 that asks for another try in a second.
pub(super) fn again(error: impl AsRef<str>, fix: &str) -> Response<Bytes> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, error, fix);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn not_read(why: NotRead) -> Response<Bytes> {
    match why {
        NotRead::Behind { .. } => again(why.to_string(), "the shard is catching up: ask again"),
        NotRead::Stopping => again(why.to_string(), "ask again"),
        NotRead::NotRendered(_) | NotRead::NoOutput => {
            tracing::error!(error = %why, "a document was not rendered");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, why.to_string(), "see the log of the shard server")
        }
    }
}

#[async_trait]
impl Origin for Documents {
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.document(&request).await.unwrap_or_else(|refused| refused)
    }
}

#[async_trait]
impl Handler for Documents {
    async fn handle(&self, request: Request<Bytes>) -> Answer {
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
