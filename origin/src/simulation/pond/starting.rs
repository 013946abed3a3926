//! How processes start: from what their disks hold, or from a copy of another's.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use millpond_shared::version::ShardId;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::{oneshot, watch};

use super::Pond;
use super::declared::projections;
use super::machines::{CACHE_BYTES, Crash, DispatcherMachine, MAP_VERSION, Open, blank};
use crate::api::documents::Documents;
use crate::dispatch::{Dispatcher, DispatcherSettings};
use crate::queue::{DispatchQueues, Files, KnownMap, Options, QueueError, QueueRole, Queues, ShardMaps, ShardQueues};
use crate::shard::{CopyError, Opening, Pages, Shard, ShardError, ShardMetrics, ShardSettings, adopt};
use crate::simulation::scheduler::{Process, Simulation};
use crate::simulation::tally::Befell;
use crate::simulation::wire::Doors;
use crate::store::Place;
use crate::store::forgetful::Forgetful;
use crate::store::shard_copy::Page;
use crate::store::shard_file::{Identity, ShardFile};

impl Pond {
    fn process(&mut self) -> Process {
        self.processes += 1;
        Process(self.processes)
    }

    /// Has `work` done by `process`, which ends with it.
    fn run(&self, process: Process, what: std::fmt::Arguments<'_>, work: impl Future<Output = ()> + 'static) {
        Simulation::tell(format_args!("{process:?} is {what}"));
        let ended = self.ended.clone();
        Simulation::spawn(process, async move {
            work.await;
            Simulation::tell(format_args!("{process:?} ends"));
            ended.lock().insert(process);
        });
    }

    /// The shard map as `process` comes to know it.
    fn known_map(&self, process: Process, maps: Arc<dyn ShardMaps>) -> KnownMap {
        let known = KnownMap::new(maps, self.first);
        let following = known.clone();
        Simulation::spawn(process, async move { panic!("{}", following.follow().await) });
        known
    }

    /// Starts the queue role; fails where a disk is full, for example.
    pub fn start_queue(&mut self) {
        let process = self.process();
        let place = |disk: &Forgetful| Place::Backend(Box::new(disk.clone()));
        let Some((shards, events)) = self.queue.disks.split_last() else { return };
        let files = Files { events: events.iter().map(place).collect(), shards: place(shards) };
        let wall_ms = self.wall_ms.clone();
        let clock = Arc::new(move || wall_ms.load(Ordering::Relaxed) + Simulation::elapsed().as_millis() as u64);
        let options = Options { limits: self.plan.limits, clock };
        let opened = Simulation::within(process, || Queues::open(files, options, &Registry::new()));
        let queues = match opened {
            Ok(queues) => Arc::new(queues),
            Err(error) => {
                self.not_opened = error.to_string();
                Simulation::kill(process);
                self.queue.lose(if self.queue.power.is_cut() { Crash::Torn } else { Crash::Process });
                return;
            }
        };
        let doors = Doors { queues: queues.clone(), ledger: self.ledger.clone(), from_elsewhere: true };
        let failing = queues.clone();
        self.run(process, format_args!("the queues"), async move { drop(failing.failed().await) });
        self.wire.leads_to(Some((process, doors.clone())));
        self.queue.up = Some((process, queues));
        if self.plan.one_process {
            self.start_dispatcher_in(process, 0, Arc::new(Doors { from_elsewhere: false, ..doors }));
        }
    }

    pub fn start_dispatcher(&mut self, number: usize) {
        if number > 0 || !self.plan.one_process {
            let process = self.process();
            self.start_dispatcher_in(process, number, self.wire.clone());
        }
    }

    fn start_dispatcher_in<Q: DispatchQueues + ShardMaps + 'static>(
        &mut self,
        process: Process,
        number: usize,
        queues: Arc<Q>,
    ) {
        let settings = DispatcherSettings {
            holder: format!("dispatcher-{number}-{}", process.0),
            max_events: self.plan.max_events,
            lease_ttl: self.plan.lease_ttl,
            pause_max: Duration::from_millis(500),
        };
        let map = self.known_map(process, queues.clone());
        let dispatcher =
            Dispatcher::new(queues, projections().clone(), map, settings, &Registry::new()).expect("metrics");
        let (stop, stopped) = watch::channel(false);
        let works: Vec<_> =
            (0..self.plan.queues).map(|queue| dispatcher.clone().work(queue, stopped.clone())).collect();
        let what = format_args!("dispatcher {number}");
        self.run(process, what, async move { drop(futures_util::future::join_all(works).await) });
        self.dispatchers[number] = DispatcherMachine { up: Some(process), stop };
    }

    /// Starts a replica from its disk; or has it copy another first, if it has none.
    pub fn start_replica(&mut self, number: usize) {
        let process = self.process();
        let replica = &mut self.replicas[number];
        if replica.too_late.swap(false, Ordering::Relaxed) {
            replica.disk = None;
        }
        if let Some(copied) = replica.copied.lock().take() {
            Simulation::befell(Befell::CopyTaken);
            replica.disk = Some(copied);
        }
        replica.disk = replica.disk.take().map(|disk| disk.on(&replica.power));
        let Some(disk) = replica.disk.clone() else {
            self.start_copy(process, number);
            return;
        };
        replica.stop = watch::Sender::new(false);
        replica.up = Some(process);
        let place = Place::Backend(Box::new(disk));
        let opening = Opening {
            shard: replica.shard,
            map_version: MAP_VERSION,
            projections: projections().clone(),
            place,
            queues: self.wire.clone(),
            events: Some(self.wire.clone()),
            attached: Vec::new(),
            settings: ShardSettings { consumer: replica.consumer.clone(), ..self.plan.shard.clone() },
        };
        let (open, stopped) = (replica.open.clone(), replica.stop.subscribe());
        let (id, consumer, too_late) = (replica.shard, replica.consumer.clone(), replica.too_late.clone());
        let (ledger, known, ended) =
            (self.ledger.clone(), self.known_map(process, self.wire.clone()), self.ended.clone());
        self.run(process, format_args!("replica {number}, shard {id}"), async move {
            let metrics = ShardMetrics::register(&Registry::new()).expect("metrics");
            if let Ok(shard) = Shard::open(opening, &metrics) {
                shard.kept_map().into_iter().for_each(|kept| known.remember(kept));
                let documents = Documents::new(projections().clone(), known.clone(), [shard.clone()]);
                let running = Arc::new(Open { shard: shard.clone(), documents });
                *open.lock() = Arc::downgrade(&running);
                let following = shard.clone().follow_map(known, stopped.clone());
                Simulation::spawn(process, async move {
                    if following.await.is_err() {
                        ended.lock().insert(process);
                    }
                });
                match shard.run(stopped).await {
                    // What ends a process that then starts again.
                    Ok(()) | Err(ShardError::Commit { .. } | ShardError::File(_)) => {}
                    Err(ShardError::Queue(QueueError::Trimmed { .. })) if !ledger.is_registered(id, &consumer) => {
                        Simulation::befell(Befell::CameTooLate);
                        too_late.store(true, Ordering::Relaxed);
                    }
                    Err(error) => panic!("a shard can't go on, and never will: {error}"),
                }
            }
        });
    }

    fn start_copy(&mut self, process: Process, number: usize) {
        let replica = &mut self.replicas[number];
        let (shard, consumer, copied) = (replica.shard, replica.consumer.clone(), replica.copied.clone());
        replica.up = Some(process);
        let others = self.replicas.iter().enumerate().filter(|(other, there)| *other != number && there.shard == shard);
        let Some((process_there, open)) = others.filter_map(|(_, other)| Some((other.up?, other.open.clone()))).next()
        else {
            self.ended.lock().insert(process);
            return;
        };
        let (wire, bytes_max) = (self.wire.clone(), self.plan.page);
        let identity = Identity { shard, map_version: MAP_VERSION };
        self.run(process, format_args!("a copy for replica {number}, shard {shard}"), async move {
            if wire.committed(shard, &consumer, 0).await.is_err() {
                return;
            }
            let from = PagesOf { process: process_there, open, shard, bytes_max };
            let Ok(first) = from.page(None).await else { return };
            let disk = blank().shards[&shard].copied();
            let place = Place::Backend(Box::new(disk.clone()));
            let (file, _) = ShardFile::open(place, CACHE_BYTES, identity, projections()).expect("opened");
            if adopt(file, first, &from).await.is_ok() {
                *copied.lock() = Some(disk);
            }
        });
    }
}

/// The pages of another replica's file, asked for over a wire.
struct PagesOf {
    process: Process,
    open: Arc<Mutex<Weak<Open>>>,
    shard: ShardId,
    bytes_max: usize,
}

#[async_trait]
impl Pages for PagesOf {
    async fn page(&self, after: Option<(&str, &str)>) -> Result<Page, CopyError> {
        let after = after.map(|(projection, key)| (projection.to_owned(), key.to_owned()));
        let (answer, answered) = oneshot::channel();
        let (open, bytes_max) = (self.open.lock().clone(), self.bytes_max);
        Simulation::spawn(self.process, async move {
            let Some(open) = open.upgrade() else { return };
            let page = open.shard.page_of(after, bytes_max).await;
            let _ = answer.send(page.map(|page| page.encode()));
        });
        let no_page = |problem: String| CopyError::NoPage { shard: self.shard, from: "the other".to_owned(), problem };
        let bytes = answered.await.map_err(|_| no_page("it is down".to_owned()))??;
        Page::decode(&bytes).map_err(no_page)
    }
}
