//! From the state of a document to the bytes of one of its outputs (pure).
//!
//! `json` concatenates what the items already are, and writes measured numbers (`measured`); `xml` is the same document as
//! XML. `jsonfeed` (JSON Feed 1.1), `atom` (RFC 4287), `rss` (RSS 2.0) and `activitystreams` (Activity Streams 2.0) read
//! the items' fields, and what their specifications don't allow never gets into the output; `value`, `address` and
//! `markup` hold what they share. `template` is what users write themselves. `page` is what of a document all of them list.
//!
//! Nothing here depends on a clock: the same document gives the same bytes on every replica and after every restart.

mod activitystreams;
mod address;
mod atom;
mod json;
mod jsonfeed;
mod markup;
mod measured;
mod page;
mod rss;
#[cfg(test)]
mod samples;
mod template;
mod value;
mod xml;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use millpond_shared::projection::{Format, Output, Projection, TemplateFile, document_tag};
use millpond_shared::version::Version;
use ring::digest::{Context, SHA256};

pub use self::address::BEFORE;
use self::page::Page;
use self::template::Template;
use crate::projection::{Before, Document};

/// One rendered form of a document at one version, or a page of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub version: Version,
    pub body: Bytes,
    pub content_type: Arc<str>,
    /// Strong, quotes included: `"epoch-position-fingerprint"`; of a page behind the first `"fingerprint-digest"`.
    pub etag: String,
    /// Value of `Link`: the next page, if there is one, and from there back to the first.
    pub link: Option<String>,
    /// Whether it is to be kept: it is the document at its version, and the first page, or begins behind an item of the
    /// document. There are not more of these than items; cursors that name no item can be made up without end.
    pub is_kept: bool,
    /// Value of `Last-Modified`: an IMF-fixdate.
    pub last_modified: String,
}

/// What the `ETag` of a document's first page is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Its version.
    Version,
    /// What is sent: it is not what the document is at any version.
    Digest,
}

/// What could not be rendered: by a template that fails, or because the store is damaged, since the items that a projection
/// makes can always be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRendered {
    #[error("the document `{document}` can't be rendered: {problem}; restore a copy of the shard's file")]
    Damaged { document: String, problem: String },
    #[error("the document `{document}` can't be rendered by template {template}: {problem}; mend the template")]
    Template { document: String, template: String, problem: String },
    #[error("no projection has this output")]
    NoOutput,
}

/// The outputs of all projections, with what of them need not be made again for every document.
#[derive(Debug)]
pub struct Renderer {
    projections: Arc<Vec<Projection>>,
    /// For each projection: its outputs.
    outputs: Vec<Vec<Prepared>>,
}

#[derive(Debug)]
struct Prepared {
    fingerprint: u64,
    content_type: Arc<str>,
    /// Of an output by template; a problem, where it was not checked as it should have been.
    template: Option<Result<Template, String>>,
}

/// What is wrong with a template file, in words, with the line.
pub fn check_template(name: &str, text: &str) -> Result<(), String> {
    let file = TemplateFile { name: name.to_owned(), text: text.to_owned(), content_type: String::new() };
    Template::compile(&file).map(|_| ())
}

impl Renderer {
    pub fn new(projections: Arc<Vec<Projection>>) -> Renderer {
        let prepared = |projection: &Projection, output: &Output| Prepared {
            fingerprint: projection.output_fingerprint(output),
            content_type: output.format.content_type().into(),
            template: match &output.format {
                Format::Template(file) => Some(Template::compile(file)),
                _ => None,
            },
        };
        let outputs = projections
            .iter()
            .map(|projection| projection.outputs.iter().map(|output| prepared(projection, output)).collect())
            .collect();
        Renderer { projections, outputs }
    }

    /// Renders an output of the document with `key`, by the numbers of projection and output: its first page, or the one
    /// that begins `before` a place. `tag`: what the `ETag` of the first page is made of.
    pub fn render(
        &self,
        projection: usize,
        output: usize,
        key: &str,
        before: Option<&Before>,
        document: &Document,
        tag: Tag,
    ) -> Result<Rendered, NotRendered> {
        let prepared = self.outputs.get(projection).and_then(|outputs| outputs.get(output));
        let declared =
            self.projections.get(projection).and_then(|declared| Some((declared, declared.outputs.get(output)?)));
        let (Some(prepared), Some((projection, output))) = (prepared, declared) else {
            return Err(NotRendered::NoOutput);
        };
        let page = Page::new(projection, output, key, before, document);
        let body = match (&output.format, &prepared.template) {
            (_, Some(template)) => template.as_ref().map_err(String::clone).and_then(|template| template.body(&page)),
            (Format::Xml, _) => json::body(&page).and_then(|json| xml::of_json(&json)),
            (Format::JsonFeed, _) => jsonfeed::body(&page),
            (Format::Atom, _) => atom::body(&page),
            (Format::Rss, _) => rss::body(&page),
            (Format::ActivityStreams, _) => activitystreams::body(&page),
            (Format::Json | Format::Template(_), _) => json::body(&page),
        };
        let body = Bytes::from(body.map_err(|problem| not_rendered(&page, problem))?);
        let link = page.link_field();
        let etag = match (before, tag) {
            (None, Tag::Version) => etag(document.version, prepared.fingerprint),
            (None, Tag::Digest) | (Some(_), _) => {
                page_etag(prepared.fingerprint, link.as_deref().unwrap_or_default(), &body)
            }
        };
        Ok(Rendered {
            version: document.version,
            body,
            content_type: prepared.content_type.clone(),
            etag,
            link,
            is_kept: tag == Tag::Version && before.is_none_or(|before| document.has_place(before)),
            last_modified: http_date(document.changed_ms),
        })
    }
}

fn not_rendered(page: &Page<'_>, problem: String) -> NotRendered {
    let document = document_tag(&page.projection.name, page.key);
    match &page.output.format {
        Format::Template(file) => NotRendered::Template { document, template: file.name.clone(), problem },
        _ => NotRendered::Damaged { document, problem },
    }
}

/// The document with `key` as plain JSON, whatever outputs its projection has.
pub fn plain_json(projection: &Projection, key: &str, document: &Document) -> Result<Vec<u8>, NotRendered> {
    let output = Output::plain_json();
    let page = Page::new(projection, &output, key, None, document);
    json::body(&page).map_err(|problem| not_rendered(&page, problem))
}

fn etag(version: Version, output_fingerprint: u64) -> String {
    format!("\"{version}-{output_fingerprint:016x}\"")
}

/// Bytes of a digest in an `ETag`.
const ETAG_DIGEST_BYTES: usize = 16;

/// A page behind the first stays the same while items come in above it, though the version rises: so its `ETag` is made of
/// what is sent, and whoever validates a copy is told that it will do.
fn page_etag(output_fingerprint: u64, link: &str, body: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    // A field has no line break: the two can't be taken for others.
    [link.as_bytes(), b"\n", body].iter().for_each(|part| context.update(part));
    let digest = context.finish();
    let digits: String = digest.as_ref().iter().take(ETAG_DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{output_fingerprint:016x}-{digits}\"")
}

/// The last second of the year 9999, the last that an IMF-fixdate can tell.
const HTTP_DATE_MAX_SECONDS: u64 = 253_402_300_799;

fn http_date(milliseconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs((milliseconds / 1000).min(HTTP_DATE_MAX_SECONDS)))
}

#[cfg(test)]
mod testing {
    use millpond_shared::event::View;

    use super::*;
    use crate::projection::{Arrival, Document, Effect, testing};

    /// The first output of `declaration` after events (id, order in ns, data).
    pub(super) fn try_rendered(
        declaration: &str,
        key: &str,
        events: &[(&str, i64, &str)],
    ) -> Result<Rendered, NotRendered> {
        let (renderer, document) = applied(declaration, events);
        renderer.render(0, 0, key, None, &document, Tag::Version)
    }

    /// All pages of it.
    pub(super) fn pages_of(declaration: &str, key: &str, events: &[(&str, i64, &str)]) -> Vec<Rendered> {
        let (renderer, document) = applied(declaration, events);
        let mut pages = vec![renderer.render(0, 0, key, None, &document, Tag::Version).unwrap()];
        while let Some((_, next)) = pages.last().and_then(|page| page.link.as_ref()?.split_once("?before=")) {
            let (cursor, _) = next.split_once('>').unwrap();
            let before = cursor.parse().unwrap();
            pages.push(renderer.render(0, 0, key, Some(&before), &document, Tag::Version).unwrap());
        }
        pages
    }

    fn applied(declaration: &str, events: &[(&str, i64, &str)]) -> (Renderer, Arc<Document>) {
        let projections = Arc::new(testing::declared(declaration));
        let projection = &projections[0];
        let mut document = Arc::new(Document::empty(&projection.kind));
        for (position, (id, time, data)) in (1..).zip(events) {
            let event = testing::event(id, *time, data);
            let effect = Effect::of(projection, &View::new(&event).unwrap(), &mut Vec::new()).unwrap();
            let arrival = Arrival { version: Version::new(1, position), place: (0, position), received: 1_000 };
            Document::apply(&mut document, &projection.kind, effect, arrival);
        }
        (Renderer::new(projections), document)
    }

    pub(super) fn rendered(declaration: &str, key: &str, events: &[(&str, i64, &str)]) -> Rendered {
        try_rendered(declaration, key, events).unwrap()
    }

    pub(super) fn text(rendered: &Rendered) -> &str {
        std::str::from_utf8(&rendered.body).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{pages_of, rendered};
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
    fn a_page_behind_the_first_has_a_tag_of_its_own_bytes() {
        const PAGED: &str = r#"
            name = "p"
            kind = "feed"
            key = "{data.user}"
            item = { id = "{id}" }
            [[projection.output]]
            path = "/{key}"
            format = "json"
            page = 1
        "#;
        let events = [("a", 1, "{}"), ("b", 2, "{}"), ("c", 3, "{}"), ("d", 4, "{}")];
        let before = pages_of(PAGED, "k", &events[..3]);
        let after = pages_of(PAGED, "k", &events);
        assert_eq!((before.len(), after.len()), (3, 4));
        assert_ne!(before[0].etag, after[0].etag);
        // What was the second page is the third now, at another version, and no other bytes.
        assert_eq!((&before[1].etag, &before[1].body), (&after[2].etag, &after[2].body));
        assert_ne!(before[1].version, after[2].version);
        assert_ne!(before[1].etag, before[2].etag);
        let is_tag =
            |etag: &str| etag.len() == 51 && etag.trim_matches('"').bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        assert!(is_tag(&before[1].etag), "{}", before[1].etag);
        assert_ne!(page_etag(1, "a", b"b"), page_etag(1, "", b"ab"));
        assert_ne!(page_etag(1, "", b""), page_etag(2, "", b""));
    }

    #[test]
    fn a_time_that_no_date_can_tell_is_the_last_one_that_can() {
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
