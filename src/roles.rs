//! Starts the roles that a configuration declares, and joins them: roles of one process call each other, roles of
//! different processes speak over the wire; the code of the roles does not know which.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;

use millpond_origin::api::documents::Documents;
use millpond_origin::api::ingest::Ingest;
use millpond_origin::api::queues::QueuesApi;
use millpond_origin::config::roles::{DispatcherConfig, QueueConfig};
use millpond_origin::config::shards::ShardsConfig;
use millpond_origin::dispatch::{Dispatcher, Routing};
use millpond_origin::http::Handler;
use millpond_origin::queue::{DispatchQueues, EventQueues, Files, Options, QueueClient, Queues, ShardQueues};
use millpond_origin::shard::{Opening, Shard, ShardMetrics, file_path};
use millpond_origin::store::Place;
use millpond_proxy::cache::{Store, StoreLimits};
use millpond_proxy::counters::Counters;
use millpond_proxy::front::Listeners;
use millpond_proxy::gateway::{Gateway, Snapshot};
use millpond_proxy::live::{Live, Stream, follow};
use millpond_proxy::observe::Observer;
use millpond_proxy::rules::RuleSet;
use millpond_proxy::upstreams::{ServerList, Shards, Upstream, Upstreams};
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::ShardId;
use millpond_shared::wire::{Changes, Origin};
use prometheus::Registry;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Failure;
use crate::config::{Config, Proxy};
use crate::process::{self, Stop};

/// Every socket of the process, bound before anything else happens.
pub struct Sockets {
    pub proxy: Option<Listeners>,
    pub admin: Option<TcpListener>,
    ingest: Option<TcpListener>,
    queue: Option<TcpListener>,
    shards: Option<TcpListener>,
}

impl Sockets {
    pub fn bind(config: &Config) -> Result<Sockets, Failure> {
        let bind = |address: Option<SocketAddr>| address.map(process::bind).transpose();
        let proxy = config.proxy.as_ref().map(|proxy| Listeners::bind(&proxy.config.listen)).transpose();
        Ok(Sockets {
            proxy: proxy.map_err(Failure::from_display)?,
            admin: bind(config.admin)?,
            ingest: bind(config.ingest.as_ref().and_then(|ingest| ingest.listen))?,
            queue: bind(config.queue.as_ref().and_then(|queue| queue.listen))?,
            shards: bind(config.shards.as_ref().and_then(|shards| shards.listen))?,
        })
    }

    /// Says on stdout which socket is served where.
    pub fn addresses(&self) -> Vec<(SocketAddr, &'static str)> {
        let mut all: Vec<(SocketAddr, &'static str)> = Vec::new();
        let single =
            [(&self.admin, "admin"), (&self.queue, "queue"), (&self.ingest, "ingest"), (&self.shards, "shards")];
        for (listener, role) in single {
            all.extend(
                listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(|address| (address, role)),
            );
        }
        let proxy = self.proxy.as_ref().map(Listeners::addresses).unwrap_or_default();
        all.extend(proxy.into_iter().map(|address| (address, "proxy")));
        all
    }
}

/// The origin roles of this process, running.
pub struct Roles {
    queues: Option<Arc<Queues>>,
    ingest: Option<Arc<Ingest>>,
    documents: Option<Arc<Documents>>,
    serve: Vec<ShardId>,
    /// Taken in order when the process stops.
    tasks: Vec<JoinHandle<()>>,
    servers: Vec<JoinHandle<()>>,
    failures: Option<mpsc::UnboundedReceiver<String>>,
}

impl Roles {
    /// Opens files and starts what is declared. Nothing is left running when it fails.
    pub fn start(
        config: &Config,
        sockets: &mut Sockets,
        runtime: &Runtime,
        registry: &Registry,
        stop: &Stop,
    ) -> Result<Roles, Failure> {
        let (tell, failures) = mpsc::unbounded_channel();
        let mut roles = Roles {
            queues: None,
            ingest: None,
            documents: None,
            serve: Vec::new(),
            tasks: Vec::new(),
            servers: Vec::new(),
            failures: Some(failures),
        };
        let map = Arc::new(config.shard_map.map.clone());
        if let Some(queue) = &config.queue {
            roles.start_queue(queue, sockets, runtime, registry, stop, &tell)?;
        }
        if let Some(shards) = &config.shards {
            roles.start_shards(shards, config, &map, sockets, runtime, registry, stop, &tell)?;
        }
        if let Some(dispatcher) = &config.dispatcher {
            roles.start_dispatcher(dispatcher, config, &map, runtime, registry, stop)?;
        }
        if let Some(ingest) = &config.ingest {
            let queues: Arc<dyn EventQueues> = match (&roles.queues, &ingest.queue) {
                (Some(queues), _) => Arc::clone(queues) as _,
                (None, address) => Arc::new(QueueClient::new(address.clone().unwrap_or_default())),
            };
            let ingest = Ingest::new(config.sources.clone(), queues, ingest.batch_max_events, registry);
            let ingest = Arc::new(ingest.map_err(Failure::from_display)?);
            roles.serve(sockets.ingest.take(), Arc::clone(&ingest) as _, runtime, stop)?;
            roles.ingest = Some(ingest);
        }
        Ok(roles)
    }

    fn start_queue(
        &mut self,
        config: &QueueConfig,
        sockets: &mut Sockets,
        runtime: &Runtime,
        registry: &Registry,
        stop: &Stop,
        tell: &mpsc::UnboundedSender<String>,
    ) -> Result<(), Failure> {
        let files = Files::in_dir(&config.dir, config.event_queues).map_err(Failure::from_display)?;
        let options = Options { limits: config.limits, ..Options::default() };
        let _entered = runtime.enter();
        let queues = Arc::new(Queues::open(files, options, registry).map_err(Failure::from_display)?);
        let (watched, tell) = (Arc::clone(&queues), tell.clone());
        runtime.spawn(async move {
            let _ = tell.send(format!("the queue role failed: {}", watched.failed().await));
        });
        self.serve(sockets.queue.take(), Arc::new(QueuesApi::new(Arc::clone(&queues))), runtime, stop)?;
        self.queues = Some(queues);
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "what a role is started with")]
    fn start_shards(
        &mut self,
        config: &ShardsConfig,
        whole: &Config,
        map: &Arc<ShardMap>,
        sockets: &mut Sockets,
        runtime: &Runtime,
        registry: &Registry,
        stop: &Stop,
        tell: &mpsc::UnboundedSender<String>,
    ) -> Result<(), Failure> {
        std::fs::create_dir_all(&config.dir)
            .map_err(|error| Failure::Failed(format!("cannot make {}: {error}", config.dir.display())))?;
        let metrics = ShardMetrics::register(registry).map_err(Failure::from_display)?;
        let queues: Arc<dyn ShardQueues> = match (&self.queues, &config.queue) {
            (Some(queues), _) => Arc::clone(queues) as _,
            (None, address) => Arc::new(QueueClient::new(address.clone().unwrap_or_default())),
        };
        let mut shards = Vec::new();
        for &shard in &config.serve {
            let opening = Opening {
                shard,
                map: Arc::clone(map),
                projections: Arc::clone(&whole.projections),
                place: Place::File(file_path(&config.dir, shard)),
                queues: Arc::clone(&queues),
                settings: config.settings.clone(),
            };
            shards.push(Shard::open(opening, &metrics).map_err(Failure::from_display)?);
        }
        for shard in &shards {
            let (shard, stopped, tell) = (Arc::clone(shard), stop.watch(), tell.clone());
            self.tasks.push(runtime.spawn(async move {
                if let Err(error) = shard.run(stopped).await {
                    let _ = tell.send(format!("shard {} failed: {error}", shard.id()));
                }
            }));
        }
        let documents = Arc::new(Documents::new(Arc::clone(&whole.projections), Arc::clone(map), shards));
        self.serve(sockets.shards.take(), Arc::clone(&documents) as _, runtime, stop)?;
        self.documents = Some(documents);
        self.serve = config.serve.iter().copied().collect();
        Ok(())
    }

    fn start_dispatcher(
        &mut self,
        config: &DispatcherConfig,
        whole: &Config,
        map: &Arc<ShardMap>,
        runtime: &Runtime,
        registry: &Registry,
        stop: &Stop,
    ) -> Result<(), Failure> {
        let queues: Arc<dyn DispatchQueues> = match (&self.queues, &config.queue) {
            (Some(queues), _) => Arc::clone(queues) as _,
            (None, address) => Arc::new(QueueClient::new(address.clone().unwrap_or_default())),
        };
        let routing = Routing { projections: whole.projections.to_vec(), map: ShardMap::clone(map) };
        let dispatcher = Dispatcher::new(queues, routing, config.settings.clone(), registry);
        let dispatcher = dispatcher.map_err(Failure::from_display)?;
        let stopped = stop.watch();
        self.tasks.push(runtime.spawn(async move { dispatcher.run(stopped).await }));
        Ok(())
    }

    fn serve(
        &mut self,
        listener: Option<TcpListener>,
        handler: Arc<dyn Handler>,
        runtime: &Runtime,
        stop: &Stop,
    ) -> Result<(), Failure> {
        if let Some(listener) = listener {
            self.servers.push(process::spawn_server(runtime, listener, handler, stop.watch())?);
        }
        Ok(())
    }

    /// The change streams of the shards that are here, and the shards.
    pub fn changes(&self) -> Option<(Arc<dyn Changes>, Vec<ShardId>)> {
        self.documents.as_ref().map(|documents| (Arc::clone(documents) as Arc<dyn Changes>, self.serve.clone()))
    }

    /// Resolves with the words of the first role that fails. To be taken once.
    pub fn take_failures(&mut self) -> impl Future<Output = String> + use<> {
        let failures = self.failures.take();
        async {
            match failures {
                Some(mut failures) => match failures.recv().await {
                    Some(words) => words,
                    None => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until the roles have stopped: servers first, then those that work, then the files.
    pub async fn stopped(self) {
        for task in self.servers.into_iter().chain(self.tasks) {
            let _ = task.await;
        }
        if let Some(queues) = self.queues {
            queues.close().await;
        }
    }
}

/// The proxy's parts that outlive a reload.
pub struct ProxyParts {
    pub gateway: Arc<Gateway>,
    pub observer: Arc<Observer>,
}

/// Builds the proxy and follows the shards' change streams.
pub fn start_proxy(
    proxy: Proxy,
    config: &Config,
    roles: &Roles,
    runtime: &Runtime,
    registry: &Registry,
) -> Result<ProxyParts, Failure> {
    let store = Arc::new(Store::new(StoreLimits::with_budget(proxy.config.memory_bytes)));
    let streams = streams(&proxy.rules, config, roles)?;
    let live = Arc::new(Live::new(Arc::clone(&store), streams.keys().copied()));
    let observer = Observer::new(registry, Arc::clone(&store), config.log.access).map_err(Failure::from_display)?;
    let upstreams = Upstreams::new(origins(&proxy.origins, config, roles)?);
    let counters = Arc::new(Counters::new(registry).map_err(Failure::from_display)?);
    let snapshot = Snapshot { rules: proxy.rules, upstreams };
    let gateway = Gateway::new(snapshot, store, Arc::clone(&live), counters);
    for (shard, stream) in streams {
        runtime.spawn(follow(Arc::clone(&live), shard, stream));
    }
    Ok(ProxyParts { gateway, observer: Arc::new(observer) })
}

/// New rules and origins in place of the old ones, whole.
pub fn swap_rules(parts: &ProxyParts, proxy: Proxy, config: &Config, roles: &Roles) -> Result<(), Failure> {
    let origins = origins(&proxy.origins, config, roles)?;
    let upstreams = Upstreams::with_pool_of(origins, &parts.gateway.snapshot().upstreams);
    parts.gateway.swap(Snapshot { rules: proxy.rules, upstreams });
    Ok(())
}

/// Every origin that rules can name.
fn origins(
    servers: &BTreeMap<String, Vec<SocketAddr>>,
    config: &Config,
    roles: &Roles,
) -> Result<BTreeMap<String, Upstream>, Failure> {
    let list = |(name, addresses): (&String, &Vec<SocketAddr>)| {
        (name.clone(), Upstream::Servers(ServerList::new(addresses.iter().copied())))
    };
    let mut origins: BTreeMap<String, Upstream> = servers.iter().map(list).collect();
    if let Some(ingest) = &roles.ingest {
        origins.insert("ingest".to_owned(), Upstream::Role(Arc::clone(ingest) as Arc<dyn Origin>));
    }
    let here =
        roles.documents.as_ref().map(|documents| (Arc::clone(documents) as Arc<dyn Origin>, roles.serve.clone()));
    let there = shards_elsewhere(config, roles)?;
    if here.is_some() || !there.is_empty() {
        let map = config.shard_map.map.clone();
        let shards = Shards::new(Arc::clone(&config.projections), map, here, there);
        origins.insert("shards".to_owned(), Upstream::Shards(shards));
    }
    Ok(origins)
}

/// Change streams of all shards that a rule can reach.
fn streams(rules: &RuleSet, config: &Config, roles: &Roles) -> Result<BTreeMap<ShardId, Stream>, Failure> {
    if !rules.rules.iter().any(|rule| rule.origin == "shards") {
        return Ok(BTreeMap::new());
    }
    let mut streams: BTreeMap<ShardId, Stream> =
        shards_elsewhere(config, roles)?.into_iter().map(|(shard, address)| (shard, Stream::There(address))).collect();
    if let Some(documents) = &roles.documents {
        let here = |shard: &ShardId| (*shard, Stream::Here(Arc::clone(documents) as Arc<dyn Changes>));
        streams.extend(roles.serve.iter().map(here));
    }
    Ok(streams)
}

fn shards_elsewhere(config: &Config, roles: &Roles) -> Result<BTreeMap<ShardId, SocketAddr>, Failure> {
    let elsewhere = config.shard_map.addresses.iter().filter(|(shard, _)| !roles.serve.contains(shard));
    elsewhere
        .map(|(shard, address)| {
            let found = address.to_socket_addrs().ok().and_then(|mut all| all.next());
            let problem = || Failure::Failed(format!("the address `{address}` of shard {shard} can't be found"));
            Ok((*shard, found.ok_or_else(problem)?))
        })
        .collect()
}
