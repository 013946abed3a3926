//! The program as its users meet it, end to end.

mod admin;
mod completing;
mod compression;
mod databases;
mod deception;
mod downstream;
mod drain;
mod edges;
mod examples;
mod existing_api;
mod failing;
pub mod feeds;
mod flights;
mod forwarding;
mod frames;
mod framing;
mod held_back;
mod hostile;
mod hot;
mod http2;
mod ingest;
mod languages;
mod limits;
mod merged;
pub mod model;
mod pages;
mod parts;
mod paths;
mod plain_proxy;
mod proxy_protocol;
mod purges;
mod queues;
mod ranges;
mod reload;
mod removals;
mod replay;
mod semantics;
mod shards;
mod sharing;
mod strict;
mod tls;
mod tls_origins;

use crate::harness::origin::ScriptedOrigin;
use crate::harness::process::Millpond;

/// The configuration of a proxy in front of an API that exists already: one rule, whose settings are `settings`.
fn in_front_of(origins: &[&ScriptedOrigin], settings: &str) -> String {
    let servers: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!(
        r#"
log = {{ format = "json" }}
proxy = {{ listen = ["127.0.0.1:0"] }}
admin = {{ listen = "127.0.0.1:0" }}
origin.api.servers = [{}]

[[rule]]
name = "feeds"
match = "/api/**"
origin = "api"
{settings}
"#,
        servers.join(", ")
    )
}

/// Runs it.
fn proxy_before(origins: &[&ScriptedOrigin], settings: &str) -> Millpond {
    Millpond::run(&in_front_of(origins, settings), &["proxy", "admin"])
}
