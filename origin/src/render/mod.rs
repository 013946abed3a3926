//! From the state of a document to the bytes of one of its outputs (pure).
//!
//! `json` concatenates what the items already are; `jsonfeed` (JSON Feed 1.1) and `atom` (RFC 4287) read the items'
//! fields, and what their specifications don't allow never gets into the output. `value` holds what both need.
//!
//! Nothing here depends on a clock: the same document gives the same bytes on every replica and after every restart.

mod atom;
mod json;
mod jsonfeed;
mod value;

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use millpond_shared::projection::{Format, Output, Projection};
use millpond_shared::template::decode_key;
use millpond_shared::version::Version;

use crate::projection::Document;

/// One rendered form of a document at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub version: Version,
    pub body: Bytes,
    pub content_type: &'static str,
    /// Strong: `"epoch-position-fingerprint"`, quotes included.
    pub etag: String,
    /// Value of `Last-Modified`: an IMF-fixdate.
    pub last_modified: String,
}

/// What could not be rendered. It can't happen with the items that `projection` makes: only a damaged store has others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document `{projection}/{key}` can't be rendered: {problem}; restore a copy of the shard's file")]
pub struct NotRendered {
    projection: String,
    key: String,
    problem: String,
}

/// Renders `output` of the document with `key`.
pub fn render(
    projection: &Projection,
    output: &Output,
    key: &str,
    document: &Document,
) -> Result<Rendered, NotRendered> {
    let plain = decode_key(key);
    let page = Page { projection, output, key, title: projection.title.replace("{key}", &plain), plain, document };
    let body = match output.format {
        Format::Json => Ok(json::body(&page)),
        Format::JsonFeed => jsonfeed::body(&page),
        Format::Atom => atom::body(&page),
    };
    let body =
        body.map_err(|problem| NotRendered { projection: projection.name.clone(), key: key.to_owned(), problem })?;
    Ok(Rendered {
        version: document.version,
        body: Bytes::from(body),
        content_type: output.format.content_type(),
        etag: etag(document.version, projection.output_fingerprint(output)),
        last_modified: http_date(document.changed_ms),
    })
}

/// What every format is given.
struct Page<'a> {
    projection: &'a Projection,
    output: &'a Output,
    key: &'a str,
    /// The key in plain text.
    plain: String,
    title: String,
    document: &'a Document,
}

fn etag(version: Version, output_fingerprint: u64) -> String {
    format!("\"{version}-{output_fingerprint:016x}\"")
}

/// The last second of the year 9999, the last that an IMF-fixdate can tell.
const HTTP_DATE_MAX_SECONDS: u64 = 253_402_300_799;

fn http_date(milliseconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs((milliseconds / 1000).min(HTTP_DATE_MAX_SECONDS)))
}

#[cfg(test)]
mod testing {
    use std::sync::Arc;

    use millpond_shared::event::View;
    use millpond_shared::version::Version;

    use super::*;
    use crate::projection::{Arrival, Document, Effect, testing};

    /// The body of the first output of `declaration` after events (id, order in ns, data).
    pub(super) fn rendered(declaration: &str, key: &str, events: &[(&str, i64, &str)]) -> Rendered {
        let projections = testing::declared(declaration);
        let projection = &projections[0];
        let mut document = Arc::new(Document::empty(&projection.kind));
        for (position, (id, time, data)) in (1..).zip(events) {
            let event = testing::event(id, *time, data);
            let effect = Effect::of(projection, &View::new(&event).unwrap()).unwrap();
            let arrival = Arrival { version: Version::new(1, position), place: (0, position), received: 1_000 };
            Document::apply(&mut document, &projection.kind, effect, arrival);
        }
        render(projection, &projection.outputs[0], key, &document).unwrap()
    }

    pub(super) fn text(rendered: &Rendered) -> &str {
        std::str::from_utf8(&rendered.body).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::rendered;
    use super::*;

    const DECLARATION: &str = r#"
        name = "p"
        kind = "latest"
        key = "{data.user}"
        item = { n = "{data.n}" }
    "#;

    #[test]
    fn validators_come_from_version_declaration_and_times() {
        let one = rendered(DECLARATION, "k", &[("a", 1, r#"{"n":1}"#)]);
        assert_eq!(one.last_modified, "Thu, 01 Jan 1970 00:00:01 GMT");
        assert!(one.etag.starts_with("\"1-1-") && one.etag.len() == 22, "{}", one.etag);
        let two = rendered(DECLARATION, "k", &[("a", 1, r#"{"n":1}"#), ("b", 2, r#"{"n":1}"#)]);
        assert_eq!(one.body, two.body);
        assert!(two.etag.starts_with("\"1-2-") && two.etag[5..] == one.etag[5..], "{}", two.etag);
        let retitled = rendered(&format!("{DECLARATION}\ntitle = \"T\""), "k", &[("a", 1, r#"{"n":1}"#)]);
        assert_ne!(retitled.etag, one.etag);
    }

    #[test]
    fn a_time_that_no_date_can_tell_is_the_last_one_that_can() {
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
