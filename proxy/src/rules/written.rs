//! `[[rule]]` and `[origin.NAME]` as they are written.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use millpond_shared::config::{At, Seconds, Size};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
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
    /// What cookies of a request mean for its response: `private` (unless given: it is stored only if it says that it is
    /// for all), `ignore` (they reach no origin, and mean nothing) or `share` (nothing, as HTTP has it).
    pub cookies: Option<At<WrittenCookies>>,
    /// Fields like `X-Original-URL` that change what a request asks for, and that the origin gets all the same. A
    /// request with one of them passes by the cache.
    pub forward: Option<At<Vec<At<String>>>>,
    /// Longest that the origin may stay silent, before its head and between pieces of its body; `"60s"` unless given.
    pub timeout: Option<At<Seconds>>,
    /// Media types of responses that are stored, as in `["application/json", "image/*"]`; any unless given.
    pub content_type: Option<At<Vec<At<String>>>>,
    /// Languages that the origin answers in, its default first: `["en", "de"]`. `Accept-Language` of a request is reduced
    /// to the best of them, so that requests that get the same language share a response. Unless given, each value of the
    /// field that means something else is a variant of its own.
    pub languages: Option<At<Vec<At<String>>>>,
    /// Content codings that responses are sent in, the preferred first: `["zstd", "br", "gzip"]`, or a table of codings,
    /// min and types. None, unless given.
    pub compress: Option<At<WrittenCompress>>,
    /// What clients and caches between them and this one are told instead of what the origin says.
    pub downstream: Option<At<WrittenDownstream>>,
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
    /// Statuses by which the origin says that it fails, beside giving no whole answer at all; `[429, 500, 502, 503, 504]`
    /// unless given.
    pub statuses: Option<At<Vec<At<u16>>>>,
}

/// What cookies mean.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Cookies")]
pub enum WrittenCookies {
    Private,
    Ignore,
    Share,
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

/// In which content codings responses are sent.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompressTable {
    /// `zstd`, `br` and `gzip`, the preferred first.
    pub codings: Option<At<Vec<At<String>>>>,
    /// Bodies that are smaller are left as they are; 1 KiB unless given.
    pub min: Option<At<Size>>,
    /// Media types, as in `["application/json", "text/*"]`; unless given, those that are text of some kind.
    pub types: Option<At<Vec<At<String>>>>,
}

#[derive(Clone, Debug)]
pub enum WrittenCompress {
    Codings(Vec<At<String>>),
    Table(CompressTable),
}

/// Fields of stored responses that clients are sent in place of the origin's: a text, or `false` for none.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Downstream")]
pub struct WrittenDownstream {
    /// `Cache-Control`, and with it `Expires`: for browsers and every cache. Its seconds count from each answer.
    pub cache_control: Option<At<WrittenField>>,
    /// `CDN-Cache-Control` (RFC 9213).
    pub cdn_cache_control: Option<At<WrittenField>>,
    /// `Surrogate-Control`.
    pub surrogate_control: Option<At<WrittenField>>,
    /// The field in which a cache in front of this one is told the tags: `Surrogate-Key`, `Cache-Tag`, `Edge-Cache-Tag` or
    /// `xkey`.
    pub tags: Option<At<WrittenField>>,
}

/// What is said in a field.
#[derive(Clone, Debug)]
pub enum WrittenField {
    Text(String),
    /// `false`: the field is left out.
    Flag(bool),
}

/// Servers of an existing API.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Origin")]
pub struct WrittenOrigin {
    /// `host:port` of each server, or its URL, as in `https://api.example.com`; asked in turn, a dead one is skipped.
    pub servers: Option<At<Vec<At<String>>>>,
    /// How TLS is spoken to them, if it is: with this, or where they are written as `https://HOST`.
    pub tls: Option<At<WrittenOriginTls>>,
}

/// How TLS is spoken to the servers of an origin. Files are named from the folder of the file that names them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OriginTls")]
pub struct WrittenOriginTls {
    /// Whom their certificate has to be for; the host of each server unless given.
    pub server_name: Option<At<String>>,
    /// PEM file with the authorities that vouch for them; those that this machine trusts unless given.
    pub ca: Option<At<PathBuf>>,
    /// PEM file with the certificate that they are shown if they ask for one, and its chain.
    pub cert: Option<At<PathBuf>>,
    /// PEM file with its private key.
    pub key: Option<At<PathBuf>>,
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

impl<'de> Deserialize<'de> for WrittenCompress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WrittenCompress, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = WrittenCompress;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a list of codings, as in [\"zstd\", \"br\", \"gzip\"], or a table of codings, min and types",
                )
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<WrittenCompress, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(WrittenCompress::Codings)
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<WrittenCompress, M::Error> {
                CompressTable::deserialize(MapAccessDeserializer::new(map)).map(WrittenCompress::Table)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for WrittenCompress {
    fn schema_name() -> Cow<'static, str> {
        "Compress".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (list, table) = (generator.subschema_for::<Vec<String>>(), generator.subschema_for::<CompressTable>());
        json_schema!({ "anyOf": [list, table] })
    }
}

impl<'de> Deserialize<'de> for WrittenField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WrittenField, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = WrittenField;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the text of the field, or false to leave the field out")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<WrittenField, E> {
                Ok(WrittenField::Text(text.to_owned()))
            }
            fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<WrittenField, E> {
                Ok(WrittenField::Flag(flag))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for WrittenField {
    fn schema_name() -> Cow<'static, str> {
        "Field".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "const": false }] })
    }
}
