//! What applying costs: `cargo bench -p millpond-origin --bench apply [-- EVENTS [KEYS] [KIND…]]`.
//!
//! A shard pulls ready frames of 1,000 events of about 200 bytes, over keys of which few are frequent (Zipf), into a feed
//! of 50 items, a counter, or a group; or, as `home`, events that tell 1,000 home feeds of an item each, every delivery
//! counted as an event. Told is the processor time of the whole process for each event, which other
//! programs on the machine do not change much: parsing alone, the whole and as much of it as the kind asks for; applying
//! alone; and applying beside the flusher with the default settings; and how long, by the clock, pulling was held up at
//! most while the flusher wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_origin::projection::{Item, News, Told};
use millpond_origin::queue::{DeadLetter, DeadLetters, EventQueues, Fate, Pulled, QueueError, ShardQueues};
use millpond_origin::shard::{Opening, Shard, ShardMetrics, ShardSettings};
use millpond_origin::store::Place;
use millpond_shared::clock;
use millpond_shared::config::{At, Complaints, Source};
use millpond_shared::event::{Event, View};
use millpond_shared::projection::{Projection, WrittenProjection, judge};
use millpond_shared::splitmix::SplitMix64;
use millpond_shared::version::{Position, QueueId, ShardId};
use millpond_shared::wanted::Wanted;
use millpond_shared::wire::{FiledEvent, ShardFrame};
use parking_lot::Mutex;
use prometheus::Registry;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

/// As in the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: usize = 1_000_000;
const KEYS: usize = 10_000;
const FRAME_EVENTS: usize = 1_000;
/// Name of the projection.
const NAME: &str = "edits";

/// What each kind is declared with.
const KINDS: [(&str, &str); 3] = [
    (
        "feed",
        r#"
            keep = 50
            item = { id = "{id}", title = "{data.page}", content_text = "{data.comment}", date_published = "{time}" }
        "#,
    ),
    (
        "counter",
        r#"
            count = true
            sum = ["data.delta"]
            windows = [{ every = "1m", keep = "3h" }, { every = "all" }]
        "#,
    ),
    (
        "group",
        r#"
            count = true
            by = ["data.page"]
            windows = [{ every = "1h", keep = "7d" }, { every = "all" }]
        "#,
    ),
];

/// A home feed, and what it is made of.
const HOME: &str = r#"
    [[projection]]
    name = "posts"
    kind = "feed"
    key = "{data.user}"
    item = { id = "{id}" }
    [[projection.output]]
    path = "/posts/{key}"
    format = "json"
    [[projection]]
    name = "follows"
    kind = "edges"
    key = "{data.user}"
    to = "{data.whom}"
    item = { id = "{id}" }
    [[projection.output]]
    path = "/follows/{key}"
    format = "json"
    [[projection]]
    name = "home"
    kind = "home"
    feed = "posts"
    edges = "follows"
    [[projection.output]]
    path = "/home/{key}"
    format = "json"
"#;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (events, keys) = (numbers.next().unwrap_or(EVENTS), numbers.next().unwrap_or(KEYS));
    let frames = frames(events, keys);
    let bytes: usize = frames.iter().map(Bytes::len).sum();
    println!("{events} events over {keys} keys, {} bytes each in their frames", bytes / events);
    let parsing = parsed(&frames, |event| drop(View::new(event).expect("JSON")));
    tell("parsing alone", events, parsing, parsing);
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let none_asked = !asked.iter().any(|asked| asked == "home" || KINDS.iter().any(|(kind, _)| asked == kind));
    for (kind, declaration) in KINDS {
        if none_asked || asked.iter().any(|asked| asked == kind) {
            println!("{kind}:");
            of_kind(projections(&one(kind, declaration)), &frames, events, parsing);
        }
    }
    if none_asked || asked.iter().any(|asked| asked == "home") {
        let (projections, frames) = (projections(HOME), home_frames(events, keys));
        println!("home:");
        of_kind(projections, &frames, events, parsing);
    }
}

fn of_kind(projections: Vec<Projection>, frames: &[Bytes], events: usize, parsing: Duration) {
    let wanted = Wanted::of(projections.iter().flat_map(Projection::paths));
    let reading = parsed(frames, |event| drop(View::of(event, &wanted).expect("JSON")));
    tell("  parsing what it asks for", events, reading, parsing);
    let projections = Arc::new(projections);
    let never = ShardSettings {
        flush_every: Duration::from_secs(3600),
        flush_bytes: u64::MAX,
        flush_events: u64::MAX,
        uncommitted_events: u64::MAX,
        memory: u64::MAX,
        ..ShardSettings::default()
    };
    for (what, settings) in [("  applying", never), ("  applying and writing behind", ShardSettings::default())] {
        let queue = Arc::new(Ready::new(frames.to_vec()));
        let dir = tempfile::tempdir().expect("a folder");
        let opening = Opening {
            shard: 0,
            map_version: 1,
            projections: projections.clone(),
            place: Place::File(dir.path().join("shard-0.redb")),
            queues: queue.clone(),
            events: Some(queue.clone()),
            settings,
            attached: Vec::new(),
        };
        let shard = Shard::open(opening, &ShardMetrics::register(&Registry::new()).expect("metrics")).expect("opened");
        let took = measured(|| run(&shard, frames.len() as Position));
        tell(what, events, took, parsing);
        println!("    pulling was held up for {:?} at most", Duration::from_micros(queue.gap.load(Ordering::Relaxed)));
    }
}

/// Processor time that decoding the frames and reading their events takes.
fn parsed(frames: &[Bytes], read: impl Fn(&Event<'_>)) -> Duration {
    measured(|| {
        for frame in frames {
            ShardFrame::decode(frame).expect("a frame").events.iter().for_each(|filed| read(&filed.event));
        }
    })
}

/// Runs the shard until it has applied `last`. What is not on disk by then is not waited for.
fn run(shard: &Arc<Shard>, last: Position) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (_stop, stopped) = watch::channel(false);
        let running = tokio::spawn({
            let shard = shard.clone();
            async move { shard.run(stopped).await }
        });
        shard.applied().wait_for(|applied| *applied == last).await.expect("applied");
        running.abort();
    });
}

/// Processor time that `work` took, on all threads.
fn measured(work: impl FnOnce()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let before = now();
    work();
    now() - before
}

fn tell(what: &str, events: usize, took: Duration, parsing: Duration) {
    let each = took.as_secs_f64() * 1e6 / events as f64;
    let rate = events as f64 / took.as_secs_f64() / 1e3;
    let ratio = took.as_secs_f64() / parsing.as_secs_f64();
    println!("{what}: {each:.2} µs an event, {rate:.0} k events/s of one core, {ratio:.1} × parsing");
}

/// The declaration of one projection.
fn one(kind: &str, declaration: &str) -> String {
    format!(
        r#"
            [[projection]]
            name = "{NAME}"
            kind = "{kind}"
            key = "{{data.user}}"
            {declaration}
            [[projection.output]]
            path = "/users/{{key}}"
            format = "json"
        "#
    )
}

fn projections(text: &str) -> Vec<Projection> {
    #[derive(Default, serde::Deserialize)]
    struct Written {
        projection: Vec<At<WrittenProjection>>,
    }
    let (mut source, mut complaints) = (Source::default(), Complaints::default());
    let written: Written = source.read("bench.toml", text, &mut complaints);
    let projections = judge(&written.projection, &|_| Err(Default::default()), &mut complaints);
    assert!(complaints.is_empty(), "{}", complaints.in_words(&source));
    projections
}

fn frames(events: usize, keys: usize) -> Vec<Bytes> {
    let zipf = Zipf::new(keys);
    let mut random = SplitMix64::new(1);
    let mut made = 0;
    let mut frames = Vec::new();
    while made < events {
        let count = FRAME_EVENTS.min(events - made);
        let filed = (made..made + count).map(|n| {
            let user = format!("user-{}", zipf.pick(&mut random));
            let event = Event {
                id: format!("{n:012}").into(),
                source: "wiki".into(),
                kind: "edit".into(),
                subject: None,
                time: 1_442_016_000_000_000_000 + n as i64 * 1_000_000,
                received: 1_442_016_000_000 + n as u64,
                data: data(&user, n).into(),
            };
            FiledEvent { offset: n as u64 + 1, routes: vec![(0, user.into())], event }
        });
        let frame = ShardFrame {
            queue: 0,
            first: made as u64 + 1,
            last: (made + count) as u64,
            epoch: 1,
            map_version: 1,
            projections: vec![NAME.into()],
            events: filed.collect(),
        };
        frames.push(frame.encode().into());
        made += count;
    }
    frames
}

/// Every key follows one feed; then the feed tells its items, each to the next 1,000 keys.
fn home_frames(deliveries: usize, keys: usize) -> Vec<Bytes> {
    let key = |n: usize| format!("user-{}", n % keys);
    let event = |n: usize, data: String| Event {
        id: format!("{n:012}").into(),
        source: "wiki".into(),
        kind: "edit".into(),
        subject: None,
        time: 1_442_016_000_000_000_000 + n as i64,
        received: 1_442_016_000_000,
        data: data.into(),
    };
    let follow = |n: usize| FiledEvent {
        offset: n as u64 + 1,
        routes: vec![(0, key(n).into())],
        event: event(n, format!(r#"{{"user":"{}","whom":"feed"}}"#, key(n))),
    };
    let news = |n: usize| {
        let body = format!(
            r#"{{"id":"{n:012}","title":"Page {n}","content_text":"changed what stood there before, number {n}"}}"#
        );
        let item = Item::new(n as i64, &format!("{n:012}"), &body);
        let told = Told::News(News { feed: "feed".into(), items: [Arc::new(item)].into() });
        let routes = (n * FRAME_EVENTS..(n + 1) * FRAME_EVENTS).map(|n| (0, key(n).into())).collect();
        FiledEvent { offset: (keys + n) as u64 + 1, routes, event: told.event("home", &[], 1_442_016_000_000) }
    };
    let frame = |events: Vec<FiledEvent<'_>>| {
        let (first, last) = (events[0].offset, events[events.len() - 1].offset);
        let projections = vec!["home".into()];
        Bytes::from(ShardFrame { queue: 0, first, last, epoch: 1, map_version: 1, projections, events }.encode())
    };
    let follows: Vec<usize> = (0..keys).collect();
    let follows = follows.chunks(FRAME_EVENTS).map(|numbers| frame(numbers.iter().map(|n| follow(*n)).collect()));
    follows.chain((0..deliveries / FRAME_EVENTS).map(|n| frame(vec![news(n)]))).collect()
}

fn data(user: &str, n: usize) -> String {
    let (page, comment) = (format!("Page {}", n % 5_003), format!("changed what stood there before, number {n}"));
    format!(
        r##"{{"channel":"#en.wikipedia","comment":"{comment}","delta":{},"isRobot":false,"page":"{page}","user":"{user}"}}"##,
        n % 977
    )
}

/// Whole numbers below a bound, `n` as often as 1/(n + 1).
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(bound: usize) -> Zipf {
        let mut sum = 0.0;
        let sums = (1..=bound).map(|n| {
            sum += 1.0 / n as f64;
            sum
        });
        Zipf(sums.collect())
    }

    fn pick(&self, random: &mut SplitMix64) -> usize {
        let at = random.fraction() * self.0.last().copied().unwrap_or(0.0);
        self.0.partition_point(|sum| *sum < at)
    }
}

/// A shard queue that has everything already, and notes how long it was not pulled.
struct Ready {
    frames: Vec<Bytes>,
    pulled: Mutex<Option<Instant>>,
    /// Longest time between two pulls, in microseconds.
    gap: AtomicU64,
}

impl Ready {
    fn new(frames: Vec<Bytes>) -> Ready {
        Ready { frames, pulled: Mutex::new(None), gap: AtomicU64::new(0) }
    }
}

#[async_trait]
impl DeadLetters for Ready {
    /// Every event of these frames can be applied.
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<usize, QueueError> {
        Ok(letters.len())
    }
}

#[async_trait]
impl EventQueues for Ready {
    async fn count(&self) -> Result<u16, QueueError> {
        Ok(1)
    }

    /// Nobody reads it.
    async fn append(
        &self,
        _: QueueId,
        _: Option<Duration>,
        events: Vec<Event<'static>>,
    ) -> Result<Vec<Fate>, QueueError> {
        Ok(vec![Fate::Duplicate; events.len()])
    }
}

#[async_trait]
impl ShardQueues for Ready {
    async fn pull(&self, _: ShardId, after: Position, max: usize, wait: Duration) -> Result<Pulled, QueueError> {
        let now = clock::monotonic();
        if let Some(before) = self.pulled.lock().replace(now) {
            let gap = u64::try_from((now - before).as_micros()).unwrap_or(u64::MAX);
            self.gap.fetch_max(gap, Ordering::Relaxed);
        }
        let last = self.frames.len() as Position;
        if after == last {
            tokio::time::sleep(wait).await;
        }
        let mut bytes = 0;
        let within = |(_, frame): &(Position, Bytes)| {
            bytes += frame.len();
            bytes <= max
        };
        let behind = (after + 1..).zip(self.frames.iter().skip(after as usize).cloned());
        Ok(Pulled { frames: behind.take_while(within).collect(), last, events_after: 0 })
    }

    async fn newest(&self, _: ShardId) -> Result<Position, QueueError> {
        Ok(self.frames.len() as Position)
    }

    async fn committed(&self, _: ShardId, _: &str, _: Position) -> Result<(), QueueError> {
        Ok(())
    }
}
