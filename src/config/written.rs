//! The whole file as it is written.

use std::collections::BTreeMap;

use millpond_origin::config::databases::WrittenDatabase;
use millpond_origin::config::roles::{WrittenDispatcher, WrittenIngest, WrittenQueue};
use millpond_origin::config::shards::{WrittenShardMap, WrittenShards};
use millpond_origin::config::source::WrittenSource;
use millpond_proxy::config::WrittenProxy;
use millpond_proxy::rules::{WrittenOrigin, WrittenRule};
use millpond_shared::config::{At, Complaints};
use millpond_shared::projection::WrittenProjection;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::logging;

/// A Millpond configuration: the roles that this process runs, and what they work with.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Millpond")]
pub struct Written {
    /// Files whose sections are read as well, named from this file's folder.
    pub include: Option<Vec<At<String>>>,
    pub log: Option<At<WrittenLog>>,
    pub admin: Option<At<WrittenAdmin>>,
    pub proxy: Option<At<WrittenProxy>>,
    /// Servers of existing APIs, by the names that rules use.
    pub origin: Option<BTreeMap<String, At<WrittenOrigin>>>,
    /// URL rules; the first that matches wins.
    pub rule: Option<Vec<At<WrittenRule>>>,
    /// Declared producers of events.
    pub source: Option<Vec<At<WrittenSource>>>,
    pub ingest: Option<At<WrittenIngest>>,
    pub queue: Option<At<WrittenQueue>>,
    pub dispatcher: Option<At<WrittenDispatcher>>,
    pub shard_map: Option<At<WrittenShardMap>>,
    pub shards: Option<At<WrittenShards>>,
    /// Documents derived from events.
    pub projection: Option<Vec<At<WrittenProjection>>>,
    /// Other databases that shards send documents to, by names of their own.
    pub database: Option<BTreeMap<String, At<WrittenDatabase>>>,
}

/// How to log, to stderr.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Log")]
pub struct WrittenLog {
    /// `text` (the default) or `json`.
    pub format: Option<At<logging::Format>>,
    /// `error`, `warn`, `info` (the default), `debug` or `trace`.
    pub level: Option<At<String>>,
    /// Whether every request gets a line; true unless given.
    pub access: Option<At<bool>>,
}

/// The admin socket: metrics, health, purges.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Admin")]
pub struct WrittenAdmin {
    /// An address and a port: `"127.0.0.1:9180"`. Beyond loopback there has to be a token.
    pub listen: Option<At<String>>,
    /// Where the token is that requests have to bring: `"env:NAME"` or `"file:PATH"`, named from the folder of this file.
    pub token: Option<At<String>>,
}

impl Written {
    /// Takes over the sections of an included file. A section that both have is a mistake.
    pub fn merge(&mut self, other: Written, complaints: &mut Complaints) {
        if let Some(includes) = &other.include {
            for include in includes {
                let problem = "an included file includes another";
                complaints.add(include.span.clone(), "include", problem, "include it from the main file");
            }
        }
        one(&mut self.log, other.log, "log", complaints);
        one(&mut self.admin, other.admin, "admin", complaints);
        one(&mut self.proxy, other.proxy, "proxy", complaints);
        one(&mut self.ingest, other.ingest, "ingest", complaints);
        one(&mut self.queue, other.queue, "queue", complaints);
        one(&mut self.dispatcher, other.dispatcher, "dispatcher", complaints);
        one(&mut self.shard_map, other.shard_map, "shard_map", complaints);
        one(&mut self.shards, other.shards, "shards", complaints);
        named(&mut self.origin, other.origin, "origin", complaints);
        named(&mut self.database, other.database, "database", complaints);
        many(&mut self.rule, other.rule);
        many(&mut self.source, other.source);
        many(&mut self.projection, other.projection);
    }
}

fn one<T>(mine: &mut Option<At<T>>, other: Option<At<T>>, name: &str, complaints: &mut Complaints) {
    if let Some(other) = other {
        if mine.is_some() {
            complaints.add(other.span.clone(), name, "another file has this section as well", "keep one of the two");
        }
        *mine = Some(other);
    }
}

/// Sections with names of their own.
fn named<T>(
    mine: &mut Option<BTreeMap<String, At<T>>>,
    other: Option<BTreeMap<String, At<T>>>,
    kind: &str,
    complaints: &mut Complaints,
) {
    for (name, section) in other.unwrap_or_default() {
        let all = mine.get_or_insert_default();
        if all.contains_key(&name) {
            let problem = format!("another file declares this {kind} as well");
            complaints.add(section.span.clone(), format!("{kind}.{name}"), problem, "declare it once");
        }
        all.insert(name, section);
    }
}

fn many<T>(mine: &mut Option<Vec<T>>, other: Option<Vec<T>>) {
    mine.get_or_insert_default().extend(other.unwrap_or_default());
}
