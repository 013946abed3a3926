//! The rendered forms of a projection's documents (pure).

use std::sync::Arc;

use crate::route::PathPattern;

/// One rendered form of a projection's documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub path: PathPattern,
    pub format: Format,
    /// Items on one page, where that is fewer than the document keeps.
    pub page: Option<usize>,
    /// Value of `Cache-Control` on every answer of this output.
    pub cache_control: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The document as plain JSON.
    Json,
    /// The same, in the XML that XPath and XQuery Functions 3.1 has for JSON (§17.5.3, `fn:json-to-xml`).
    Xml,
    /// JSON Feed 1.1.
    JsonFeed,
    /// Atom, RFC 4287.
    Atom,
    /// RSS 2.0.
    Rss,
    /// An ordered collection of Activity Streams 2.0.
    ActivityStreams,
    /// A template of the user's.
    Template(Arc<TemplateFile>),
}

/// A template in the language of Jinja, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFile {
    /// Name of the file without its folder; it says what is escaped how.
    pub name: String,
    pub text: String,
    pub content_type: String,
}

impl Output {
    /// Plain JSON that has no path.
    pub fn plain_json() -> Output {
        Output { path: PathPattern::default(), format: Format::Json, page: None, cache_control: String::new() }
    }
}

impl Format {
    pub fn as_str(&self) -> &str {
        match self {
            Format::Json => "json",
            Format::Xml => "xml",
            Format::JsonFeed => "jsonfeed",
            Format::Atom => "atom",
            Format::Rss => "rss",
            Format::ActivityStreams => "activitystreams",
            Format::Template(file) => &file.name,
        }
    }

    pub fn content_type(&self) -> &str {
        match self {
            Format::Json => "application/json",
            Format::Xml => "application/xml; charset=utf-8",
            Format::JsonFeed => "application/feed+json",
            Format::Atom => "application/atom+xml; charset=utf-8",
            Format::Rss => "application/rss+xml; charset=utf-8",
            Format::ActivityStreams => "application/activity+json",
            Format::Template(file) => &file.content_type,
        }
    }

    /// Whether its specification has no addresses but absolute ones.
    pub fn needs_absolute_addresses(&self) -> bool {
        matches!(self, Format::JsonFeed | Format::Rss | Format::ActivityStreams)
    }

    /// Whether it lists items in the way of a specification for feeds, and names its own address.
    pub fn is_feed(&self) -> bool {
        matches!(self, Format::JsonFeed | Format::Atom | Format::Rss | Format::ActivityStreams)
    }
}
