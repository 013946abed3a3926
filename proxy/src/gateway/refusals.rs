//! Which requests are refused by their heads alone, whatever the rules say.

use http::{Method, StatusCode};
use millpond_shared::http1::{Framing, Minor, RequestHead, Target};

use super::Client;
use crate::rules::Forwarding;
use crate::semantics::expectation::Expectation;

/// Requests that no rule can ask for.
pub fn not_served(request: &RequestHead) -> Option<(StatusCode, &'static str)> {
    match request.method {
        Method::CONNECT => Some((StatusCode::METHOD_NOT_ALLOWED, "this proxy opens no tunnels")),
        Method::TRACE => Some((StatusCode::METHOD_NOT_ALLOWED, "TRACE is not answered")),
        _ => None,
    }
}

/// Whether the URL is one of `https` and the connection is not secured (RFC 9110 §7.4): its answer would be stored for
/// clients that speak TLS. A trusted proxy may have spoken TLS for us.
pub fn is_misdirected<C: Client>(request: &RequestHead, client: &C, forwarding: &Forwarding) -> bool {
    matches!(&request.target, Target::Absolute { scheme, .. } if scheme == "https")
        && client.scheme() != "https"
        && !forwarding.sender(client.peer(), client.scheme()).is_some_and(|sender| sender.trusted)
}

/// Requests whose head alone says that they can't be served, whatever they ask for.
pub fn unacceptable(
    request: &RequestHead,
    framing: Framing,
    body_max: Option<u64>,
) -> Option<(StatusCode, &'static str)> {
    let expectation = || Expectation::of(&request.fields);
    match framing {
        Framing::Length(length) if body_max.is_some_and(|max| length > max) => {
            Some((StatusCode::PAYLOAD_TOO_LARGE, "the request body is larger than the limit"))
        }
        _ if request.minor == Minor::One && expectation() == Expectation::Unknown => {
            Some((StatusCode::EXPECTATION_FAILED, "the Expect field asks for something other than 100-continue"))
        }
        _ => None,
    }
}
