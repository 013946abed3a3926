//! The small HTTP/1.1 server and client that the sockets of the origin roles are made of, over `shared::http1`.
//!
//! `server` accepts and counts connections; `connection` is the loop of one, with `receiving` for bodies and `answering` for
//! what is sent back; `end` is what is said when it ends early; `room` is the memory that bodies share; `client` keeps a pool of connections to one role; `refusals`
//! counts what a server refused by itself.

mod answering;
mod client;
#[cfg(test)]
mod client_tests;
mod connection;
mod end;
mod receiving;
mod refusals;
mod room;
mod server;
#[cfg(test)]
mod server_tests;

pub use client::{Client, ClientError};
pub use refusals::Refusals;
pub use room::{NoRoom, Room, Share};
pub use server::{Answer, Handler, ServerLimits, serve, serve_within};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// An answer with a JSON body that says what is wrong and what to do about it.
pub fn refusal(status: StatusCode, error: impl AsRef<str>, fix: impl AsRef<str>) -> Response<Bytes> {
    json(status, &serde_json::json!({ "error": error.as_ref(), "fix": fix.as_ref() }))
}

/// An answer with a JSON body, which nobody may store.
pub fn json(status: StatusCode, body: &impl serde::Serialize) -> Response<Bytes> {
    let mut body = serde_json::to_vec(body).unwrap_or_default();
    body.push(b'\n');
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 405, with what may be asked instead.
pub fn method_not_allowed(allow: &'static str) -> Response<Bytes> {
    let mut response =
        refusal(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method", format!("use {allow}"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}
