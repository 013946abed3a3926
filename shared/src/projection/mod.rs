//! Projections, declared: what the dispatcher routes by, the shard applies and renders, the proxy addresses (pure).
//!
//! `written` mirrors the TOML; `judge` builds [`Projection`]s from it; `filter` is the `where`.

mod filter;
mod judge;
mod written;

pub use filter::{Condition, Filter};
pub use judge::judge;
pub use written::WrittenProjection;

use crate::event::View;
use crate::route::PathPattern;
use crate::template::Template;
use xxhash_rust::xxh3::xxh3_64;

/// A declared derivation of documents from events.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    pub name: String,
    pub kind: Kind,
    pub filter: Filter,
    /// Names the document an event belongs to.
    pub key: Template,
    /// What items sort by; the event's time unless declared.
    pub order: Option<Template>,
    /// Fields of an item (`feed`) or of the document (`latest`), in the order of their names.
    pub item: Vec<(String, Template)>,
    /// Title of the document; `{key}` stands for its key in plain text.
    pub title: String,
    pub outputs: Vec<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The newest `keep` items by (order, id).
    Feed { keep: usize },
    /// The item with the greatest (order, id).
    Latest,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Feed { .. } => "feed",
            Kind::Latest => "latest",
        }
    }
}

/// One rendered form of a projection's documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub path: PathPattern,
    pub format: Format,
    /// Value of `Cache-Control` on every answer of this output.
    pub cache_control: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The document as plain JSON.
    Json,
    /// JSON Feed 1.1.
    JsonFeed,
    /// Atom, RFC 4287.
    Atom,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::JsonFeed => "jsonfeed",
            Format::Atom => "atom",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::JsonFeed => "application/feed+json",
            Format::Atom => "application/atom+xml; charset=utf-8",
        }
    }
}

impl Projection {
    /// Key of the document the event belongs to; `None` where `where` does not hold or no key can be built.
    pub fn route(&self, view: &View<'_>) -> Option<String> {
        if self.filter.holds(view) { self.key.key(view) } else { None }
    }

    /// Number that changes with everything that changes the stored state: kind, `where`, key, order and item.
    ///
    /// A store records it; state of one declaration is never mixed with that of another.
    pub fn state_fingerprint(&self) -> u64 {
        let keep = if let Kind::Feed { keep } = self.kind { keep } else { 1 };
        let parts = (self.kind.as_str(), keep, &self.filter, &self.key, &self.order, &self.item);
        xxh3_64(format!("1 {parts:?}").as_bytes())
    }

    /// Number that changes with everything that changes the bytes of an output, the state's fingerprint included.
    ///
    /// Part of every `ETag`, so that a changed declaration never passes for an unchanged document.
    pub fn output_fingerprint(&self, output: &Output) -> u64 {
        let parts = (self.state_fingerprint(), &self.name, &self.title, output.format, output.path.as_str());
        xxh3_64(format!("1 {parts:?}").as_bytes())
    }
}

/// Tag of the document on every output and page: `projection/key`.
pub fn document_tag(projection: &str, key: &str) -> String {
    [projection, "/", key].concat()
}
