//! Why a connection ends, and what is said before it does.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use millpond_shared::http1::Refusal;

use super::{NoRoom, ServerLimits, refusal};

/// Why a connection ends.
pub enum End {
    /// Nothing more is to be said.
    Closed,
    /// This is the handler's answer to a request whose body was not read to its end.
    Answered(Box<Response<Bytes>>),
    /// This is said first, then it is closed: where the next request would begin can't be trusted. With the reason as
    /// it is counted.
    Refused(&'static str, Box<Response<Bytes>>),
}

pub fn too_large(limit: u64) -> End {
    let problem = format!("the body is larger than {limit} bytes, the limit of this path");
    let response = refusal(StatusCode::PAYLOAD_TOO_LARGE, problem, "send it in smaller parts");
    End::Refused("body_too_large", Box::new(response))
}

pub fn no_room(none: NoRoom) -> End {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, none.to_string(), "send it again later");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    End::Refused("no_room", Box::new(response))
}

pub fn too_slow(what: &str, limit: Duration) -> End {
    let problem = format!("{what} did not arrive within {} s", limit.as_secs_f64());
    let response = refusal(StatusCode::REQUEST_TIMEOUT, problem, "send it faster, or in smaller parts");
    End::Refused("too_slow", Box::new(response))
}

pub fn body_too_slow(limits: &ServerLimits) -> End {
    End::Refused("too_slow", Box::new(limits.too_slow()))
}

impl From<Refusal> for End {
    fn from(refused: Refusal) -> End {
        let response = refusal(refused.status, refused.why, "send HTTP/1.1 as RFC 9112 defines it");
        End::Refused("malformed", Box::new(response))
    }
}
