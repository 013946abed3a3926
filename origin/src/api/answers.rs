//! What is answered for a document: it, a word that it is as the client has it, or why it can't be given.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use millpond_shared::projection::{Kind, Output};
use millpond_shared::shard_map::Owner;
use millpond_shared::version::{ShardId, Version};
use millpond_shared::wire::headers;

use super::conditions::not_modified;
use crate::http::refusal;
use crate::shard::{Behind, Found, NotRead, Read};

/// Longest list of tags of parts that an answer names, in bytes.
const PARTS_BYTES_MAX: usize = 16 << 10;

/// What a request names.
pub(super) struct Asked<'a> {
    pub kind: &'a Kind,
    pub output: &'a Output,
    pub tag: String,
    pub owner: Owner,
    pub refresh: Option<Duration>,
}

impl Asked<'_> {
    pub fn answer(&self, read: &Read, conditions: &HeaderMap) -> Response<Bytes> {
        match &read.found {
            Found::Document(rendered) => {
                let mut response = Response::new(Bytes::new());
                let fields = response.headers_mut();
                put(fields, header::ETAG.as_str(), &rendered.etag);
                put(fields, header::LAST_MODIFIED.as_str(), &rendered.last_modified);
                if let Some(link) = &rendered.link {
                    put(fields, header::LINK.as_str(), link);
                }
                self.put_common(fields, rendered.version, read);
                if !rendered.is_kept {
                    put(fields, header::CACHE_CONTROL.as_str(), "no-store");
                }
                // Not where there is nothing yet: the first event is waited for.
                if let Some(refresh) = self.refresh {
                    put(fields, headers::REFRESH, &refresh.as_millis().to_string());
                }
                if not_modified(conditions, &rendered.etag, &rendered.last_modified) {
                    *response.status_mut() = StatusCode::NOT_MODIFIED;
                } else {
                    put(response.headers_mut(), header::CONTENT_TYPE.as_str(), &rendered.content_type);
                    *response.body_mut() = rendered.body.clone();
                }
                response
            }
            // It names its tag and version like any document, so that a proxy can keep it until the first event comes.
            Found::Nothing(version) => {
                let error = format!("no event has reached the document `{}` yet", self.tag);
                let mut response = refusal(StatusCode::NOT_FOUND, error, "check the key, or wait for an event");
                self.put_common(response.headers_mut(), *version, read);
                response
            }
        }
    }

    fn put_common(&self, fields: &mut HeaderMap, version: Version, read: &Read) {
        let behind = match read.behind {
            Behind::Nothing => None,
            Behind::Positions(positions) => Some(positions.to_string()),
            Behind::Unknown => Some("unknown".to_owned()),
        };
        let parts = read.parts.join(", ");
        let has_many_parts = read.parts.len() > headers::PARTS_MAX || parts.len() > PARTS_BYTES_MAX;
        let control = if behind.is_some() || has_many_parts { "no-store" } else { &self.output.cache_control };
        put(fields, header::CACHE_CONTROL.as_str(), control);
        if let Some(behind) = behind {
            put(fields, headers::BEHIND, &behind);
        }
        if read.parts.is_empty() || has_many_parts {
            put(fields, headers::CACHE_TAG, &self.tag);
        } else {
            put(fields, headers::CACHE_TAG, &[&self.tag, ", ", &parts].concat());
        }
        put(fields, headers::VERSION, &version.to_string());
        put(fields, headers::POSITION, &read.position.to_string());
        put(fields, headers::SHARD, &self.owner.shard.to_string());
    }
}

pub(super) fn put(fields: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}

/// 421: the document belongs to a shard that is not in this process.
pub(super) fn not_here(shard: ShardId) -> Response<Bytes> {
    let error = format!("shard {shard} is not here");
    refusal(StatusCode::MISDIRECTED_REQUEST, error, "give all roles the same [shard_map] and ask the process it names")
}

/// The same for a document, with the version of the shard map that says so.
pub(super) fn not_owned_here(shard: ShardId, map_version: u32) -> Response<Bytes> {
    let mut response = not_here(shard);
    put(response.headers_mut(), headers::MAP_VERSION, &map_version.to_string());
    response
}

/// 503 that asks for another try in a second.
pub(super) fn again(error: impl AsRef<str>, fix: &str) -> Response<Bytes> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, error, fix);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

pub(super) fn not_read(why: NotRead) -> Response<Bytes> {
    match why {
        NotRead::Behind { .. } => again(why.to_string(), "the shard is catching up: ask again"),
        NotRead::Stopping | NotRead::Unsteady => again(why.to_string(), "ask again"),
        NotRead::NotRendered(_) | NotRead::File(_) | NotRead::NoOutput => {
            tracing::error!(error = %why, "a document was not rendered");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, why.to_string(), "see the log of the shard server")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_parts_are_named_unless_there_are_too_many() {
        let (kind, output) = (Kind::Latest, Output::plain_json());
        let owner = Owner { shard: 3, since: 0 };
        let asked = Asked { kind: &kind, output: &output, tag: "home/a".to_owned(), owner, refresh: None };
        let answer = |parts: Vec<String>| {
            let found = Found::Nothing(Version::new(1, 0));
            let response =
                asked.answer(&Read { position: 5, behind: Behind::Nothing, found, parts }, &HeaderMap::new());
            let field = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
            (field(headers::CACHE_TAG), field("cache-control") == "no-store")
        };
        let parts = |count: usize| (0..count).map(|number| format!("posts/3*{number}")).collect();
        assert_eq!(answer(parts(0)), ("home/a".to_owned(), false));
        assert_eq!(answer(parts(2)), ("home/a, posts/3*0, posts/3*1".to_owned(), false));
        assert!(!answer(parts(headers::PARTS_MAX)).1);
        assert_eq!(answer(parts(headers::PARTS_MAX + 1)), ("home/a".to_owned(), true));
    }
}
