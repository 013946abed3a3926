//! `[shard_map]`, which all roles read, and `[shards]`, the shard role.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millpond_shared::config::{At, Complaints, Seconds, Size};
use millpond_shared::http1::Authority;
use millpond_shared::shard_map::{FirstMap, SHARDS_MAX};
use millpond_shared::version::ShardId;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::shard::ShardSettings;

/// Who owns which documents. Must be the same for all roles.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ShardMap")]
pub struct WrittenShardMap {
    /// Number of shards: 1 to 1024; 4 unless given. At first they own equal shares of the keys; shards that are added later
    /// own none before `millpond shards move` gives them some. Never less than before.
    pub count: Option<At<u16>>,
    /// Version that the map begins with: 1 unless given. Versions of documents start with it.
    pub version: Option<At<u32>>,
    /// Where shards are that run in other processes: `"host:port"` → shard numbers. A shard that is at several has
    /// spares: the one further ahead is asked.
    pub address: Option<BTreeMap<String, At<Vec<At<ShardId>>>>>,
}

/// The shard role: pulls shard queues, keeps documents, answers readers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Shards")]
pub struct WrittenShards {
    /// Numbers of the shards that this process runs; all unless given.
    pub serve: Option<At<Vec<At<ShardId>>>>,
    /// Directory of the shards' files, `shard-N.redb`.
    pub dir: Option<At<PathBuf>>,
    /// Address that proxies in other processes reach these shards at: `"127.0.0.1:7101"`. None unless given.
    pub listen: Option<At<String>>,
    /// `"host:port"` of the queue role, if it is another process.
    pub queue: Option<At<String>>,
    /// Name of this consumer at the shard queues; `primary` unless given. A spare of the same shard needs another.
    pub consumer: Option<At<String>>,
    /// `"host:port"` of another process that runs the same shards: one of them whose file is missing starts from a copy.
    pub copy_from: Option<At<String>>,
    /// What documents in memory may take of it, for all shards of this process together; `512MiB` unless given. The
    /// others are read from the file when they are needed.
    pub memory: Option<At<Size>>,
    /// How long changes wait in memory before they are written; `2s` unless given.
    pub flush_every: Option<At<Seconds>>,
    /// Changed documents of a shard that take more than this are written before that; `32MiB` unless given, or a quarter
    /// of the shard's share of `memory` if that is less.
    pub flush_bytes: Option<At<Size>>,
    /// How much of them one commit writes; `8MiB` unless given.
    pub flush_slice: Option<At<Size>>,
    /// Memory for rendered documents, per shard; `32MiB` unless given.
    pub render_cache: Option<At<Size>>,
}

/// The shard map, and where its shards are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMapConfig {
    /// What the map begins as.
    pub first: FirstMap,
    /// `host:port` of shards in other processes, of each replica.
    pub addresses: BTreeMap<ShardId, Vec<String>>,
}

/// The shard role as it is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardsConfig {
    pub serve: BTreeSet<ShardId>,
    pub dir: PathBuf,
    pub listen: Option<SocketAddr>,
    pub queue: Option<String>,
    pub copy_from: Option<String>,
    pub settings: ShardSettings,
}

/// Most addresses of one shard: each proxy follows all of them.
const REPLICAS_MAX: usize = 4;
const COUNT_DEFAULT: u16 = 4;
const VERSION_DEFAULT: u32 = 1;
/// Shortest and longest time between commits.
const FLUSH_EVERY: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);
/// Least of what has to be dirty for a commit out of turn, and of what one commit writes, in bytes: below it every batch
/// would be one.
const FLUSH_BYTES_MIN: u64 = 64 << 10;
/// Most that one commit writes, in bytes: applying would be held up by more.
const FLUSH_SLICE_MAX: u64 = 64 << 20;
const MEMORY_DEFAULT: u64 = 512 << 20;
/// Least memory for the documents of one shard, in bytes.
const SHARD_MEMORY_MIN: u64 = 4 << 20;
/// Longest name of a consumer, in bytes.
const CONSUMER_MAX: usize = 64;

/// Builds the shard map; the default one where nothing is written.
pub fn judge_map(written: Option<&At<WrittenShardMap>>, complaints: &mut Complaints) -> ShardMapConfig {
    let nothing = WrittenShardMap::default();
    let written = written.map_or(&nothing, |at| &at.value);
    let mut count = COUNT_DEFAULT;
    if let Some(at) = &written.count {
        if (1..=SHARDS_MAX).contains(&at.value) {
            count = at.value;
        } else {
            let problem = format!("{} is out of range", at.value);
            complaints.add(at.span.clone(), "shard_map.count", problem, format!("use 1 to {SHARDS_MAX} shards"));
        }
    }
    let version = written.version.as_ref().map_or(VERSION_DEFAULT, |at| at.value);
    if let Some(at) = &written.version
        && version == 0
    {
        complaints.add(at.span.clone(), "shard_map.version", "0 is no version", "count versions from 1");
    }
    let addresses = addresses(written.address.as_ref(), count, complaints);
    ShardMapConfig { first: FirstMap { version, shards: count }, addresses }
}

fn addresses(
    written: Option<&BTreeMap<String, At<Vec<At<ShardId>>>>>,
    count: u16,
    complaints: &mut Complaints,
) -> BTreeMap<ShardId, Vec<String>> {
    let mut addresses: BTreeMap<ShardId, Vec<String>> = BTreeMap::new();
    for (address, shards) in written.into_iter().flatten() {
        let field = format!("shard_map.address.\"{address}\"");
        if !is_host_and_port(address) {
            let fix = "write a host and a port, as in \"127.0.0.1:7101\"";
            complaints.add(shards.span.clone(), &field, format!("`{address}` is no address"), fix);
        }
        if shards.value.is_empty() {
            complaints.add(
                shards.span.clone(),
                &field,
                "names no shard",
                "list the shards that are there, as in [0, 1]",
            );
        }
        for at in numbers(&shards.value, count, &field, complaints) {
            let replicas = addresses.entry(at.value).or_default();
            if replicas.contains(address) {
                let problem = format!("shard {} stands in it twice", at.value);
                complaints.add(at.span.clone(), &field, problem, "remove one of them");
            } else if replicas.len() >= REPLICAS_MAX {
                let problem = format!("shard {} has {REPLICAS_MAX} addresses already", at.value);
                complaints.add(at.span.clone(), &field, problem, "give it fewer spares");
            } else {
                replicas.push(address.clone());
            }
        }
    }
    addresses
}

/// Builds the shard role of the shards that there are.
pub fn judge_shards(at: &At<WrittenShards>, first: FirstMap, complaints: &mut Complaints) -> Option<ShardsConfig> {
    let written = &at.value;
    let serve = match &written.serve {
        None => (0..first.shards).collect(),
        Some(list) => {
            if list.value.is_empty() {
                let fix = "list the shards to run, as in [0, 1], or leave it out to run all";
                complaints.add(list.span.clone(), "shards.serve", "is empty", fix);
            }
            let mut serve = BTreeSet::new();
            for number in numbers(&list.value, first.shards, "shards.serve", complaints) {
                if !serve.insert(number.value) {
                    let problem = format!("shard {} stands in it twice", number.value);
                    complaints.add(number.span.clone(), "shards.serve", problem, "remove one of them");
                }
            }
            serve
        }
    };
    if written.dir.is_none() {
        let start = at.span.start..at.span.start + 1;
        complaints.add(start, "shards.dir", "is missing", "say where the files go, as in dir = \"data/shards\"");
    }
    let listen = written.listen.as_ref().and_then(|listen| match listen.value.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let problem = format!("`{}` is no address", listen.value);
            let fix = "write an IP address and a port, as in \"127.0.0.1:7101\"";
            complaints.add(listen.span.clone(), "shards.listen", problem, fix);
            None
        }
    });
    for (field, written) in [("shards.queue", &written.queue), ("shards.copy_from", &written.copy_from)] {
        if let Some(at) = written
            && !is_host_and_port(&at.value)
        {
            let fix = "write a host and a port, as in \"127.0.0.1:7100\"";
            complaints.add(at.span.clone(), field, format!("`{}` is no address", at.value), fix);
        }
    }
    let settings = settings(written, serve.len() as u64, complaints);
    Some(ShardsConfig {
        serve,
        dir: written.dir.as_ref()?.value.clone(),
        listen,
        queue: written.queue.as_ref().map(|queue| queue.value.clone()),
        copy_from: written.copy_from.as_ref().map(|from| from.value.clone()),
        settings,
    })
}

fn settings(written: &WrittenShards, shards: u64, complaints: &mut Complaints) -> ShardSettings {
    let mut settings = ShardSettings::default();
    let shards = shards.max(1);
    let memory = written.memory.as_ref().map_or(MEMORY_DEFAULT, |at| at.value.0);
    settings.memory = memory / shards;
    if let Some(at) = &written.memory
        && settings.memory < SHARD_MEMORY_MIN
    {
        let problem = format!("{} is too little for the shards of this process", at.value);
        let fix = format!("use at least \"{}\"", Size(SHARD_MEMORY_MIN * shards));
        complaints.add(at.span.clone(), "shards.memory", problem, fix);
    }
    settings.flush_bytes = settings.flush_bytes.min(settings.memory / 4);
    if let Some(at) = &written.flush_every {
        settings.flush_every = at.value.0;
        if !FLUSH_EVERY.contains(&settings.flush_every) {
            let problem = format!("{:?} is out of range", settings.flush_every);
            complaints.add(at.span.clone(), "shards.flush_every", problem, "use \"10ms\" to \"10m\"");
        }
    }
    if let Some(at) = &written.flush_bytes {
        settings.flush_bytes = at.value.0;
        if at.value.0 < FLUSH_BYTES_MIN {
            let fix = format!("use at least \"{}\"", Size(FLUSH_BYTES_MIN));
            complaints.add(at.span.clone(), "shards.flush_bytes", format!("{} is too little", at.value), fix);
        } else if at.value.0 > settings.memory / 2 {
            let problem = format!("{} is more than half of what `memory` leaves for one shard", at.value);
            let fix = "use less, or more `memory`: what is not written yet can't be dropped";
            complaints.add(at.span.clone(), "shards.flush_bytes", problem, fix);
        }
    }
    if let Some(at) = &written.flush_slice {
        settings.flush_slice = at.value.0;
        if !(FLUSH_BYTES_MIN..=FLUSH_SLICE_MAX).contains(&at.value.0) {
            let fix = format!("use \"{}\" to \"{}\"", Size(FLUSH_BYTES_MIN), Size(FLUSH_SLICE_MAX));
            complaints.add(at.span.clone(), "shards.flush_slice", format!("{} is out of range", at.value), fix);
        }
    }
    if let Some(at) = &written.render_cache {
        settings.render_cache = at.value.0;
    }
    if let Some(at) = &written.consumer {
        settings.consumer = at.value.clone();
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if at.value.is_empty() || at.value.len() > CONSUMER_MAX || !at.value.bytes().all(is_name) {
            let fix = format!("use 1 to {CONSUMER_MAX} letters, digits, - and _");
            complaints.add(at.span.clone(), "shards.consumer", format!("`{}` is no name", at.value), fix);
        }
    }
    settings
}

/// The numbers that are shards of the map; tells the others.
fn numbers<'a>(
    written: &'a [At<ShardId>],
    count: u16,
    field: &str,
    complaints: &mut Complaints,
) -> Vec<&'a At<ShardId>> {
    let (known, unknown): (Vec<_>, Vec<_>) = written.iter().partition(|at| at.value < count);
    for at in unknown {
        let fix = format!("shards are numbered 0 to {}, as shard_map.count says", count - 1);
        complaints.add(at.span.clone(), field, format!("there is no shard {}", at.value), fix);
    }
    known
}

fn is_host_and_port(text: &str) -> bool {
    Authority::parse(text).is_some_and(|authority| authority.port().is_some())
}

#[cfg(test)]
mod tests;
