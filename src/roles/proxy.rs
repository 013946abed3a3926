//! The proxy of a process, and what its rules can name as origins.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use millpond_origin::config::shards::ShardMapConfig;
use millpond_proxy::cache::keep_swept;
use millpond_proxy::config::ProxyConfig;
use millpond_proxy::counters::Counters;
use millpond_proxy::gateway::{Gateway, Snapshot};
use millpond_proxy::live::{Live, Reach, Stream, follow};
use millpond_proxy::observe::Observer;
use millpond_proxy::tls::Tls;
use millpond_proxy::upstreams::{Endpoint, Replicas, ServerList, Shards, Upstream, Upstreams};
use millpond_shared::projection::Projection;
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::ShardId;
use millpond_shared::wire::{Changes, Origin};
use prometheus::Registry;
use tokio::runtime::Runtime;

use super::Roles;
use crate::Failure;
use crate::config::{Config, Proxy};
use crate::process;

/// The proxy's parts that outlive a reload.
pub struct ProxyParts {
    pub gateway: Arc<Gateway>,
    pub observer: Arc<Observer>,
    pub tls: Option<Tls>,
    /// What the shards of this process and the followed streams were started with: a reload can't change it.
    projections: Arc<Vec<Projection>>,
    shard_map: ShardMapConfig,
    elsewhere: Elsewhere,
    settings: ProxyConfig,
}

/// Shards of other processes: where each is, and how far it has come there.
type Elsewhere = BTreeMap<ShardId, Vec<(SocketAddr, Arc<Reach>)>>;

/// Builds the proxy and follows the shards' change streams.
pub fn start_proxy(
    proxy: Proxy,
    config: &Config,
    roles: &Roles,
    runtime: &Runtime,
    registry: &Registry,
) -> Result<ProxyParts, Failure> {
    let settings = proxy.config.clone();
    let store = Arc::new(settings.store());
    runtime.spawn(keep_swept(Arc::clone(&store)));
    let elsewhere = elsewhere(config, roles)?;
    let streams = streams(&elsewhere, roles);
    let live = Live::new(Arc::clone(&store), streams.iter().map(|(shard, _)| *shard));
    let live = Arc::new(live.with_map(ShardMap::even(config.shard_map.first.version, config.shard_map.first.shards)));
    let observer = Observer::new(registry, Arc::clone(&store), config.log.access).map_err(Failure::from_display)?;
    let upstreams = Upstreams::new(origins(&proxy.origins, config, &elsewhere, roles, &live));
    let counters = Arc::new(Counters::new(registry).map_err(Failure::from_display)?);
    let snapshot = Snapshot { rules: proxy.rules, upstreams };
    let gateway = Gateway::new(snapshot, store, Arc::clone(&live), counters);
    for (shard, stream) in streams {
        runtime.spawn(follow(Arc::clone(&live), shard, stream));
    }
    Ok(ProxyParts {
        gateway,
        observer: Arc::new(observer),
        tls: process::tls(proxy.certificates)?,
        projections: Arc::clone(&config.projections),
        shard_map: config.shard_map.clone(),
        elsewhere,
        settings,
    })
}

/// New rules, origins and certificates in place of the old ones, whole.
pub fn swap_rules(parts: &ProxyParts, mut proxy: Proxy, config: &Config, roles: &Roles) -> Result<(), Failure> {
    if parts.projections != config.projections || parts.shard_map != config.shard_map {
        let problem = "[[projection]] or [shard_map] has changed, which a reload can't bring about";
        return Err(Failure::Refused(format!("{problem}; fix: restart the processes that use it")));
    }
    if parts.settings != proxy.config {
        let problem = "[proxy] has changed, which a reload can't bring about";
        return Err(Failure::Refused(format!("{problem}; fix: restart this process")));
    }
    let origins = origins(&proxy.origins, config, &parts.elsewhere, roles, parts.gateway.live());
    let before = parts.gateway.snapshot();
    proxy.rules.keep_limits_of(&before.rules);
    let upstreams = Upstreams::with_pool_of(origins, &before.upstreams);
    parts.gateway.swap(Snapshot { rules: proxy.rules, upstreams });
    if let (Some(tls), Some(certificates)) = (&parts.tls, proxy.certificates) {
        process::swap_certificates(tls, certificates);
    }
    Ok(())
}

/// Every origin that rules can name.
fn origins(
    servers: &BTreeMap<String, Vec<Endpoint>>,
    config: &Config,
    elsewhere: &Elsewhere,
    roles: &Roles,
    live: &Arc<Live>,
) -> BTreeMap<String, Upstream> {
    let list = |(name, servers): (&String, &Vec<Endpoint>)| {
        (name.clone(), Upstream::Servers(ServerList::new(servers.iter().cloned())))
    };
    let mut origins: BTreeMap<String, Upstream> = servers.iter().map(list).collect();
    if let Some(ingest) = &roles.ingest {
        origins.insert("ingest".to_owned(), Upstream::Role(Arc::clone(ingest) as Arc<dyn Origin>));
    }
    let here =
        roles.documents.as_ref().map(|documents| (Arc::clone(documents) as Arc<dyn Origin>, roles.serve.clone()));
    let replicas = |(shard, places): (&ShardId, &Vec<(SocketAddr, Arc<Reach>)>)| {
        (*shard, Arc::new(Replicas::new(places.iter().cloned())))
    };
    let there: BTreeMap<ShardId, Arc<Replicas>> = elsewhere.iter().map(replicas).collect();
    if here.is_some() || !there.is_empty() {
        let shards = Shards::new(Arc::clone(&config.projections), Arc::clone(live), here, there);
        origins.insert("shards".to_owned(), Upstream::Shards(shards));
    }
    origins
}

/// Change streams of all shards that a rule can reach, now or after a reload; one of each replica.
fn streams(elsewhere: &Elsewhere, roles: &Roles) -> Vec<(ShardId, Stream)> {
    let there = elsewhere.iter().flat_map(|(shard, places)| {
        let stream = |(address, reach): &(SocketAddr, Arc<Reach>)| Stream::There(*address, Arc::clone(reach));
        places.iter().map(move |place| (*shard, stream(place)))
    });
    let here = roles.documents.iter().flat_map(|documents| {
        let stream = || Stream::Here(Arc::clone(documents) as Arc<dyn Changes>);
        roles.serve.iter().map(move |shard| (*shard, stream()))
    });
    there.chain(here).collect()
}

fn elsewhere(config: &Config, roles: &Roles) -> Result<Elsewhere, Failure> {
    let elsewhere = config.shard_map.addresses.iter().filter(|(shard, _)| !roles.serve.contains(shard));
    let place = |shard: ShardId, address: &String| {
        let found = address.to_socket_addrs().ok().and_then(|mut all| all.next());
        let problem = || Failure::Failed(format!("the address `{address}` of shard {shard} can't be found"));
        Ok((found.ok_or_else(problem)?, Arc::default()))
    };
    elsewhere
        .map(|(shard, addresses)| {
            let places = addresses.iter().map(|address| place(*shard, address));
            Ok((*shard, places.collect::<Result<_, Failure>>()?))
        })
        .collect()
}
