//! The admin socket: `/metrics`, `/healthz`, `/readyz`, and purges. The control plane; never on the data plane's
//! listeners, and beyond loopback only for who has the token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use millpond_origin::api::desk::Desk;
use millpond_origin::api::queues::names;
use millpond_origin::http::{Answer, Handler, json, method_not_allowed, refusal};
use millpond_origin::queue::QueueRole;
use millpond_proxy::cache::{Mode, Purged};
use millpond_proxy::gateway::Gateway;
use millpond_proxy::observe::Observer;
use prometheus::{Encoder, Registry, TextEncoder};

use crate::token::Token;

/// What the admin socket can see and touch.
pub struct Admin {
    pub registry: Registry,
    pub proxy: Option<(Arc<Gateway>, Arc<Observer>)>,
    /// Asked how they stand whenever metrics are: those on NATS can't be asked while these are gathered.
    pub queues: Option<Arc<dyn QueueRole>>,
    /// Whether every role is up and none is stopping.
    pub ready: Arc<AtomicBool>,
    /// What requests have to bring, but for those about health.
    pub token: Option<Token>,
}

/// Largest request body: nothing here takes one.
const BODY_MAX: u64 = 4096;

/// Longest wait for the queues to say how they stand.
const STATUS_TIME: Duration = Duration::from_secs(2);

#[async_trait]
impl Handler for Admin {
    async fn handle(&self, request: Request<Bytes>) -> Answer {
        if !self.is_allowed(&request) {
            return unauthorized().into();
        }
        if let Some(answer) = self.desk_answer(&request).await {
            return answer.into();
        }
        if let Some(queues) = self.queues.as_ref().filter(|_| request.uri().path() == "/metrics") {
            // Where they can't be asked, what they said last is told.
            let _ = tokio::time::timeout(STATUS_TIME, queues.status()).await;
        }
        self.answer(&request).into()
    }

    fn body_limit(&self, _: &str) -> u64 {
        BODY_MAX
    }
}

impl Admin {
    /// What operators ask of the queues; `None` if this is no such request.
    async fn desk_answer(&self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let names = names(request.uri().path())?;
        let Some(queues) = &self.queues else {
            let fix = "ask a process that has [queue]";
            return Some(refusal(StatusCode::NOT_FOUND, "this process has no queues", fix));
        };
        let desk = Desk::new(Arc::clone(queues));
        desk.answer(request.method().as_str(), &names, request.uri().query().unwrap_or_default()).await
    }

    /// Whether the request has the token, if there is one and it asks for what needs it.
    fn is_allowed(&self, request: &Request<Bytes>) -> bool {
        let is_open = matches!(request.uri().path(), "/healthz" | "/readyz");
        self.token.as_ref().is_none_or(|token| is_open || token.is_in(request.headers()))
    }

    fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/metrics" | "/healthz" | "/readyz" if !reads => method_not_allowed("GET, HEAD"),
            "/metrics" => self.metrics(),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readyz(),
            "/purge" if request.method() != Method::POST => method_not_allowed("POST"),
            "/purge" => self.purge(request.uri()),
            _ => refusal(
                StatusCode::NOT_FOUND,
                "the admin socket has nothing at this path",
                "use /metrics, /healthz, /readyz or POST /purge",
            ),
        }
    }

    fn metrics(&self) -> Response<Bytes> {
        let mut out = Vec::new();
        let encoder = TextEncoder::new();
        match encoder.encode(&self.registry.gather(), &mut out) {
            Ok(()) => with_type(StatusCode::OK, Bytes::from(out), "text/plain; version=0.0.4; charset=utf-8"),
            Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), "report this"),
        }
    }

    fn readyz(&self) -> Response<Bytes> {
        if !self.ready.load(Ordering::Acquire) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n");
        }
        match &self.proxy {
            Some((gateway, _)) if !gateway.live().is_ready() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "a shard's change stream is not followed yet\n")
            }
            _ => text(StatusCode::OK, "ready\n"),
        }
    }

    /// `POST /purge?url=…`, `?tag=…` or `?all`, with `&mode=stale` (the default) or `&mode=delete`.
    fn purge(&self, uri: &Uri) -> Response<Bytes> {
        let Some((gateway, observer)) = &self.proxy else {
            return refusal(StatusCode::NOT_FOUND, "this process has no proxy", "ask the process that has [proxy]");
        };
        let parameters: Vec<(String, String)> = uri.query().unwrap_or("").split('&').map(parameter).collect();
        let get = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let mode = match get("mode") {
            None | Some("stale") => Mode::Stale,
            Some("delete") => Mode::Delete,
            Some(other) => {
                return refusal(
                    StatusCode::BAD_REQUEST,
                    format!("`{other}` is no mode"),
                    "use mode=stale or mode=delete",
                );
            }
        };
        let (kind, purged) = match (get("url"), get("tag"), get("all")) {
            (Some(url), None, None) => match purge_url(gateway, url, mode) {
                Ok(purged) => ("url", purged),
                Err(refused) => return *refused,
            },
            (None, Some(tag), None) if !tag.is_empty() => ("tag", gateway.store().purge_tag(tag, mode)),
            (None, None, Some(_)) => ("all", gateway.store().purge_all(mode)),
            _ => {
                let fix = "give one of url=http://HOST/PATH, tag=TAG (percent-encoded), or all";
                return refusal(StatusCode::BAD_REQUEST, "it is not said what to purge", fix);
            }
        };
        let mode = if mode == Mode::Stale { "stale" } else { "delete" };
        observer.purged(kind, mode);
        tracing::info!(kind, mode, objects = purged.objects, bytes = purged.bytes, "purged");
        let body =
            serde_json::json!({ "purged": kind, "mode": mode, "objects": purged.objects, "bytes": purged.bytes });
        json(StatusCode::OK, &body)
    }
}

/// RFC 9110 §11.6.1, RFC 6750 §3.
fn unauthorized() -> Response<Bytes> {
    let fix = "send Authorization: Bearer TOKEN, with the token that admin.token names the place of";
    let mut response = refusal(StatusCode::UNAUTHORIZED, "the token is missing or wrong", fix);
    let challenge = HeaderValue::from_static("Bearer realm=\"millpond admin\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn purge_url(gateway: &Gateway, url: &str, mode: Mode) -> Result<Purged, Box<Response<Bytes>>> {
    let fix = "give the whole URL as clients use it, as in url=http://HOST/PATH, percent-encoded";
    let wrong = |why: &str| Box::new(refusal(StatusCode::BAD_REQUEST, format!("`{url}`: {why}"), fix));
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("there is no scheme"))?;
    if scheme != "http" && scheme != "https" {
        return Err(wrong("the scheme is not http or https"));
    }
    let (host, path) = match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => rest.split_at(at),
        Some(_) => return Err(wrong("there is no path")),
        None => (rest, "/"),
    };
    gateway.purge_url(scheme, host, path, mode).ok_or_else(|| wrong("the host is not valid, or no rule matches"))
}

/// `name=value`, both decoded.
fn parameter(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let decode = millpond_shared::template::decode_key;
    (decode(name), decode(value))
}

fn text(status: StatusCode, body: &'static str) -> Response<Bytes> {
    with_type(status, Bytes::from_static(body.as_bytes()), "text/plain; charset=utf-8")
}

fn with_type(status: StatusCode, body: Bytes, content_type: &'static str) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
