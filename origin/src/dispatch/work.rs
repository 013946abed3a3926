//! The dispatcher's tasks.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_shared::projection::Projection;
use millpond_shared::shard_map::MapState;
use millpond_shared::version::QueueId;
use millpond_shared::wanted::Wanted;
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::hold::{Hold, Next};
use super::metrics::Metrics;
use super::round::{self, RoundLimits};
use super::route::{Routed, Routing, wanted};
use crate::blocking::apart;
use crate::queue::lease::TTL_DEFAULT;
use crate::queue::{DispatchQueues, KnownMap, MapChange, QueueError, Round, Taken};
use crate::timing::{self, sleep, timeout};

/// The dispatcher role.
#[derive(Clone)]
pub struct Dispatcher {
    queues: Arc<dyn DispatchQueues>,
    projections: Arc<Vec<Projection>>,
    /// What has to be read of payloads.
    wanted: Arc<Wanted>,
    map: KnownMap,
    settings: DispatcherSettings,
    metrics: Metrics,
}

/// How a dispatcher works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatcherSettings {
    /// Its name in leases.
    pub holder: String,
    /// Most events in one round.
    pub max_events: usize,
    /// How long its claims outlive it; they are renewed at a third of that.
    pub lease_ttl: Duration,
    /// Longest pause before something that was refused is tried again: a claim that somebody else holds, a full queue,
    /// a queue role that can't be reached.
    pub pause_max: Duration,
}

/// Longest time that events of a slot wait for the end of its move: then they go to the shard that had it before.
const HOLD_MAX: Duration = Duration::from_secs(5);
/// Shortest pause before it is looked again whether they can go on.
const HOLD_PAUSE: Duration = Duration::from_millis(10);
/// How often the number of event queues is asked for.
const RECOUNT: Duration = Duration::from_secs(10);
/// Longest wait for events in one call.
const TAKE_WAIT: Duration = Duration::from_secs(30);
/// Rounds from this size on are routed beside the async workers, in bytes: it takes them milliseconds.
const LARGE_ROUND: usize = 256 << 10;

impl Default for DispatcherSettings {
    fn default() -> DispatcherSettings {
        let random = RandomState::new().build_hasher().finish();
        DispatcherSettings {
            holder: format!("dispatcher-{random:016x}"),
            max_events: 2000,
            lease_ttl: TTL_DEFAULT,
            pause_max: Duration::from_secs(1),
        }
    }
}

/// Why work on an event queue ended.
enum End {
    /// The dispatcher is to stop.
    Shutdown,
    /// The lease is gone, or may be.
    Lost,
}

impl Dispatcher {
    pub fn new(
        queues: Arc<dyn DispatchQueues>,
        projections: Arc<Vec<Projection>>,
        map: KnownMap,
        settings: DispatcherSettings,
        registry: &Registry,
    ) -> Result<Dispatcher, prometheus::Error> {
        let wanted = wanted(&projections);
        Ok(Dispatcher { queues, projections, wanted, map, settings, metrics: Metrics::register(registry)? })
    }

    /// Works until `shutdown` becomes true (or its sender is gone); then gives its leases up and returns.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let mut known = 0;
        loop {
            match self.queues.count().await {
                Ok(count) => {
                    for queue in known..count {
                        tasks.spawn(self.clone().work(queue, shutdown.clone()));
                    }
                    known = known.max(count);
                }
                Err(error) => tracing::warn!(%error, "the event queues can't be counted"),
            }
            let pause = if known == 0 { self.settings.pause_max } else { RECOUNT };
            if self.pause(pause, &mut shutdown).await.is_err() {
                break;
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Claims one event queue and works on it, again and again.
    pub(crate) async fn work(self, queue: QueueId, mut shutdown: watch::Receiver<bool>) {
        loop {
            let Ok(hold) = self.acquire(queue, &mut shutdown).await else { return };
            tracing::info!(queue, token = hold.lease.token, "event queue claimed");
            self.metrics.held.inc();
            let end = self.rounds(hold, &mut shutdown).await;
            self.metrics.held.dec();
            if let End::Shutdown = end {
                // If it can't be given up it ends by itself.
                let _ = timeout(self.settings.pause_max, self.queues.release(hold.lease)).await;
                return;
            }
            tracing::warn!(queue, token = hold.lease.token, "the claim on the event queue was lost");
        }
    }

    async fn acquire(&self, queue: QueueId, shutdown: &mut watch::Receiver<bool>) -> Result<Hold, End> {
        loop {
            let asked = timing::now();
            let ttl = self.settings.lease_ttl;
            let pause = match self.queues.acquire(queue, &self.settings.holder, ttl).await {
                Ok(lease) => return Ok(Hold::new(lease, ttl, asked)),
                Err(QueueError::Held { for_ms, .. }) => Duration::from_millis(for_ms.max(1)),
                Err(error) => {
                    tracing::warn!(queue, %error, "the event queue can't be claimed");
                    self.settings.pause_max
                }
            };
            self.pause(pause.min(self.settings.pause_max), shutdown).await?;
        }
    }

    async fn rounds(&self, mut hold: Hold, shutdown: &mut watch::Receiver<bool>) -> End {
        let mut stuck = None;
        loop {
            if *shutdown.borrow() {
                return End::Shutdown;
            }
            let now = timing::now();
            let step = async {
                match hold.next(now) {
                    Next::Stop => Err(Trouble::Lost),
                    Next::Renew => {
                        self.queues.renew(hold.lease, self.settings.lease_ttl).await?;
                        Ok(true)
                    }
                    Next::Work(within) => {
                        self.round(&hold, within, &mut stuck, shutdown).await?;
                        Ok(false)
                    }
                }
            };
            match timeout(hold.left(now), step).await {
                Ok(Ok(true)) => hold.renewed(now),
                Ok(Ok(false)) => {}
                Ok(Err(Trouble::Lost)) | Err(_) => return End::Lost,
                // Queues that stop say so to whoever waits for them.
                Ok(Err(Trouble::Later(_))) if *shutdown.borrow() => return End::Shutdown,
                Ok(Err(Trouble::Later(error))) => {
                    tracing::warn!(queue = hold.lease.queue, %error, "nothing can be filed now");
                    let why = if matches!(error, QueueError::ShardFull { .. }) { "full" } else { "failed" };
                    self.metrics.stalls.with_label_values(&[&hold.lease.queue.to_string(), why]).inc();
                    let pause = self.settings.pause_max.min(hold.left(timing::now()));
                    if self.pause(pause, shutdown).await.is_err() {
                        return End::Shutdown;
                    }
                }
            }
        }
    }

    /// Takes what is there, waiting `within` for it at most, and files it.
    async fn round(
        &self,
        hold: &Hold,
        within: Duration,
        stuck: &mut Option<Stuck>,
        shutdown: &watch::Receiver<bool>,
    ) -> Result<(), Trouble> {
        let lease = hold.lease;
        let mut shutdown = shutdown.clone();
        let Some(map) = self.map_within(within, &mut shutdown).await else { return Ok(()) };
        let taken = tokio::select! {
            biased;
            taken = self.queues.take(lease, self.settings.max_events, within.min(TAKE_WAIT)) => taken?,
            _ = shutdown.wait_for(|down| *down) => return Ok(()),
        };
        let Some(taken) = taken else { return Ok(()) };
        let routing = Arc::new(Routing { projections: self.projections.clone(), wanted: self.wanted.clone(), map });
        let mut routed = self.routed(&routing, taken.clone(), lease.token).await?;
        let last = routed.last;
        if last < taken.first {
            self.wait_for_move(routing.map.version(), within, stuck, &mut shutdown).await;
            return Ok(());
        }
        *stuck = None;
        let frame_max = self.queues.frame_max_bytes();
        if last == taken.first && routed.frames.iter().any(|frame| frame.bytes.len() > frame_max) {
            routed.lay_aside(&taken, frame_max);
        }
        if !routed.dead.is_empty() {
            // Before the round that leaves them out: a crash in between repeats both.
            self.queues.bury(std::mem::take(&mut routed.dead)).await?;
        }
        let (first, unrouted) = (taken.first, routed.unrouted);
        let round = Round { first, last, map_version: routing.map.version(), frames: routed.frames };
        match self.queues.push(lease, round).await {
            Err(QueueError::MapChanged { version }) => {
                self.map_above(version.saturating_sub(1), within, &mut shutdown).await;
                return Ok(());
            }
            pushed => pushed?,
        }
        let queue = lease.queue.to_string();
        self.metrics.dispatched.with_label_values(&[&queue]).inc_by(last + 1 - first);
        self.metrics.unrouted.with_label_values(&[&queue]).inc_by(unrouted);
        Ok(())
    }

    /// The shard map, once it is known.
    async fn map_within(&self, within: Duration, shutdown: &mut watch::Receiver<bool>) -> Option<Arc<MapState>> {
        self.map_above(0, within, shutdown).await;
        self.map.get()
    }

    /// Waits for a shard map whose version is above `version`.
    async fn map_above(&self, version: u32, within: Duration, shutdown: &mut watch::Receiver<bool>) {
        let mut told = self.map.watch();
        let is_newer = |told: &Option<Arc<MapState>>| told.as_ref().is_some_and(|told| told.version() > version);
        tokio::select! {
            biased;
            _ = told.wait_for(is_newer) => {}
            _ = shutdown.wait_for(|down| *down) => {}
            () = sleep(within) => {}
        }
    }

    /// The next event belongs to a slot that moves: waits for the end of that, but not for ever.
    async fn wait_for_move(
        &self,
        version: u32,
        within: Duration,
        stuck: &mut Option<Stuck>,
        shutdown: &mut watch::Receiver<bool>,
    ) {
        let now = timing::now();
        let before = stuck.filter(|stuck| stuck.version == version);
        let since = before.map_or(now, |stuck| stuck.since);
        *stuck = Some(Stuck { version, since });
        if before.is_none() {
            // What is taken again at once tells the queue that all before it is filed, which the move waits for.
            return self.map_above(version, within.min(HOLD_PAUSE), shutdown).await;
        }
        let left = HOLD_MAX.saturating_sub(now.duration_since(since));
        if left.is_zero() {
            tracing::warn!(version, "slots that move were held for too long: their events go on, the move begins anew");
            match self.map.maps().change_map(MapChange::LetGo { version }).await {
                Ok(state) => self.map.tell(state),
                // Somebody else has changed it meanwhile, or it is tried again.
                Err(error) => tracing::debug!(%error, "slots were not let go"),
            }
        }
        self.map_above(version, left.min(within).max(HOLD_PAUSE), shutdown).await;
    }

    /// Routes what was taken, or as much of it as makes a round of the allowed size.
    async fn routed(&self, routing: &Arc<Routing>, taken: Taken, token: u64) -> Result<Routed, QueueError> {
        let routing = routing.clone();
        let limits = RoundLimits::of_frames(self.queues.frame_max_bytes());
        let large = taken.frames.iter().map(bytes::Bytes::len).sum::<usize>() >= LARGE_ROUND;
        if !large {
            return round::route(&routing, &taken, token, limits);
        }
        let routed = apart(move || round::route(&routing, &taken, token, limits)).await;
        routed.unwrap_or(Err(QueueError::Closed))
    }

    async fn pause(&self, pause: Duration, shutdown: &mut watch::Receiver<bool>) -> Result<(), End> {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|down| *down) => Err(End::Shutdown),
            () = sleep(pause) => Ok(()),
        }
    }
}

/// An event queue whose next event has to wait for the end of a move.
#[derive(Clone, Copy)]
struct Stuck {
    /// Of the shard map by which it has to.
    version: u32,
    since: Instant,
}

/// Why a step was not done.
enum Trouble {
    /// Somebody else may work on the queue: nothing that was known about it holds any more.
    Lost,
    /// It may go better later, under the same lease.
    Later(QueueError),
}

impl From<QueueError> for Trouble {
    fn from(error: QueueError) -> Trouble {
        match error {
            QueueError::Fenced { .. } => Trouble::Lost,
            error => Trouble::Later(error),
        }
    }
}
