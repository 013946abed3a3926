//! `[proxy]`: where the proxy listens, and what it may use.

use std::net::SocketAddr;
use std::time::Duration;

use millpond_shared::config::{At, Complaints, Seconds, Size};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cache::{EvictionPolicy, Store, StoreLayout, StoreLimits};

/// The Shard API proxy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Proxy")]
pub struct WrittenProxy {
    /// Addresses that clients connect to: `["127.0.0.1:8080"]`.
    pub listen: Option<At<Vec<At<String>>>>,
    /// What the cache may take, bookkeeping included; `"256MiB"` unless given.
    pub memory: Option<At<Size>>,
    /// What one response may take of it; a larger one is not stored. A tenth of `memory` unless given.
    pub object_max: Option<At<Size>>,
    /// Which responses go when the memory is used up; `"gdsf"` unless given.
    pub eviction: Option<At<EvictionPolicy>>,
    /// Worker threads; as many as the machine has cores unless given.
    pub threads: Option<At<usize>>,
    /// How long open requests get to finish when the proxy is told to stop; `"10s"` unless given.
    pub drain: Option<At<Seconds>>,
}

/// `[proxy]`, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    pub listen: Vec<SocketAddr>,
    pub memory_bytes: u64,
    /// Bytes that one response may take; a tenth of the memory unless given.
    pub object_max_bytes: Option<u64>,
    pub eviction: EvictionPolicy,
    pub threads: usize,
    pub drain: Duration,
}

/// Least memory with which a cache makes sense.
const MEMORY_MIN: u64 = 1 << 20;
const MEMORY_DEFAULT: u64 = 256 << 20;
const THREADS_MAX: usize = 1024;
const DRAIN_DEFAULT: Duration = Duration::from_secs(10);

impl ProxyConfig {
    /// The defaults, on these addresses.
    pub fn on(listen: Vec<SocketAddr>) -> ProxyConfig {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        ProxyConfig {
            listen,
            memory_bytes: MEMORY_DEFAULT,
            object_max_bytes: None,
            eviction: EvictionPolicy::default(),
            threads,
            drain: DRAIN_DEFAULT,
        }
    }

    /// The empty store that the settings ask for.
    pub fn store(&self) -> Store {
        let mut limits = StoreLimits::with_budget(self.memory_bytes);
        limits.object_max_bytes = self.object_max_bytes.unwrap_or(limits.object_max_bytes);
        Store::build(limits, StoreLayout { eviction: self.eviction, ..StoreLayout::default() })
    }
}

pub fn judge(written: &At<WrittenProxy>, complaints: &mut Complaints) -> Option<ProxyConfig> {
    let mut addresses = Vec::new();
    match &written.value.listen {
        None => {
            let span = written.span.start..written.span.start + 1;
            complaints.add(
                span,
                "proxy.listen",
                "is missing",
                "say where clients connect, as in listen = [\"127.0.0.1:8080\"]",
            );
        }
        Some(listen) => {
            if listen.value.is_empty() {
                complaints.add(listen.span.clone(), "proxy.listen", "is empty", "give at least one address");
            }
            for (index, address) in listen.value.iter().enumerate() {
                match address.value.parse::<SocketAddr>() {
                    Ok(parsed) => {
                        if parsed.port() != 0 && addresses.contains(&parsed) {
                            let problem = format!("{parsed} is listed twice");
                            complaints.add(
                                address.span.clone(),
                                format!("proxy.listen[{index}]"),
                                problem,
                                "list it once",
                            );
                        }
                        addresses.push(parsed);
                    }
                    Err(_) => {
                        let problem = format!("`{}` is no address", address.value);
                        let fix = "write an IP address and a port, as in \"127.0.0.1:8080\" or \"[::]:8080\"";
                        complaints.add(address.span.clone(), format!("proxy.listen[{index}]"), problem, fix);
                    }
                }
            }
        }
    }
    let mut config = ProxyConfig::on(addresses);
    if let Some(memory) = &written.value.memory {
        if memory.value.0 < MEMORY_MIN {
            let problem = format!("{} is too little for a cache", memory.value);
            complaints.add(memory.span.clone(), "proxy.memory", problem, "give it at least 1MiB");
        }
        config.memory_bytes = memory.value.0;
    }
    if let Some(object_max) = &written.value.object_max {
        // A body on its way in has to fit as well.
        let most = Size(StoreLimits::with_budget(config.memory_bytes).reserved_max_bytes);
        if object_max.value > most {
            let problem = format!("{} is more than a quarter of the memory", object_max.value);
            let fix = format!("give at most {most}, or more memory");
            complaints.add(object_max.span.clone(), "proxy.object_max", problem, fix);
        }
        if object_max.value.0 == 0 {
            let problem = "0B lets nothing be stored";
            let fix = "give a size; to store nothing, set a bypass in the rules";
            complaints.add(object_max.span.clone(), "proxy.object_max", problem, fix);
        }
        config.object_max_bytes = Some(object_max.value.0);
    }
    if let Some(eviction) = &written.value.eviction {
        config.eviction = eviction.value;
    }
    if let Some(threads) = &written.value.threads {
        if !(1..=THREADS_MAX).contains(&threads.value) {
            let problem = format!("{} is out of range", threads.value);
            complaints.add(threads.span.clone(), "proxy.threads", problem, format!("use 1 to {THREADS_MAX}"));
        }
        config.threads = threads.value;
    }
    if let Some(drain) = &written.value.drain {
        config.drain = drain.value.0;
    }
    Some(config)
}
