//! `millpond proxy`: a plain caching reverse proxy in front of one server. Does what HTTP says, and nothing beyond.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_proxy::cache::keep_swept;
use millpond_proxy::config::ProxyConfig;
use millpond_proxy::counters::Counters;
use millpond_proxy::front::Listeners;
use millpond_proxy::gateway::{Gateway, Snapshot};
use millpond_proxy::live::Live;
use millpond_proxy::observe::Observer;
use millpond_proxy::rules::{Forwarding, Network, NoNetwork, Paths, Rule, RuleSet};
use millpond_proxy::semantics::policy::Policy;
use millpond_proxy::tls::{Authorities, Certificate, Certificates, OriginTls, Part, Tls};
use millpond_proxy::upstreams::{Endpoint, Location, NoLocation, ServerList, Upstream, Upstreams};
use millpond_shared::config::Size;
use prometheus::Registry;

use crate::Failure;
use crate::admin::Admin;
use crate::logging;
use crate::process::{self, Ready, Signals, Stop};
use crate::token::Token;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where clients connect.
    #[arg(long, value_name = "ADDR", required_unless_present = "tls_listen")]
    listen: Option<SocketAddr>,
    /// Where clients speak TLS.
    #[arg(long, value_name = "ADDR", requires = "cert")]
    tls_listen: Option<SocketAddr>,
    /// PEM file of a certificate and its chain; several are chosen from by server name, the first is for all other
    /// names. SIGHUP reads them again.
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    cert: Vec<PathBuf>,
    /// PEM file of the private key; as many and in the same order as --cert.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Vec<PathBuf>,
    /// The server in front of which it stands, as HOST:PORT, or as https://HOST where it speaks TLS.
    #[arg(long, value_name = "ADDR")]
    to: String,
    /// PEM file with the authorities that vouch for that server; those that this machine trusts unless given.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A network of balancers in front of it, whose connections begin with a PROXY head (version 1 or 2), as in
    /// 10.0.0.0/8.
    #[arg(long, value_name = "NET", value_parser = network)]
    proxy_protocol: Vec<Network>,
    /// Where /metrics, /healthz, /readyz and /purge are.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Where the token is that requests to --admin have to bring: env:NAME or file:PATH.
    #[arg(long, value_name = "PLACE", requires = "admin")]
    admin_token: Option<String>,
    /// What the cache may take, as in 256MiB.
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    memory: Size,
    /// Worker threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Serve stale responses, for up to a week, while the server can't be reached, unless they forbid it.
    #[arg(long)]
    stale_when_disconnected: bool,
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
    let mut config = ProxyConfig::on(arguments.listen.into_iter().collect());
    config.tls_listen = arguments.tls_listen.into_iter().collect();
    config.proxy_protocol = arguments.proxy_protocol.clone();
    config.memory_bytes = arguments.memory.0;
    config.threads = arguments.threads.map_or(config.threads, usize::from);
    if config.memory_bytes < MEMORY_MIN {
        return Err(Failure::Refused(format!(
            "--memory {} is too little for a cache; fix: give at least 1MiB",
            arguments.memory
        )));
    }
    let read = |place: &String| {
        let unread = |problem| Failure::Refused(format!("--admin-token: {problem}; fix: {}", Token::FIX));
        Token::read(place, Path::new("")).map_err(unread)
    };
    let token = arguments.admin_token.as_ref().map(read).transpose()?;
    if let Some(admin) = arguments.admin.filter(|admin| !admin.ip().is_loopback() && token.is_none()) {
        let problem = "is no loopback address, and there is no token";
        let fix = "listen on 127.0.0.1 or [::1], or give --admin-token";
        return Err(Failure::Refused(format!("--admin {admin} {problem}; fix: {fix}")));
    }
    let to = server(&arguments.to, arguments.ca.as_deref())?;
    let certificates = certificates(arguments)?;
    logging::start(arguments.log_format, "info");
    let tls = process::tls(certificates)?;

    let listeners = Listeners::bind(&config.listen, &config.tls_listen).map_err(Failure::from_display)?;
    let addresses: Vec<(&str, SocketAddr)> = listeners.addresses().collect();
    let admin = arguments.admin.map(process::bind).transpose()?;

    let (runtime, stop, registry) = (process::runtime()?, Stop::new(), Registry::new());
    let store = Arc::new(config.store());
    runtime.spawn(keep_swept(Arc::clone(&store)));
    let live = Arc::new(Live::new(Arc::clone(&store), []));
    let observer = Observer::new(&registry, Arc::clone(&store), arguments.access_log).map_err(Failure::from_display)?;
    let observer = Arc::new(observer);
    let counters = Arc::new(Counters::new(&registry).map_err(Failure::from_display)?);
    let policy = match arguments.stale_when_disconnected {
        true => Policy::plain_http_when_disconnected(),
        false => Policy::plain_http(),
    };
    let gateway = Gateway::new(snapshot(to, policy), store, live, counters);
    let (of_front, watch) = (Arc::clone(&observer), stop.watch_front());
    let front = process::spawn_front(Arc::clone(&gateway), of_front, listeners, tls.clone(), &config, watch)?;
    let signals = Signals::listen(&runtime)?;
    let mut servers = Vec::new();
    if let Some(listener) = admin {
        let address = listener.local_addr().map_err(Failure::from_display)?;
        let (proxy, ready) = (Some((gateway, Arc::clone(&observer))), Arc::clone(&stop.ready));
        let admin = Admin { registry, proxy, queues: None, ready, token };
        servers.push(process::spawn_server(&runtime, listener, Arc::new(admin), stop.watch())?);
        Ready { scheme: "http", address, role: "admin" }.say();
    }
    stop.ready.store(true, Ordering::Release);
    addresses.into_iter().for_each(|(scheme, address)| Ready { scheme, address, role: "proxy" }.say());

    let told =
        runtime.block_on(signals.until_told(|| reload(arguments, tls.as_ref(), &observer), std::future::pending()));
    stop.front();
    front.join().map_err(|_| Failure::Failed("the front panicked".to_owned()))?;
    observer.close();
    stop.rest();
    runtime.block_on(async {
        for server in servers {
            let _ = server.await;
        }
    });
    told
}

fn network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|none: NoNetwork| format!("it is no network; fix: {}", none.fix))
}

/// The certificates that the command line names.
fn certificates(arguments: &Arguments) -> Result<Option<Certificates>, Failure> {
    if arguments.cert.len() != arguments.key.len() {
        let problem = format!("--cert is given {} times and --key {} times", arguments.cert.len(), arguments.key.len());
        return Err(Failure::Refused(format!("{problem}; fix: give each certificate its key, in the same order")));
    }
    let read = |(cert, key): (&PathBuf, &PathBuf)| {
        Certificate::read(cert, key).map_err(|unusable| {
            let option = if unusable.part == Part::Cert { "--cert" } else { "--key" };
            Failure::Refused(format!("{option}: {unusable}"))
        })
    };
    let all: Vec<Certificate> = arguments.cert.iter().zip(&arguments.key).map(read).collect::<Result<_, _>>()?;
    Ok(Certificates::new(all))
}

/// Reads the certificates again; they are swapped whole, or the old ones keep serving.
fn reload(arguments: &Arguments, tls: Option<&Tls>, observer: &Observer) {
    let Some(tls) = tls else {
        tracing::warn!("nothing to reload: no certificate was given");
        return;
    };
    let read = certificates(arguments);
    observer.reloaded(read.is_ok());
    match read {
        Ok(certificates) => {
            certificates.into_iter().for_each(|certificates| process::swap_certificates(tls, certificates));
            tracing::info!("certificates reloaded");
        }
        Err(refused) => tracing::error!("reload refused, the old certificates keep serving:\n{refused}"),
    }
}

/// The server that `--to` names, and how it is spoken to.
fn server(to: &str, ca: Option<&Path>) -> Result<Endpoint, Failure> {
    let wrong = |problem: &str, fix: &str| Failure::Refused(format!("--to {to}: {problem}; fix: {fix}"));
    let location: Location = to.parse().map_err(|none: NoLocation| wrong(none.problem, none.fix))?;
    let fix = "give HOST:PORT of a server that can be found, as in 127.0.0.1:9000";
    let found = location.look_up().map_err(|error| wrong(&error.to_string(), fix))?;
    let address = found.ok_or_else(|| wrong("it has no address", fix))?;
    if location.tls != Some(true) {
        return match ca {
            None => Ok(address.into()),
            Some(_) => Err(Failure::Refused(format!("--ca has no effect on {to}; fix: give --to https://HOST"))),
        };
    }
    let name = location.server_name().ok_or_else(|| wrong("no certificate can be for this host", fix))?;
    let authorities = match ca {
        Some(ca) => Authorities::read(ca).map_err(|none| Failure::Refused(format!("--ca: {none}")))?,
        None => Authorities::of_this_machine().map_err(|none| wrong(&none.problem, none.fix))?,
    };
    let tls = OriginTls::new(authorities, None).map_err(Failure::from_display)?;
    Ok(Endpoint::secured(address, &tls, name))
}

/// One rule: everything, as HTTP says.
fn snapshot(to: Endpoint, policy: Policy) -> Snapshot {
    const ORIGIN: &str = "to";
    let rule = Rule { policy, retry: false, ..Rule::everything("all", ORIGIN) };
    let origins = BTreeMap::from([(ORIGIN.to_owned(), Upstream::Servers(ServerList::new([to])))]);
    Snapshot {
        rules: RuleSet {
            rules: vec![Arc::new(rule)],
            paths: Paths::AsTheyCame,
            forwarding: Forwarding::Untouched,
            body_max: None,
        },
        upstreams: Upstreams::new(origins),
    }
}
