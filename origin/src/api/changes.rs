//! The change stream on the shard server's socket: one JSON object a line, in an answer that never ends.

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use millpond_shared::version::{Position, ShardId};
use millpond_shared::wire::{ChangeMessage, Follow};

use super::answers::{again, not_here};
use super::documents::Documents;
use crate::http::{Answer, method_not_allowed, refusal};

const ROOT: &str = "/_millpond/shards/";
/// How many messages that are ready are written to the socket at once.
const AT_ONCE_MAX: usize = 64;

/// The answer to `GET /_millpond/shards/SHARD/changes[?after=POSITION]`; `None` for a path that is not below
/// `/_millpond/shards/`.
pub(super) fn answer(documents: &Documents, request: &Request<Bytes>) -> Option<Answer> {
    let name = request.uri().path().strip_prefix(ROOT)?;
    Some(stream(documents, name, request).unwrap_or_else(|refused| Answer::Full(*refused)))
}

fn stream(documents: &Documents, name: &str, request: &Request<Bytes>) -> Result<Answer, Box<Response<Bytes>>> {
    let shard: ShardId = name.strip_suffix("/changes").and_then(number).ok_or_else(|| Box::new(no_path()))?;
    if request.method() != Method::GET {
        return Err(Box::new(method_not_allowed("GET")));
    }
    let follow = follow(request.uri().query())?;
    let shard = documents.shard(shard).ok_or_else(|| Box::new(not_here(shard)))?;
    let messages = shard
        .follow(follow)
        .ok_or_else(|| Box::new(again("the shard has stopped, or has as many followers as it takes", "ask again")))?;

    let lines = |ready: Vec<ChangeMessage>| Bytes::from(ready.iter().map(ChangeMessage::to_line).collect::<String>());
    let mut response = Response::new(());
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(Answer::Stream(response.into_parts().0, messages.ready_chunks(AT_ONCE_MAX).map(lines).boxed()))
}

fn follow(query: Option<&str>) -> Result<Follow, Box<Response<Bytes>>> {
    let after = match query {
        None | Some("") => None,
        Some(query) => {
            let after: Option<Position> = query.strip_prefix("after=").and_then(number);
            let refused = || {
                refusal(StatusCode::BAD_REQUEST, "the query is not `after=POSITION`", "write it as in `?after=4711`")
            };
            Some(after.ok_or_else(|| Box::new(refused()))?)
        }
    };
    Ok(Follow { after })
}

/// A decimal number, without a sign.
fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn no_path() -> Response<Bytes> {
    refusal(StatusCode::NOT_FOUND, "shards have no such path", format!("ask for {ROOT}0/changes"))
}
