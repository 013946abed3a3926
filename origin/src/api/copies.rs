//! A shard's documents for a replica that starts: `GET /_millpond/shards/SHARD/copy[?after=PROJECTION/KEY]`.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use millpond_shared::version::ShardId;

use super::answers::not_here;
use super::documents::Documents;
use crate::http::{method_not_allowed, refusal};

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.millpond.copy");

/// The answer, if the path is that of a copy.
pub(super) async fn answer(documents: &Documents, request: &Request<Bytes>) -> Option<Response<Bytes>> {
    let number = request.uri().path().strip_prefix("/_millpond/shards/")?.strip_suffix("/copy")?;
    let shard: ShardId = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())??;
    Some(page(documents, shard, request).await.unwrap_or_else(|refused| *refused))
}

async fn page(
    documents: &Documents,
    shard: ShardId,
    request: &Request<Bytes>,
) -> Result<Response<Bytes>, Box<Response<Bytes>>> {
    if request.method() != Method::GET {
        return Err(Box::new(method_not_allowed("GET")));
    }
    let after = match request.uri().query() {
        None => None,
        Some(query) => {
            let after = query.strip_prefix("after=").and_then(|after| after.split_once('/'));
            let fix = "write it as in `?after=user-edits/alice`";
            let refused = || Box::new(refusal(StatusCode::BAD_REQUEST, "the query is not `after=PROJECTION/KEY`", fix));
            let (projection, key) = after.ok_or_else(refused)?;
            Some((projection.to_owned(), key.to_owned()))
        }
    };
    let shard = documents.shard(shard).ok_or_else(|| Box::new(not_here(shard)))?;
    let page = shard.page(after).await.map_err(|error| {
        tracing::error!(shard = shard.id(), %error, "the shard's file can't be copied");
        let fix = "see the log of the shard server";
        Box::new(refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), fix))
    })?;
    let mut response = Response::new(Bytes::from(page.encode()));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
