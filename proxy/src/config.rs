//! `[proxy]`: where the proxy listens, whose certificates it shows, and what it may use.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use millpond_shared::config::{At, Complaints, Seconds, Size};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cache::{EvictionPolicy, Store, StoreLayout, StoreLimits};
use crate::rules::Network;
use crate::tls::{Certificate, Certificates, Part};

/// The Shard API proxy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Proxy")]
pub struct WrittenProxy {
    /// Addresses that clients connect to: `["127.0.0.1:8080"]`.
    pub listen: Option<At<Vec<At<String>>>>,
    /// Addresses where clients speak TLS: `["127.0.0.1:8443"]`.
    pub tls_listen: Option<At<Vec<At<String>>>>,
    /// What clients that speak TLS are shown, by the server name they ask for. The first is for all other names.
    pub certificate: Option<Vec<At<WrittenCertificate>>>,
    /// What the cache may take, bookkeeping included; `"256MiB"` unless given.
    pub memory: Option<At<Size>>,
    /// What one response may take of it; a larger one is not stored. A tenth of `memory` unless given.
    pub object_max: Option<At<Size>>,
    /// Which responses go when the memory is used up; `"gdsf"` unless given.
    pub eviction: Option<At<EvictionPolicy>>,
    /// Networks of proxies whose word about clients is taken (`X-Forwarded-For` and its like): `["10.0.0.0/8"]`.
    pub trusted: Option<At<Vec<At<String>>>>,
    /// Networks of balancers that pass connections on with a PROXY head, version 1 or 2: `["10.0.0.0/8"]`.
    pub proxy_protocol: Option<At<Vec<At<String>>>>,
    /// Largest body of a request; beyond it 413. `"64MiB"` unless given.
    pub body_max: Option<At<Size>>,
    /// Worker threads; as many as the machine has cores unless given.
    pub threads: Option<At<usize>>,
    /// How long open requests get to finish when the proxy is told to stop; `"10s"` unless given.
    pub drain: Option<At<Seconds>>,
    /// What one client may take; no limit unless given.
    pub limit: Option<At<WrittenProxyLimit>>,
}

/// What one client may take, whatever it asks for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ProxyLimit")]
pub struct WrittenProxyLimit {
    /// Connections at a time; beyond it 429, over TLS a closed connection.
    pub connections: Option<At<u32>>,
}

/// A certificate with its key. Files are named from the folder of the file that names them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Certificate")]
pub struct WrittenCertificate {
    /// PEM file with the certificate, and those that it was signed with, behind it.
    pub cert: Option<At<PathBuf>>,
    /// PEM file with its private key.
    pub key: Option<At<PathBuf>>,
}

/// `[proxy]`, judged; but for the certificates, which a reload can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    pub listen: Vec<SocketAddr>,
    pub tls_listen: Vec<SocketAddr>,
    pub memory_bytes: u64,
    /// Bytes that one response may take; a tenth of the memory unless given.
    pub object_max_bytes: Option<u64>,
    pub eviction: EvictionPolicy,
    /// Networks of peers whose word about clients is taken.
    pub trusted: Vec<Network>,
    /// Networks of peers whose connections begin with a PROXY head, which tells the client's address.
    pub proxy_protocol: Vec<Network>,
    /// Most bytes of a request's body.
    pub body_max_bytes: u64,
    pub threads: usize,
    pub drain: Duration,
    /// Connections that one client may have.
    pub connections_max: Option<u32>,
}

/// Most connections that a limit can let a client have.
const CONNECTIONS_MAX: u32 = 1_000_000;
/// Least memory with which a cache makes sense.
const MEMORY_MIN: u64 = 1 << 20;
const MEMORY_DEFAULT: u64 = 256 << 20;
const BODY_MAX_DEFAULT: u64 = 64 << 20;
const THREADS_MAX: usize = 1024;
const DRAIN_DEFAULT: Duration = Duration::from_secs(10);

impl ProxyConfig {
    /// The defaults, on these addresses.
    pub fn on(listen: Vec<SocketAddr>) -> ProxyConfig {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        ProxyConfig {
            listen,
            tls_listen: Vec::new(),
            memory_bytes: MEMORY_DEFAULT,
            object_max_bytes: None,
            eviction: EvictionPolicy::default(),
            trusted: Vec::new(),
            proxy_protocol: Vec::new(),
            body_max_bytes: BODY_MAX_DEFAULT,
            threads,
            drain: DRAIN_DEFAULT,
            connections_max: None,
        }
    }

    /// The empty store that the settings ask for.
    pub fn store(&self) -> Store {
        let mut limits = StoreLimits::with_budget(self.memory_bytes);
        limits.object_max_bytes = self.object_max_bytes.unwrap_or(limits.object_max_bytes);
        Store::build(limits, StoreLayout { eviction: self.eviction, ..StoreLayout::default() })
    }
}

/// `folder_of`: the folder of the file that these bytes of the configuration stand in.
pub fn judge(
    written: &At<WrittenProxy>,
    folder_of: impl Fn(&Range<usize>) -> PathBuf,
    complaints: &mut Complaints,
) -> (ProxyConfig, Option<Certificates>) {
    let WrittenProxy { listen, tls_listen, certificate, .. } = &written.value;
    let start = |span: &Range<usize>| span.start..span.start + 1;
    if listen.is_none() && tls_listen.is_none() {
        let fix = "say where clients connect, as in listen = [\"127.0.0.1:8080\"]";
        complaints.add(start(&written.span), "proxy.listen", "is missing", fix);
    }
    let mut config = ProxyConfig::on(addresses("proxy.listen", listen.as_ref(), complaints));
    config.tls_listen = addresses("proxy.tls_listen", tls_listen.as_ref(), complaints);
    let certificates = certificate.as_deref().unwrap_or_default();
    match (tls_listen, certificates.first()) {
        (Some(tls_listen), None) => {
            let fix = "add [[proxy.certificate]] with cert and key, or use listen";
            complaints.add(tls_listen.span.clone(), "proxy.tls_listen", "there is no certificate to show", fix);
        }
        (None, Some(first)) => {
            let fix = "add tls_listen = [\"127.0.0.1:8443\"], or remove it";
            complaints.add(start(&first.span), "proxy.certificate", "has no effect without tls_listen", fix);
        }
        _ => {}
    }
    let certificates = certificates
        .iter()
        .enumerate()
        .filter_map(|(index, at)| self::certificate(index, at, &folder_of(&at.span), complaints))
        .collect();
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
    let nobody = "nobody is trusted unless named";
    config.trusted = networks("trusted", written.value.trusted.as_ref(), nobody, complaints);
    let nobody = "no connection begins with a PROXY head unless its network is named";
    config.proxy_protocol = networks("proxy_protocol", written.value.proxy_protocol.as_ref(), nobody, complaints);
    if let Some(body_max) = &written.value.body_max {
        if body_max.value.0 == 0 {
            let fix = "give a size; to take no bodies, match only GET and HEAD in the rules";
            complaints.add(body_max.span.clone(), "proxy.body_max", "0B lets no body through", fix);
        }
        config.body_max_bytes = body_max.value.0;
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
    if let Some(limit) = &written.value.limit {
        config.connections_max = connections_max(limit, complaints);
    }
    (config, Certificates::new(certificates))
}

fn connections_max(limit: &At<WrittenProxyLimit>, complaints: &mut Complaints) -> Option<u32> {
    let Some(connections) = &limit.value.connections else {
        let fix = "give connections, as in { connections = 100 }, or remove it";
        complaints.add(limit.span.clone(), "proxy.limit", "is empty", fix);
        return None;
    };
    if !(1..=CONNECTIONS_MAX).contains(&connections.value) {
        let problem = format!("{} is out of range", connections.value);
        let fix = format!("use 1 to {CONNECTIONS_MAX}");
        complaints.add(connections.span.clone(), "proxy.limit.connections", problem, fix);
    }
    Some(connections.value)
}

fn networks(
    name: &str,
    written: Option<&At<Vec<At<String>>>>,
    if_none: &str,
    complaints: &mut Complaints,
) -> Vec<Network> {
    let Some(written) = written else { return Vec::new() };
    if written.value.is_empty() {
        let fix = format!("name networks, as in [\"10.0.0.0/8\"], or remove it: {if_none}");
        complaints.add(written.span.clone(), format!("proxy.{name}"), "is empty", fix);
    }
    let mut networks: Vec<Network> = Vec::new();
    for (index, network) in written.value.iter().enumerate() {
        let field = format!("proxy.{name}[{index}]");
        match network.value.parse::<Network>() {
            Ok(parsed) if networks.contains(&parsed) => {
                let problem = format!("`{}` is listed twice", network.value);
                complaints.add(network.span.clone(), field, problem, "list it once");
            }
            Ok(parsed) => networks.push(parsed),
            Err(none) => {
                let problem = format!("`{}` is no network", network.value);
                complaints.add(network.span.clone(), field, problem, none.fix);
            }
        }
    }
    networks
}

fn addresses(field: &str, listen: Option<&At<Vec<At<String>>>>, complaints: &mut Complaints) -> Vec<SocketAddr> {
    let Some(listen) = listen else { return Vec::new() };
    if listen.value.is_empty() {
        complaints.add(listen.span.clone(), field, "is empty", "give at least one address");
    }
    let mut addresses = Vec::new();
    for (index, address) in listen.value.iter().enumerate() {
        let field = format!("{field}[{index}]");
        match address.value.parse::<SocketAddr>() {
            Ok(parsed) => {
                if parsed.port() != 0 && addresses.contains(&parsed) {
                    let problem = format!("{parsed} is listed twice");
                    complaints.add(address.span.clone(), field, problem, "list it once");
                }
                addresses.push(parsed);
            }
            Err(_) => {
                let problem = format!("`{}` is no address", address.value);
                let fix = "write an IP address and a port, as in \"127.0.0.1:8080\" or \"[::]:8080\"";
                complaints.add(address.span.clone(), field, problem, fix);
            }
        }
    }
    addresses
}

fn certificate(
    index: usize,
    at: &At<WrittenCertificate>,
    folder: &std::path::Path,
    complaints: &mut Complaints,
) -> Option<Certificate> {
    let field = |name: &str| format!("proxy.certificate[{index}].{name}");
    let start = at.span.start..at.span.start + 1;
    let WrittenCertificate { cert, key } = &at.value;
    if cert.is_none() {
        let fix = "name the PEM file of the certificate, as in cert = \"example.pem\"";
        complaints.add(start.clone(), field("cert"), "is missing", fix);
    }
    if key.is_none() {
        let fix = "name the PEM file of the private key, as in key = \"example.key\"";
        complaints.add(start, field("key"), "is missing", fix);
    }
    let (cert, key) = (cert.as_ref()?, key.as_ref()?);
    match Certificate::read(&folder.join(&cert.value), &folder.join(&key.value)) {
        Ok(certificate) => {
            if index > 0 && !certificate.has_names() {
                let problem = "names no server, so it would never be chosen";
                let fix = "use a certificate with DNS names, or put it first, for clients that name no server";
                complaints.add(cert.span.clone(), field("cert"), problem, fix);
            }
            Some(certificate)
        }
        Err(unusable) => {
            let (span, name) = match unusable.part {
                Part::Cert => (cert.span.clone(), "cert"),
                Part::Key => (key.span.clone(), "key"),
            };
            complaints.add(span, field(name), unusable.problem, unusable.fix);
            None
        }
    }
}
