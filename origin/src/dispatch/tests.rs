//! Dispatchers at work: who works on what, and that nothing is lost, doubled or reordered whatever happens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_shared::event::Event;
use millpond_shared::shard_map::{FirstMap, MapState};
use millpond_shared::version::{QueueId, ShardId};
use prometheus::Registry;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::route::tests::{event, filed, routing, sent};
use super::{Dispatcher, DispatcherSettings};
use crate::queue::testing::{Machine, NoMaps, Random};
use crate::queue::{
    DeadLetter, DeadLetters, DispatchQueues, EventQueues, KnownMap, Lease, QueueError, Queues, Round, ShardQueues,
    Taken,
};

/// A wait that no test sees the end of, unless it fails.
const LONG: Duration = Duration::from_secs(30);
const SHARDS: u16 = 3;
const FIRST: FirstMap = FirstMap { version: 1, shards: SHARDS };

fn settings(holder: &str) -> DispatcherSettings {
    DispatcherSettings {
        holder: holder.to_owned(),
        max_events: 3,
        lease_ttl: Duration::from_secs(60),
        pause_max: Duration::from_millis(5),
    }
}

struct Running {
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
    registry: Registry,
}

fn start(queues: Arc<dyn DispatchQueues>, settings: DispatcherSettings) -> Running {
    let (shutdown, down) = watch::channel(false);
    let registry = Registry::new();
    let map = KnownMap::new(Arc::new(NoMaps), FIRST);
    map.tell(MapState::first(FIRST));
    let dispatcher = Dispatcher::new(queues, routing(SHARDS).projections, map, settings, &registry).unwrap();
    Running { shutdown, task: tokio::spawn(dispatcher.run(down)), registry }
}

impl Running {
    async fn stop(self) {
        self.shutdown.send(true).unwrap();
        self.task.await.unwrap();
    }

    /// Ends it as a crash would: nothing is given up.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let value =
            |metric: &prometheus::proto::Metric| metric.get_counter().get_value() + metric.get_gauge().get_value();
        family.map_or(0.0, |family| family.get_metric().iter().map(value).sum())
    }
}

fn edit(n: u64) -> Event<'static> {
    let robot = n.is_multiple_of(3);
    event(n, format!(r#"{{"user":"u{}","page":"p{}","robot":{robot}}}"#, n % 5, n % 7))
}

/// Returns once everything that is in an event queue was filed.
async fn drained(queues: &Queues) {
    let filed = async {
        while queues.status().event_queues.iter().any(|queue| queue.filed < queue.last) {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(LONG, filed).await;
    in_time.unwrap_or_else(|_| panic!("nothing goes on: {:?}", queues.status()));
}

/// The same where a dispatcher died, maybe while its claim was being made: only time ends that one.
async fn drained_as_time_passes(machine: &Machine, queues: &Queues) {
    tokio::select! {
        () = drained(queues) => {}
        () = async {
            loop {
                machine.pass_ms(60_000);
                // Time enough to work in between: a claim that ends at once helps nobody.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        } => {}
    }
}

async fn pulled(queues: &Queues) -> Vec<(ShardId, Bytes)> {
    let mut frames = Vec::new();
    for shard in 0..SHARDS {
        let pulled = queues.pull(shard, 0, usize::MAX, Duration::ZERO).await.unwrap();
        frames.extend(pulled.frames.into_iter().map(|(_, frame)| (shard, frame)));
    }
    frames
}

/// Checks that the shards hold every route of `events`, which stand in `queue` from offset 1 on, once and in order.
fn assert_filed_once(queue: QueueId, events: &[Event<'static>], frames: &[(ShardId, Bytes)]) {
    let frame = millpond_shared::wire::EventFrame { queue, first: 1, events: events.to_vec() };
    let expected = filed(&sent(routing(SHARDS).route(&[frame], 1, events.len() as u64, 1)));
    let of_queue: Vec<_> = frames
        .iter()
        .filter(|(_, bytes)| millpond_shared::wire::ShardFrame::decode(bytes).unwrap().queue == queue)
        .cloned()
        .collect();
    let found = filed(&of_queue);
    for shard in 0..SHARDS {
        let offsets: Vec<u64> = found.iter().filter(|row| row.0 == shard).map(|row| row.1).collect();
        assert!(offsets.is_sorted(), "queue {queue}, shard {shard}: {offsets:?}");
    }
    assert_eq!(found.len(), expected.len(), "queue {queue}: something is missing or doubled");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected.into_iter().collect(), "queue {queue}");
}

#[tokio::test]
async fn events_of_all_queues_reach_the_shards_they_concern() {
    let queues = Machine::new(3).open();
    let events: Vec<_> = (0..20).map(edit).collect();
    let dispatcher = start(queues.clone(), settings("a"));
    for queue in 0..3 {
        for batch in events.chunks(7) {
            queues.append(queue, None, batch.to_vec()).await.unwrap();
        }
    }
    queues.append(0, None, vec![event(99, "{}".to_owned())]).await.unwrap();
    drained(&queues).await;
    let frames = pulled(&queues).await;
    let mut of_first = events.clone();
    of_first.push(event(99, "{}".to_owned()));
    assert_filed_once(0, &of_first, &frames);
    assert_filed_once(1, &events, &frames);
    assert_filed_once(2, &events, &frames);
    while dispatcher.metric("millpond_dispatched_events_total") < 61.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(dispatcher.metric("millpond_unrouted_events_total"), 1.0);
    assert_eq!(dispatcher.metric("millpond_leases_held"), 3.0);
    dispatcher.stop().await;
    assert!(queues.acquire(0, "somebody", LONG).await.is_ok(), "a graceful stop gives the leases up");
}

/// Queues that tell what a dispatcher is told, and can hold it at the worst moment: between routing and pushing.
struct Watched {
    queues: Arc<Queues>,
    acquired: mpsc::UnboundedSender<Result<Lease, QueueError>>,
    renewed: mpsc::UnboundedSender<Result<(), QueueError>>,
    pushed: mpsc::UnboundedSender<Result<(), QueueError>>,
    /// Told when a push begins, and asked before it goes on.
    paused: Option<(Arc<Notify>, Arc<Notify>)>,
}

/// What a dispatcher was told, in order.
struct Told {
    acquired: mpsc::UnboundedReceiver<Result<Lease, QueueError>>,
    renewed: mpsc::UnboundedReceiver<Result<(), QueueError>>,
    pushed: mpsc::UnboundedReceiver<Result<(), QueueError>>,
}

fn watched(queues: &Arc<Queues>, paused: Option<(Arc<Notify>, Arc<Notify>)>) -> (Arc<Watched>, Told) {
    let (acquire, acquired) = mpsc::unbounded_channel();
    let (renew, renewed) = mpsc::unbounded_channel();
    let (push, pushed) = mpsc::unbounded_channel();
    let watched = Watched { queues: queues.clone(), acquired: acquire, renewed: renew, pushed: push, paused };
    (Arc::new(watched), Told { acquired, renewed, pushed })
}

#[async_trait]
impl DeadLetters for Watched {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<usize, QueueError> {
        self.queues.bury(letters).await
    }
}

#[async_trait]
impl DispatchQueues for Watched {
    async fn count(&self) -> Result<u16, QueueError> {
        DispatchQueues::count(&*self.queues).await
    }

    async fn acquire(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError> {
        let outcome = self.queues.acquire(queue, holder, ttl).await;
        let _ = self.acquired.send(outcome.clone());
        outcome
    }

    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<(), QueueError> {
        let outcome = self.queues.renew(lease, ttl).await;
        let _ = self.renewed.send(outcome.clone());
        outcome
    }

    async fn release(&self, lease: Lease) -> Result<(), QueueError> {
        self.queues.release(lease).await
    }

    async fn take(&self, lease: Lease, max_events: usize, wait: Duration) -> Result<Option<Taken>, QueueError> {
        self.queues.take(lease, max_events, wait).await
    }

    async fn push(&self, lease: Lease, round: Round) -> Result<(), QueueError> {
        if let Some((reached, gate)) = &self.paused {
            reached.notify_one();
            gate.notified().await;
        }
        let outcome = self.queues.push(lease, round).await;
        let _ = self.pushed.send(outcome.clone());
        outcome
    }
}

#[tokio::test]
async fn a_second_dispatcher_waits_and_takes_over_from_one_that_died() {
    let machine = Machine::new(1);
    let queues = machine.open();
    let first = start(queues.clone(), settings("first"));
    queues.append(0, None, vec![edit(0)]).await.unwrap();
    drained(&queues).await;
    first.kill().await;
    queues.append(0, None, vec![edit(1)]).await.unwrap();

    let (doors, mut told) = watched(&queues, None);
    let second = start(doors, settings("second"));
    for _ in 0..3 {
        let outcome = told.acquired.recv().await.unwrap();
        assert!(matches!(outcome, Err(QueueError::Held { .. })), "the lease of the dead one still runs: {outcome:?}");
        assert_eq!(queues.status().event_queues[0].filed, 1);
    }
    assert_eq!(second.metric("millpond_leases_held"), 0.0);
    machine.pass_ms(60_000);
    drained(&queues).await;
    assert_eq!(second.metric("millpond_leases_held"), 1.0);
    assert_filed_once(0, &[edit(0), edit(1)], &pulled(&queues).await);
    second.stop().await;
}

#[tokio::test]
async fn a_holder_that_slept_through_its_lease_files_nothing() {
    let machine = Machine::new(1);
    let queues = machine.open();
    let (reached, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (doors, mut told) = watched(&queues, Some((reached.clone(), gate.clone())));
    let sleeper = start(doors, settings("sleeper"));
    let events: Vec<_> = (0..3).map(edit).collect();
    queues.append(0, None, events.clone()).await.unwrap();
    reached.notified().await;

    machine.pass_ms(60_000);
    let other = start(queues.clone(), settings("other"));
    drained(&queues).await;
    gate.notify_one();
    let outcome = told.pushed.recv().await.unwrap();
    assert!(matches!(outcome, Err(QueueError::Fenced { .. })), "{outcome:?}");
    assert_filed_once(0, &events, &pulled(&queues).await);
    other.stop().await;
    sleeper.kill().await;
}

#[tokio::test]
async fn a_lease_is_renewed_for_as_long_as_it_is_wanted() {
    let queues = Machine::new(1).open();
    let (doors, mut told) = watched(&queues, None);
    let dispatcher = start(doors, DispatcherSettings { lease_ttl: Duration::from_secs(3), ..settings("a") });
    let lease = told.acquired.recv().await.unwrap().unwrap();
    // It comes back from waiting for events in time, again and again.
    for _ in 0..2 {
        assert_eq!(told.renewed.recv().await.unwrap(), Ok(()));
    }
    queues.append(0, None, vec![edit(0)]).await.unwrap();
    assert_eq!(told.pushed.recv().await.unwrap(), Ok(()));
    dispatcher.stop().await;
    assert!(told.acquired.try_recv().is_err(), "it never had to claim again");
    assert_eq!(queues.acquire(0, "b", LONG).await.unwrap().token, lease.token + 1);
}

#[tokio::test]
async fn a_shard_queue_that_is_full_is_waited_for() {
    let mut machine = Machine::new(1);
    machine.limits.shard_depth_max_bytes = 1;
    let queues = machine.open();
    let (doors, mut told) = watched(&queues, None);
    let dispatcher = start(doors, DispatcherSettings { max_events: 1, ..settings("a") });
    let events = [edit(0), edit(0)];
    queues.append(0, None, events.to_vec()).await.unwrap();
    assert_eq!(told.pushed.recv().await.unwrap(), Ok(()));
    for _ in 0..2 {
        assert!(matches!(told.pushed.recv().await.unwrap(), Err(QueueError::ShardFull { .. })));
    }
    let mut frames = pulled(&queues).await;
    for shard in 0..SHARDS {
        let last = queues.pull(shard, 0, 1, Duration::ZERO).await.unwrap().last;
        queues.committed(shard, "shard", last).await.unwrap();
    }
    drained(&queues).await;
    for shard in 0..SHARDS {
        let last = frames.iter().filter(|(other, _)| *other == shard).count() as u64;
        let pulled = queues.pull(shard, last, usize::MAX, Duration::ZERO).await.unwrap();
        frames.extend(pulled.frames.into_iter().map(|(_, frame)| (shard, frame)));
    }
    assert_filed_once(0, &events, &frames);
    dispatcher.stop().await;
}

#[tokio::test]
async fn a_queue_role_that_comes_and_goes_is_waited_for() {
    let queues = Machine::new(1).open();
    queues.append(0, None, vec![edit(0)]).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let dispatcher = start(Arc::new(crate::queue::QueueClient::new(address.to_string())), settings("a"));
    let serve = async || {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let (down, shutdown) = watch::channel(false);
        let api = Arc::new(crate::api::queues::QueuesApi::new(queues.clone(), &prometheus::Registry::new()).unwrap());
        (down, tokio::spawn(crate::http::serve(listener, api, shutdown)))
    };
    for n in 1..3 {
        let (down, served) = serve().await;
        drained(&queues).await;
        served.abort();
        let _ = served.await;
        drop(down);
        queues.append(0, None, vec![edit(n)]).await.unwrap();
    }
    let (_down, _served) = serve().await;
    drained(&queues).await;
    assert_filed_once(0, &(0..3).map(edit).collect::<Vec<_>>(), &pulled(&queues).await);
    dispatcher.stop().await;
}

/// Power cuts of the queue role and deaths of dispatchers, wherever they happen to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_at_any_step_lose_nothing_and_double_nothing() {
    let mut random = Random::new(3);
    let mut machine = Machine::new(2);
    let mut appended: Vec<Vec<Event<'static>>> = vec![Vec::new(), Vec::new()];
    for _ in 0..25 {
        let queues = machine.open();
        let first = start(queues.clone(), settings("first"));
        let second = start(queues.clone(), settings("second"));
        for _ in 0..1 + random.below(8) {
            let queue = random.below(2) as usize;
            let start = appended[queue].len() as u64;
            let batch: Vec<_> = (start..=start + random.below(6)).map(edit).collect();
            queues.append(queue as u16, None, batch.clone()).await.unwrap();
            appended[queue].extend(batch);
            for _ in 0..random.below(20) {
                tokio::task::yield_now().await;
            }
        }
        if random.below(3) == 0 {
            // One dies; the other goes on once its lease has run out.
            first.kill().await;
            drained_as_time_passes(&machine, &queues).await;
        } else {
            first.kill().await;
        }
        let after = machine.crash();
        second.kill().await;
        machine = after;
    }
    let queues = machine.open();
    let last = start(queues.clone(), settings("last"));
    drained(&queues).await;
    let frames = pulled(&queues).await;
    for queue in 0..2 {
        assert_filed_once(queue, &appended[usize::from(queue)], &frames);
    }
    last.stop().await;
}
