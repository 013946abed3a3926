//! The configuration file: read, judged, then built, before anything is opened.
//!
//! `written` mirrors the TOML of all sections; `judge` puts the crates' judgements together and checks what only the
//! whole can tell: roles that miss their counterpart, sections that nothing uses; `sockets` who could be reached where,
//! `origins` where the servers of an API are.

mod judge;
mod origins;
mod sockets;
mod written;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_origin::api::ingest;
use millpond_origin::config::databases::DatabaseConfig;
use millpond_origin::config::roles::{DispatcherConfig, IngestConfig, QueueConfig};
use millpond_origin::config::shards::{ShardMapConfig, ShardsConfig};
use millpond_proxy::config::ProxyConfig;
use millpond_proxy::rules::RuleSet;
use millpond_proxy::tls::Certificates;
use millpond_proxy::upstreams::Endpoint;
use millpond_shared::config::{At, Complaints, Source};
use millpond_shared::projection::Projection;

pub use written::Written;

use crate::Failure;
use crate::logging;
use crate::token::Token;

/// What is to run.
pub struct Config {
    pub log: Log,
    pub admin: Option<Admin>,
    pub proxy: Option<Proxy>,
    pub sources: Vec<ingest::Source>,
    pub ingest: Option<IngestConfig>,
    pub queue: Option<QueueConfig>,
    pub dispatcher: Option<DispatcherConfig>,
    pub shard_map: ShardMapConfig,
    pub shards: Option<ShardsConfig>,
    pub databases: Vec<DatabaseConfig>,
    pub projections: Arc<Vec<Projection>>,
}

/// The admin socket.
pub struct Admin {
    pub listen: SocketAddr,
    /// What requests have to bring; without it, everybody who reaches the socket is let in.
    pub token: Option<Token>,
}

pub struct Log {
    pub format: logging::Format,
    pub level: String,
    /// Whether every request gets a line.
    pub access: bool,
}

pub struct Proxy {
    pub config: ProxyConfig,
    /// What clients that speak TLS are shown.
    pub certificates: Option<Certificates>,
    pub rules: RuleSet,
    /// Servers of each `[origin.NAME]`.
    pub origins: BTreeMap<String, Vec<Endpoint>>,
}

impl Config {
    /// Reads a file and those it includes. The error lists every mistake, one a line.
    pub fn read(path: &Path) -> Result<Config, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::Refused(format!("{}: {error}; fix: name a file that can be read", path.display()))
        })?;
        Config::parse(path, &text)
    }

    /// The same for text that is already here; includes are looked for beside `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Config, Failure> {
        let (mut source, mut complaints) = (Source::default(), Complaints::default());
        let mut written: Written = source.read(&path.display().to_string(), text, &mut complaints);
        let mut all_there = true;
        for include in written.include.take().unwrap_or_default() {
            let file = beside(path, &include.value);
            match std::fs::read_to_string(&file) {
                Ok(text) => {
                    let included: Written = source.read(&file.display().to_string(), &text, &mut complaints);
                    written.merge(included, &mut complaints);
                }
                Err(error) => {
                    all_there = false;
                    let problem = format!("{}: {error}", file.display());
                    complaints.add(include.span.clone(), "include", problem, "name a file beside this one");
                }
            }
        }
        // Where a file could not even be read, half a picture would bring forth complaints that are none.
        let is_whole = all_there && source.is_whole();
        let config = is_whole.then(|| judge::judge(&written, &source, &mut complaints)).flatten();
        match config {
            Some(config) if complaints.is_empty() => Ok(config),
            _ => Err(Failure::Refused(complaints.in_words(&source).trim_end().to_owned())),
        }
    }
}

fn beside(path: &Path, include: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(include)
}

/// First byte of a section: the place of what is missing in it.
fn start<T>(at: &At<T>) -> std::ops::Range<usize> {
    at.span.start..at.span.start + 1
}
