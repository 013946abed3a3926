//! `[[projection]]` as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::At;

/// A projection: documents derived from events.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Projection")]
pub struct WrittenProjection {
    /// Name: letters, digits, `-` and `_`. First part of every tag of its documents.
    pub name: Option<At<String>>,
    /// `feed` (newest items by key) or `latest` (last value by key).
    pub kind: Option<At<String>>,
    /// Which events count: path → value, or list of values of which any will do.
    #[serde(rename = "where")]
    pub filter: Option<BTreeMap<String, At<WrittenCondition>>>,
    /// Template that names the document an event belongs to: `"{data.user}"`.
    pub key: Option<At<String>>,
    /// Template of what items sort by: a time or a whole number. The event's time unless given.
    pub order: Option<At<String>>,
    /// How many items a `feed` keeps.
    pub keep: Option<At<usize>>,
    /// Fields of an item: name → template.
    pub item: Option<At<BTreeMap<String, At<String>>>>,
    /// Title of the documents; `{key}` stands for the key.
    pub title: Option<At<String>>,
    /// Rendered forms, each with its own URL.
    pub output: Option<Vec<At<WrittenOutput>>>,
}

/// A value, or a list of values of which any will do.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string, a number, true or false, or a list of these")]
pub enum WrittenCondition {
    One(Scalar),
    AnyOf(Vec<Scalar>),
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

/// One rendered form of a projection's documents.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Output")]
pub struct WrittenOutput {
    /// URL path with `{key}` once: `"/users/{key}/feed.json"`.
    pub path: Option<At<String>>,
    /// `json`, `jsonfeed` (JSON Feed 1.1) or `atom` (RFC 4287).
    pub format: Option<At<String>>,
    /// `Cache-Control` of the answers; `public, max-age=0` unless given.
    pub cache_control: Option<At<String>>,
}
