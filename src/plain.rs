//! `millpond proxy`: a plain caching reverse proxy in front of one server. Does what HTTP says, and nothing beyond.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_proxy::cache::keep_swept;
use millpond_proxy::config::ProxyConfig;
use millpond_proxy::counters::Counters;
use millpond_proxy::front::Listeners;
use millpond_proxy::gateway::{Gateway, Snapshot};
use millpond_proxy::live::Live;
use millpond_proxy::observe::Observer;
use millpond_proxy::rules::{Match, Query, Rule, RuleSet, Tags};
use millpond_proxy::semantics::policy::Policy;
use millpond_proxy::upstreams::{ServerList, Upstream, Upstreams};
use millpond_shared::config::Size;
use prometheus::Registry;

use crate::Failure;
use crate::admin::Admin;
use crate::logging;
use crate::process::{self, Signals, Stop};

#[derive(clap::Args)]
pub struct Arguments {
    /// Where clients connect.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// The server in front of which it stands, as HOST:PORT.
    #[arg(long, value_name = "ADDR")]
    to: String,
    /// Where /metrics, /healthz, /readyz and /purge are.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// What the cache may take, as in 256MiB.
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    memory: Size,
    /// Worker threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Write a line for every request.
    #[arg(long)]
    access_log: bool,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t)]
    log_format: logging::Format,
}

/// Least memory with which a cache makes sense, in bytes.
const MEMORY_MIN: u64 = 1 << 20;

pub fn main(arguments: &Arguments) -> Result<(), Failure> {
    let mut config = ProxyConfig::on(vec![arguments.listen]);
    config.memory_bytes = arguments.memory.0;
    config.threads = arguments.threads.map_or(config.threads, usize::from);
    if config.memory_bytes < MEMORY_MIN {
        return Err(Failure::Refused(format!(
            "--memory {} is too little for a cache; fix: give at least 1MiB",
            arguments.memory
        )));
    }
    if let Some(admin) = arguments.admin.filter(|admin| !admin.ip().is_loopback()) {
        let problem = "is no loopback address, and the admin socket has no password";
        return Err(Failure::Refused(format!("--admin {admin} {problem}; fix: listen on 127.0.0.1 or [::1]")));
    }
    let to = resolve(&arguments.to)?;
    logging::start(arguments.log_format, "info");

    let listeners = Listeners::bind(&config.listen).map_err(Failure::from_display)?;
    let addresses = listeners.addresses();
    let admin = arguments.admin.map(process::bind).transpose()?;

    let (runtime, stop, registry) = (process::runtime()?, Stop::new(), Registry::new());
    let store = Arc::new(config.store());
    runtime.spawn(keep_swept(Arc::clone(&store)));
    let live = Arc::new(Live::new(Arc::clone(&store), []));
    let observer = Observer::new(&registry, Arc::clone(&store), arguments.access_log).map_err(Failure::from_display)?;
    let observer = Arc::new(observer);
    let counters = Arc::new(Counters::new(&registry).map_err(Failure::from_display)?);
    let gateway = Gateway::new(snapshot(to), store, live, counters);
    let observing = Arc::clone(&observer);
    let front =
        process::spawn_front(Arc::clone(&gateway), Arc::clone(&observer), listeners, &config, stop.watch_front())?;
    let signals = Signals::listen(&runtime)?;
    let mut servers = Vec::new();
    if let Some(listener) = admin {
        let address = listener.local_addr().map_err(Failure::from_display)?;
        let admin = Admin { registry, proxy: Some((gateway, observer)), ready: Arc::clone(&stop.ready) };
        servers.push(process::spawn_server(&runtime, listener, Arc::new(admin), stop.watch())?);
        process::say_ready(address, "admin");
    }
    stop.ready.store(true, Ordering::Release);
    addresses.iter().for_each(|address| process::say_ready(*address, "proxy"));

    let told = runtime.block_on(signals.until_told(|| {}, std::future::pending()));
    stop.front();
    front.join().map_err(|_| Failure::Failed("the front panicked".to_owned()))?;
    observing.close();
    stop.rest();
    runtime.block_on(async {
        for server in servers {
            let _ = server.await;
        }
    });
    told
}

/// The first address of `host:port`.
fn resolve(to: &str) -> Result<SocketAddr, Failure> {
    let fix = "give HOST:PORT of a server that can be found, as in 127.0.0.1:9000";
    let found = to.to_socket_addrs().map_err(|error| Failure::Refused(format!("--to {to}: {error}; fix: {fix}")))?;
    let found: Vec<SocketAddr> = found.collect();
    // A name for both families, as localhost is, more often means a server on IPv4 only.
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| Failure::Refused(format!("--to {to}: it has no address; fix: {fix}")))
}

/// One rule: everything, as HTTP says.
fn snapshot(to: SocketAddr) -> Snapshot {
    const ORIGIN: &str = "to";
    let rule = Rule {
        name: "all".to_owned(),
        matches: Match::default(),
        origin: ORIGIN.to_owned(),
        query: Query::AsItCame,
        policy: Policy::plain_http(),
        tags: Tags::default(),
        bypass: Vec::new(),
        retry: false,
    };
    let origins = BTreeMap::from([(ORIGIN.to_owned(), Upstream::Servers(ServerList::new([to])))]);
    Snapshot { rules: RuleSet { rules: vec![Arc::new(rule)] }, upstreams: Upstreams::new(origins) }
}
