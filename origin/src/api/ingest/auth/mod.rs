//! Who may send events to a source: anybody, who signs requests, or who was given a signed URL.
//!
//! `webhooks`: Standard Webhooks; `signed_url`: impressions; `replays`: requests that were taken already; `secrets`:
//! the keys of both.

mod replays;
mod secrets;
mod signed_url;
mod webhooks;

pub use replays::Replays;
pub use secrets::{SECRET_BYTES, SECRETS_MAX, Secret, Secrets};
pub use signed_url::{Impression, SignedUrl};
pub use webhooks::{Claim, Verified, Webhooks, signature};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::http::refusal;

/// How a source knows its producers.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// Requests are signed.
    Webhooks(Webhooks),
    /// URLs are signed, and getting one is an event.
    SignedUrl(SignedUrl),
}

/// What getting a signed URL is answered with: an image that nobody may store, so that each time is counted.
pub fn image() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(signed_url::GIF));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Why a request is not taken for what it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// What has to be there is not.
    Missing(&'static str),
    /// It is there and can't be read.
    Malformed { what: &'static str, problem: &'static str },
    /// No secret of this source makes this signature of it.
    Forged,
    /// It was signed too long ago, or its URL has expired.
    Late { seconds: u64, limit_seconds: u64 },
    /// It was signed too far in the future.
    Early { seconds: u64, limit_seconds: u64 },
    /// The very same request was taken before.
    Replayed,
}

impl Unverified {
    /// The reason as it is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Unverified::Missing(_) => "unsigned",
            Unverified::Malformed { .. } => "signature_malformed",
            Unverified::Forged => "forged",
            Unverified::Late { .. } => "expired",
            Unverified::Early { .. } => "early",
            Unverified::Replayed => "replayed",
        }
    }

    /// What the sender is told. 400 for what nobody could verify, else 401.
    pub fn answer(&self, source: &str) -> Response<Bytes> {
        let (status, problem, fix) = match self {
            Unverified::Missing(what) => (
                StatusCode::UNAUTHORIZED,
                format!("{what} is missing"),
                "sign the request with a secret of this source",
            ),
            Unverified::Malformed { what, problem } => {
                (StatusCode::BAD_REQUEST, format!("{what} {problem}"), "sign as Standard Webhooks 1.0.0 describes it")
            }
            Unverified::Forged => (
                StatusCode::UNAUTHORIZED,
                "no secret of this source makes this signature".to_owned(),
                "sign exactly the bytes that are sent, with the secret of this source",
            ),
            Unverified::Late { seconds, limit_seconds } => (
                StatusCode::UNAUTHORIZED,
                format!("it was signed for a time {seconds} s ago, {limit_seconds} s are allowed"),
                "set the clock, or sign again when sending again",
            ),
            Unverified::Early { seconds, limit_seconds } => (
                StatusCode::UNAUTHORIZED,
                format!("it was signed for a time {seconds} s from now, {limit_seconds} s are allowed"),
                "set the clock",
            ),
            Unverified::Replayed => (
                StatusCode::UNAUTHORIZED,
                "this very request was taken already".to_owned(),
                "nothing is to be done; to ask again what became of it, sign it with a new timestamp",
            ),
        };
        let mut response = refusal(status, problem, fix);
        if status == StatusCode::UNAUTHORIZED
            && let Ok(challenge) = HeaderValue::from_str(&format!("Signature realm=\"{source}\""))
        {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
