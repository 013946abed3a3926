//! The origin roles of a process.

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;

use millpond_origin::api::documents::Documents;
use millpond_origin::api::ingest::Ingest;
use millpond_origin::api::queues::QueuesApi;
use millpond_origin::config::databases::DatabaseConfig;
use millpond_origin::config::engine::Engine;
use millpond_origin::config::roles::{DispatcherConfig, QueueConfig};
use millpond_origin::config::shards::ShardsConfig;
use millpond_origin::database::DatabaseMetrics;
use millpond_origin::database::postgres::Postgres;
use millpond_origin::dispatch::{Dispatcher, Routing};
use millpond_origin::http::Handler;
use millpond_origin::queue::nats::{Clock, NatsQueues};
use millpond_origin::queue::{
    DispatchQueues, EventQueues, Files, Options, QueueClient, QueueRole, Queues, ShardQueues,
};
use millpond_origin::shard::{Attached, Copying, Opening, Shard, ShardMetrics, copy, file_path};
use millpond_origin::store::Place;
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::ShardId;
use millpond_shared::wire::Changes;
use prometheus::Registry;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Sockets;
use crate::Failure;
use crate::config::Config;
use crate::process::{self, Stop};

/// The origin roles of this process, running.
pub struct Roles {
    queues: Option<Arc<dyn QueueRole>>,
    pub(super) ingest: Option<Arc<Ingest>>,
    pub(super) documents: Option<Arc<Documents>>,
    /// Numbers of the shards that are here.
    pub(super) serve: Vec<ShardId>,
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
        let options = Options { limits: config.limits, ..Options::default() };
        let _entered = runtime.enter();
        let queues: Arc<dyn QueueRole> = match &config.engine {
            Engine::Embedded { dir } => {
                let files = Files::in_dir(dir, config.event_queues).map_err(Failure::from_display)?;
                Arc::new(Queues::open(files, options, registry).map_err(Failure::from_display)?)
            }
            Engine::Nats(settings) => {
                let opening = NatsQueues::open(settings, options, Clock::Servers, registry);
                Arc::new(runtime.block_on(opening).map_err(Failure::from_display)?)
            }
        };
        let (watched, tell) = (Arc::clone(&queues), tell.clone());
        runtime.spawn(async move {
            let _ = tell.send(format!("the queue role failed: {}", watched.failed().await));
        });
        if let Some(listener) = sockets.queue.take() {
            let api = QueuesApi::new(Arc::clone(&queues), registry).map_err(Failure::from_display)?;
            self.serve(Some(listener), Arc::new(api), runtime, stop)?;
        }
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
        let events: Arc<dyn EventQueues> = match (&self.queues, &config.queue) {
            (Some(queues), _) => Arc::clone(queues) as _,
            (None, address) => Arc::new(QueueClient::new(address.clone().unwrap_or_default())),
        };
        let attached = attached(whole, registry)?;
        let mut shards = Vec::new();
        for &shard in &config.serve {
            if let Some(from) = &config.copy_from {
                let copying = Copying {
                    shard,
                    map: Arc::clone(map),
                    projections: Arc::clone(&whole.projections),
                    dir: config.dir.clone(),
                    from: from.clone(),
                    queues: Arc::clone(&queues),
                    consumer: config.settings.consumer.clone(),
                };
                runtime.block_on(copy(copying)).map_err(Failure::from_display)?;
            }
            let opening = Opening {
                shard,
                map: Arc::clone(map),
                projections: Arc::clone(&whole.projections),
                place: Place::File(file_path(&config.dir, shard)),
                queues: Arc::clone(&queues),
                events: Some(Arc::clone(&events)),
                settings: config.settings.clone(),
                attached: attached.clone(),
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

    /// The queue role, if it is in this process.
    pub fn queues(&self) -> Option<Arc<dyn QueueRole>> {
        self.queues.clone()
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
        // Long polls of roles elsewhere would hold up the queue's server.
        if let Some(queues) = &self.queues {
            queues.end_waits();
        }
        for task in self.servers.into_iter().chain(self.tasks) {
            let _ = task.await;
        }
        if let Some(queues) = self.queues {
            queues.close().await;
        }
    }
}

/// The databases that shards send documents to.
fn attached(config: &Config, registry: &Registry) -> Result<Vec<Attached>, Failure> {
    if config.databases.is_empty() {
        return Ok(Vec::new());
    }
    let metrics = DatabaseMetrics::register(registry).map_err(Failure::from_display)?;
    let number = |name: &String| {
        let place = config.projections.iter().position(|projection| projection.name == *name);
        place.and_then(|place| u16::try_from(place).ok())
    };
    let attach = |database: &DatabaseConfig| {
        let postgres = Postgres::new(database.name.clone(), database.settings.clone(), metrics.clone());
        Ok(Attached {
            name: database.name.clone(),
            projections: database.projections.iter().filter_map(number).collect(),
            database: Arc::new(postgres.map_err(Failure::Failed)?),
        })
    };
    config.databases.iter().map(attach).collect()
}
