//! `[[rule]]` and `[origin.NAME]` as they are written.

use std::borrow::Cow;
use std::fmt;

use millpond_shared::config::{At, Seconds};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::limits::Per;

/// One entry of the rule set: match, origin, cache settings. The first rule that matches a request wins.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Rule")]
pub struct WrittenRule {
    /// Name in logs, metrics and answers.
    pub name: Option<At<String>>,
    /// A path pattern (`*` within a segment, `**` across), or a table of host, path and method.
    #[serde(rename = "match")]
    pub matches: Option<At<WrittenMatch>>,
    /// `shards`, `ingest`, or the NAME of an `[origin.NAME]`.
    pub origin: Option<At<String>>,
    /// Which query parameters make up the cache key and are forwarded.
    pub key: Option<At<WrittenKey>>,
    /// Lifetime: a duration that overrides the origin's, or `{ default, min, max }` that fills in and bounds it.
    pub ttl: Option<At<WrittenTtl>>,
    /// How long a stale response may be served where the origin names no window.
    pub stale: Option<At<WrittenStale>>,
    /// Labels on stored responses, purged together.
    pub tags: Option<At<WrittenTags>>,
    /// Cache directives of clients that are not heeded: `{ no_cache = false, max_age = false }`. All are, unless given.
    pub client: Option<At<WrittenClient>>,
    /// Requests that pass by the cache: `"header:NAME"`, `"cookie:NAME"`, `"query:NAME"`.
    pub bypass: Option<Vec<At<String>>>,
    /// Fields like `X-Original-URL` that change what a request asks for, and that the origin gets all the same. A
    /// request with one of them passes by the cache.
    pub forward: Option<At<Vec<At<String>>>>,
    /// Media types of responses that are stored, as in `["application/json", "image/*"]`; any unless given.
    pub content_type: Option<At<Vec<At<String>>>>,
    /// How often, and how many at a time, requests are let through; beyond it 429.
    pub limit: Option<At<WrittenLimit>>,
}

/// How often, and how many at a time.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Limit")]
pub struct WrittenLimit {
    /// Requests in a second, minute or hour: `"100/s"`, `"30/m"`, `"500/h"`.
    pub rate: Option<At<String>>,
    /// How many may come at once; as many as come in a second unless given.
    pub burst: Option<At<u32>>,
    /// Requests that are answered at a time.
    pub concurrent: Option<At<u32>>,
    /// `client` (the default): each client has its own limit; `rule`: all have one together.
    pub per: Option<At<Per>>,
    /// Whether what the cache answers counts as well; false unless given.
    pub hits: Option<At<bool>>,
}

/// Which requests a rule is for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchTable {
    /// Host name without port.
    pub host: Option<At<String>>,
    /// Path pattern.
    pub path: Option<At<String>>,
    /// Methods; any unless given.
    pub method: Option<Vec<At<String>>>,
}

#[derive(Clone, Debug)]
pub enum WrittenMatch {
    Path(String),
    Table(MatchTable),
}

/// What the cache key is made of beside origin, scheme, host and path.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Key")]
pub struct WrittenKey {
    /// Names of the query parameters that count; the others are not forwarded either. Without `key`: the whole query.
    pub query: Option<At<Vec<At<String>>>>,
}

/// Bounds of the origin's lifetime.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TtlTable {
    /// Where the origin gives none.
    pub default: Option<At<Seconds>>,
    pub min: Option<At<Seconds>>,
    pub max: Option<At<Seconds>>,
}

#[derive(Clone, Debug)]
pub enum WrittenTtl {
    Fixed(Seconds),
    Table(TtlTable),
}

/// Windows past the lifetime.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Stale")]
pub struct WrittenStale {
    /// While a refresh runs behind.
    pub revalidate: Option<At<Seconds>>,
    /// While the origin fails.
    pub error: Option<At<Seconds>>,
}

/// Which cache directives of a client are heeded.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Client")]
pub struct WrittenClient {
    /// `no-cache`, and `Pragma: no-cache`: the origin is asked before a stored response is sent.
    pub no_cache: Option<bool>,
    /// `no-store`: the response is not stored.
    pub no_store: Option<bool>,
    /// `max-age`: a stored response is not older.
    pub max_age: Option<bool>,
    /// `min-fresh`: a stored response stays fresh for as long.
    pub min_fresh: Option<bool>,
    /// `max-stale`: a stale response will do.
    pub max_stale: Option<bool>,
    /// `stale-if-error`: a stale response will do when the origin fails.
    pub stale_if_error: Option<bool>,
    /// `only-if-cached`: the origin is not asked.
    pub only_if_cached: Option<bool>,
}

/// Where tags come from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tags")]
pub struct WrittenTags {
    /// Response field that lists tags, separated by commas or blanks.
    pub header: Option<At<String>>,
    /// Tags of every response of the rule.
    pub add: Option<Vec<At<String>>>,
}

/// Servers of an existing API.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Origin")]
pub struct WrittenOrigin {
    /// `host:port` of each server; asked in turn, a dead one is skipped.
    pub servers: Option<At<Vec<At<String>>>>,
}

/// A value that is either a text or a table.
macro_rules! text_or_table {
    ($name:ident, $text:ident($inner:ty), $table:ty, $expecting:literal, $text_schema:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Either;
                impl<'de> Visitor<'de> for Either {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse::<$inner>().map($name::$text).map_err(E::custom)
                    }
                    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<$name, M::Error> {
                        <$table>::deserialize(MapAccessDeserializer::new(map)).map($name::Table)
                    }
                }
                deserializer.deserialize_any(Either)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).trim_start_matches("Written").into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let (text, table) = ($text_schema(generator), generator.subschema_for::<$table>());
                json_schema!({ "anyOf": [text, table] })
            }
        }
    };
}

text_or_table!(
    WrittenMatch,
    Path(String),
    MatchTable,
    "a path pattern, as in \"/api/**\", or a table of host, path and method",
    |_: &mut SchemaGenerator| json_schema!({ "type": "string" })
);
text_or_table!(
    WrittenTtl,
    Fixed(Seconds),
    TtlTable,
    "a duration, as in \"30s\", or a table of default, min and max",
    |generator: &mut SchemaGenerator| generator.subschema_for::<Seconds>()
);
