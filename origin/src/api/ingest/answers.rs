//! What ingest says when it does not take a request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::batch::NoBatch;
use super::cloud_events::NoFormat;
use super::coding::NotDecoded;
use super::source::Source;
use crate::http::refusal;

/// An answer that ends the walk early.
pub type Refused = Box<Response<Bytes>>;

pub fn too_large(problem: &str) -> Refused {
    refusal(StatusCode::PAYLOAD_TOO_LARGE, problem, "send it in smaller parts").into()
}

/// The body of one request is larger than its source takes.
pub fn body_too_large(source: &Source) -> Refused {
    too_large(&format!("the body is larger than {} bytes, the limit of this source", source.body_max))
}

/// 503: it may work in a second.
pub fn unavailable(error: &str) -> Refused {
    wait(StatusCode::SERVICE_UNAVAILABLE, error, "send the batch again later", Duration::from_secs(1))
}

/// 429: this source sends faster than it may.
pub fn too_fast(source: &Source, until: Duration) -> Refused {
    let error = format!("the source `{}` sends faster than its rate allows", source.name);
    wait(StatusCode::TOO_MANY_REQUESTS, &error, "send slower", until)
}

fn wait(status: StatusCode, error: &str, fix: &str, until: Duration) -> Refused {
    let mut response = refusal(status, error, fix);
    let seconds = until.as_secs() + u64::from(until.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response.into()
}

/// 415 for a content coding (RFC 9110 §15.5.16: with those that would do).
pub fn unknown_coding(coding: &str) -> Refused {
    let coding: String = coding.chars().take(64).collect();
    let problem = format!("the body is encoded with `{coding}`");
    let mut response = refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem, "use gzip, zstd, or no Content-Encoding");
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
    response.into()
}

pub fn not_decoded(source: &Source, why: &NotDecoded) -> Refused {
    match why {
        NotDecoded::TooLarge => {
            let problem = format!(
                "the body becomes larger than {} bytes, the limit of this source, or grows too much",
                source.body_max
            );
            too_large(&problem)
        }
        NotDecoded::NoRoom(none) => unavailable(&none.to_string()),
        NotDecoded::Broken(how) => {
            refusal(StatusCode::BAD_REQUEST, format!("the body {how}"), "encode it again, or send it as it is").into()
        }
    }
}

pub fn no_format(why: &NoFormat) -> Refused {
    match why {
        NoFormat::NotJson => {
            let fix = "send application/cloudevents+json or application/cloudevents-batch+json";
            refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this format of CloudEvents is not read here", fix).into()
        }
        NoFormat::Field(name) => {
            let problem = format!("the field {name} is not UTF-8, percent-encoded");
            refusal(StatusCode::BAD_REQUEST, problem, "encode it as CloudEvents' HTTP binding says").into()
        }
    }
}

/// 415: the source takes payloads, and these are events.
pub fn not_payload(source: &Source) -> Refused {
    let problem = format!("the source `{}` takes payloads, not CloudEvents", source.name);
    refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem, "send them to a source of shape = \"event\"").into()
}

pub fn no_batch(why: NoBatch, max_events: usize) -> Refused {
    match why {
        NoBatch::Empty => {
            let fix = "send a JSON object, an array, or lines";
            refusal(StatusCode::BAD_REQUEST, "the body holds no event", fix).into()
        }
        NoBatch::TooMany => too_large(&format!("the body holds more than {max_events} events, the limit")),
    }
}
