//! `[[projection]]` as it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{At, Seconds};

/// A projection: documents derived from events.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Projection")]
pub struct WrittenProjection {
    /// Name: letters, digits, `-` and `_`. First part of every tag of its documents.
    pub name: Option<At<String>>,
    /// `feed` (newest items by key), `latest` (last value by key), `edges` (whom a key points to, each once), `home`
    /// (newest items of the feeds that a key follows), `counter` (numbers by key and window of time) or `group` (the
    /// same, by member).
    pub kind: Option<At<String>>,
    /// Which events count: path → value, list of values of which any will do, comparison, or `{ exists }`.
    #[serde(rename = "where")]
    pub filter: Option<BTreeMap<String, At<WrittenCondition>>>,
    /// Template that names the document an event belongs to: `"{data.user}"`.
    pub key: Option<At<String>>,
    /// Template of what items sort by: a time or a whole number. The event's time unless given.
    pub order: Option<At<String>>,
    /// How many items a `feed` or a `home`, or edges an `edges` keeps.
    pub keep: Option<At<usize>>,
    /// Fields of an item: name → template.
    pub item: Option<At<BTreeMap<String, At<String>>>>,
    /// Template of whom an edge points to: `"{data.followed}"`.
    pub to: Option<At<String>>,
    /// Name of the `feed` whose documents a `home` gathers the items of.
    pub feed: Option<At<String>>,
    /// Name of the `edges` that say which of them a key follows.
    pub edges: Option<At<String>>,
    /// How the feeds of a `home` tell who follows them.
    pub fanout: Option<WrittenFanout>,
    /// Which events take items out of a `feed`, or edges away.
    pub remove_on: Option<At<WrittenRemoval>>,
    /// Whether a `counter` or a `group` tells how many events there were.
    pub count: Option<At<bool>>,
    /// Paths of numbers whose sums a `counter` or a `group` keeps.
    pub sum: Option<At<Vec<At<String>>>>,
    /// Paths of numbers of which it keeps the least.
    pub min: Option<At<Vec<At<String>>>>,
    /// Paths of numbers of which it keeps the greatest.
    pub max: Option<At<Vec<At<String>>>>,
    /// Paths of values of which it tells how many different ones there were.
    pub distinct: Option<At<Vec<At<String>>>>,
    /// Rows of windows of time that a `counter` or a `group` keeps its numbers for; one over all time unless given.
    pub windows: Option<At<Vec<At<WrittenWindows>>>>,
    /// Paths of the values that make a member of a `group`.
    pub by: Option<At<Vec<At<String>>>>,
    /// Most members that a `group` lists of a window; 50 unless given.
    pub top: Option<At<usize>>,
    /// What members are listed by: `count`, or the name of a list and a path of it, as in `sum data.added`. The first
    /// thing that is measured unless given.
    pub rank: Option<At<String>>,
    /// Most members of a window that a `group` counts one by one; 1000 unless given.
    pub members: Option<At<usize>>,
    /// Title of the documents; `{key}` stands for the key.
    pub title: Option<At<String>>,
    /// Where clients reach the outputs: `"https://feeds.example"`. Feeds name themselves and their items by it.
    pub site: Option<At<String>>,
    /// How long copies of a document that has changed may still be used, up to `"1h"`; no time unless given.
    pub refresh: Option<At<Seconds>>,
    /// Rendered forms, each with its own URL.
    pub output: Option<Vec<At<WrittenOutput>>>,
}

/// A value, a list of values of which any will do, or `{ gt, gte, lt, lte }`, or `{ exists }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string, a number, true or false, a list of these, { gt, gte, lt, lte } or { exists }")]
pub enum WrittenCondition {
    One(Scalar),
    AnyOf(Vec<Scalar>),
    /// Names and values are judged later: a choice between kinds of values can't tell what is wrong in one of them.
    Compared(#[schemars(with = "Comparison")] BTreeMap<String, Scalar>),
}

/// Bounds of a number or a time, or whether there is a value.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct Comparison {
    /// Above this number or time.
    gt: Option<Scalar>,
    /// At or above it.
    gte: Option<Scalar>,
    /// Below it.
    lt: Option<Scalar>,
    /// At or below it.
    lte: Option<Scalar>,
    /// Whether there is a value at all.
    exists: Option<bool>,
}

/// A string, a number, true or false.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string, a number, true or false")]
pub enum Scalar {
    Text(String),
    Flag(bool),
    Whole(i64),
    Number(f64),
}

/// Events that take items out of a feed, or edges away.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Removal")]
pub struct WrittenRemoval {
    /// Which events they are: as in a projection's `where`.
    #[serde(rename = "where")]
    pub filter: Option<BTreeMap<String, At<WrittenCondition>>>,
    /// Template of the `id` of the item that is to go. Of `edges` it is `to` that says which one.
    pub id: Option<At<String>>,
    /// How many removals a feed remembers; 1000 unless given.
    pub keep: Option<At<usize>>,
}

/// How feeds tell the `home` documents that follow them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Fanout")]
pub struct WrittenFanout {
    /// Most followers that a feed tells one by one; 10000 unless given. One that comes to have more is merged into their
    /// documents when they are read.
    pub max: Option<At<usize>>,
}

/// A row of windows of time.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Windows")]
pub struct WrittenWindows {
    /// Length of a window: `"1m"`, or `"all"` for a single one over all time.
    pub every: Option<At<String>>,
    /// How long windows are kept, the newest included: a multiple of `every`. None for `"all"`.
    pub keep: Option<At<Seconds>>,
}

/// One rendered form of a projection's documents.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Output")]
pub struct WrittenOutput {
    /// URL path with `{key}` once: `"/users/{key}/feed.json"`.
    pub path: Option<At<String>>,
    /// `json`, `xml` (the same, as XPath's `json-to-xml` writes it), `jsonfeed` (JSON Feed 1.1), `atom` (RFC 4287), `rss`
    /// (RSS 2.0) or `activitystreams` (Activity Streams 2.0).
    pub format: Option<At<String>>,
    /// File with a template, instead of a format: `"counts.html.j2"`, named from this file's folder.
    pub template: Option<At<PathBuf>>,
    /// Media type of what the template makes; what its name says unless given.
    pub content_type: Option<At<String>>,
    /// Items on one page of a `feed`, a `home` or an `edges`; all that are kept unless given.
    pub page: Option<At<usize>>,
    /// `Cache-Control` of the answers; `public, max-age=0` unless given.
    pub cache_control: Option<At<String>>,
}
