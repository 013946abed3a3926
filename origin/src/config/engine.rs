//! `queue.engine`, and what each engine needs to know.

use std::path::PathBuf;

use millpond_shared::config::At;
use schemars::JsonSchema;
use serde::Deserialize;

use super::roles::WrittenQueue;
use super::section::Section;
use crate::queue::nats::{NatsSettings, Servers};

/// What keeps the queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WrittenEngine {
    /// Files of this process.
    #[default]
    Embedded,
    /// NATS JetStream, which any number of processes can use at once.
    Nats,
}

/// The engine as it is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    Embedded { dir: PathBuf },
    Nats(NatsSettings),
}

const POND_DEFAULT: &str = "millpond";
/// Longest name of a pond, in bytes: it is part of every subject.
const POND_MAX: usize = 32;
/// JetStream keeps no more copies, and needs a majority.
const REPLICAS: [usize; 3] = [1, 3, 5];

/// `event_queues` is judged already.
pub(super) fn judge(section: &mut Section<'_>, written: &WrittenQueue, event_queues: u16) -> Option<Engine> {
    match written.engine.as_ref().map(|at| at.value).unwrap_or_default() {
        WrittenEngine::Embedded => embedded(section, written),
        WrittenEngine::Nats => nats(section, written, event_queues),
    }
}

fn embedded(section: &mut Section<'_>, written: &WrittenQueue) -> Option<Engine> {
    fn no_effect<T>(section: &mut Section<'_>, field: &str, at: Option<&At<T>>) {
        if let Some(at) = at {
            section.wrong(field, at, "has no effect without engine = \"nats\"", "remove it, or add that");
        }
    }
    no_effect(section, "servers", written.servers.as_ref());
    no_effect(section, "pond", written.pond.as_ref());
    no_effect(section, "replicas", written.replicas.as_ref());
    no_effect(section, "credentials", written.credentials.as_ref());
    no_effect(section, "ca", written.ca.as_ref());
    if written.dir.is_none() {
        section.missing("dir", "say where the files go, as in dir = \"data/queue\"");
    }
    Some(Engine::Embedded { dir: written.dir.as_ref()?.value.clone() })
}

fn nats(section: &mut Section<'_>, written: &WrittenQueue, event_queues: u16) -> Option<Engine> {
    if let Some(dir) = &written.dir {
        section.wrong("dir", dir, "has no effect with engine = \"nats\": the servers have the files", "remove it");
    }
    let servers = written.servers.as_ref().map(|at| at.value.as_slice()).unwrap_or_default();
    if servers.is_empty() {
        section.missing("servers", "list the NATS servers, as in servers = [\"nats://127.0.0.1:4222\"]");
    }
    for server in servers {
        let is_url = ["nats://", "tls://"].iter().any(|scheme| server.value.starts_with(scheme));
        if !is_url || server.value.parse::<async_nats::ServerAddr>().is_err() {
            let fix =
                "write a scheme, a host and a port, as in \"nats://127.0.0.1:4222\" or \"tls://nats.internal:4222\"";
            section.wrong("servers", server, format!("`{}` is no address of a NATS server", server.value), fix);
        }
    }
    let pond = written.pond.as_ref().map_or(POND_DEFAULT, |at| at.value.as_str());
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if let Some(at) = written.pond.as_ref().filter(|_| pond.is_empty() || pond.len() > POND_MAX || !is_name(pond)) {
        let fix = format!("use 1 to {POND_MAX} letters, digits, `-` and `_`");
        section.wrong("pond", at, format!("`{pond}` is no name of a pond"), fix);
    }
    let replicas = written.replicas.as_ref().map_or(1, |at| at.value);
    if let Some(at) = written.replicas.as_ref().filter(|_| !REPLICAS.contains(&replicas)) {
        section.wrong("replicas", at, format!("{replicas} is out of range"), "use 1, 3 or 5");
    }
    let path = |at: &At<PathBuf>| at.value.clone();
    Some(Engine::Nats(NatsSettings {
        servers: Servers {
            urls: servers.iter().map(|server| server.value.clone()).collect(),
            credentials: written.credentials.as_ref().map(path),
            ca: written.ca.as_ref().map(path),
        },
        pond: pond.to_owned(),
        replicas,
        event_queues,
    }))
}
