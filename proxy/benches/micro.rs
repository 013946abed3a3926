//! Micro benchmarks of what a hit consists of: `cargo bench -p millpond-proxy --bench micro [NAME]`.
//!
//! `store/…` ends with how much more two threads do than one, in rounds that alternate, since machines drift; by the
//! clock, which needs two idle cores, and by the processor time that the threads took, which leaves out what others did.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, criterion_group, criterion_main};
use http::StatusCode;
use millpond_proxy::cache::{Entry, EvictionPolicy, Store, StoreLayout, StoreLimits};
use millpond_proxy::key::{Key, KeyRef};
use millpond_proxy::limits::{ClientId, Limit, Limiter, Per};
use millpond_proxy::rules::Rule;
use millpond_proxy::semantics::coding::{Accepted, Coding};
use millpond_proxy::semantics::freshness::Times;
use millpond_proxy::semantics::vary::Selection;
use millpond_shared::clock;
use millpond_shared::http1::{Fields, Limits, take_request};

/// As in the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY_BYTES: usize = 2048;
/// Keys that are asked for, and how many of them fit.
const KEYS: usize = 150_000;
const STORED: usize = 100_000;
/// One request of this many brings a response in, in place of the stored one, or in place of another one.
const ONE_INSERT_IN: usize = 20;
const ZIPF_EXPONENT: f64 = 0.99;

const HEAD: &[u8] =
    b"GET /users/000001/feed.json?page=2 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: wrk/4.1.0\r\n\
Accept: application/json\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\n\r\n";

fn rule() -> Rule {
    Rule::everything("feeds", "api")
}

fn keys(count: usize) -> Vec<Key> {
    let rule = rule();
    (0..count).map(|id| Key::build(&rule, "http", "www.example.com", &format!("/feed/{id:06}.json"))).collect()
}

fn stored_fields() -> Fields {
    [
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Content-Type", "application/json"),
        ("Cache-Control", "public, max-age=600"),
        ("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT"),
        ("ETag", "\"5f3c2a1b-800\""),
    ]
    .into_iter()
    .collect()
}

fn entry(fields: &Fields) -> Arc<Entry> {
    let times = Times { lifetime: 600, ..Times::default() };
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    Arc::new(Entry::new(StatusCode::OK, fields.clone(), body, times, Selection::NONE, Vec::new(), None))
}

/// A store that holds about [`STORED`] of the keys.
struct Scene {
    store: Store,
    keys: Vec<Key>,
    asked: Vec<u32>,
    nothing: Fields,
    fields: Fields,
    next: AtomicUsize,
}

impl Scene {
    fn new(eviction: EvictionPolicy) -> Scene {
        let (keys, fields) = (keys(KEYS), stored_fields());
        let sample = Store::new(StoreLimits::with_budget(1 << 20));
        for key in keys.iter().take(1) {
            sample.admit(key, entry(&fields), sample.purge_seq(), || false);
        }
        let limits = StoreLimits::with_budget(sample.bytes() * STORED as u64);
        let store = Store::build(limits, StoreLayout { eviction, seed: 1, ..StoreLayout::default() });
        for key in keys.iter().rev() {
            store.admit(key, entry(&fields), store.purge_seq(), || false);
        }
        Scene { store, keys, asked: zipf(1 << 20), nothing: Fields::default(), fields, next: AtomicUsize::new(0) }
    }

    /// Each of so many threads sends so many requests.
    fn run(&self, threads: usize, requests: u64) -> Took {
        let began = clock::monotonic();
        let own = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|_| {
                    let start = self.next.fetch_add(self.asked.len() / 7, Ordering::Relaxed);
                    scope.spawn(move || {
                        self.ask(start, requests);
                        thread_time()
                    })
                })
                .collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).sum::<Duration>()
        });
        Took { wall: began.elapsed(), own: own / threads as u32 }
    }

    fn ask(&self, start: usize, requests: u64) {
        let asked = self.asked.iter().cycle().skip(start % self.asked.len());
        for (number, id) in asked.take(requests as usize).enumerate() {
            let Some(key) = self.keys.get(*id as usize) else { return };
            if number % ONE_INSERT_IN == 0 {
                self.store.admit(key, entry(&self.fields), self.store.purge_seq(), || false);
            } else {
                let key = KeyRef::new(key.as_str());
                black_box(self.store.read(key, &self.nothing, |entry| entry.body.len() + entry.head.len()));
            }
        }
    }
}

/// How long some requests took.
struct Took {
    wall: Duration,
    /// Mean of the threads' own processor time.
    own: Duration,
}

/// Processor time of this thread so far; nothing where Linux does not tell.
fn thread_time() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = told.split_whitespace().next().and_then(|digits| digits.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Ids by a zipf law, in no order.
fn zipf(count: usize) -> Vec<u32> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=KEYS)
        .map(|rank| {
            sum += (rank as f64).powf(-ZIPF_EXPONENT);
            sum
        })
        .collect();
    let mut state = 1_u64;
    let mut chance = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let spread = |rank: usize| (rank as u64 * 7_919 % KEYS as u64) as u32;
    (0..count)
        .map(|_| {
            let at = chance() * sum;
            spread(sums.partition_point(|below| *below < at))
        })
        .collect()
}

fn store(criterion: &mut Criterion) {
    for eviction in EvictionPolicy::ALL {
        let scene = Scene::new(eviction);
        let name = eviction.as_str();
        let mut group = criterion.benchmark_group("store");
        for threads in [1, 2] {
            group.bench_function(format!("{name}/zipf, 5 % inserts, {threads} threads"), |bencher| {
                bencher.iter_custom(|requests| scene.run(threads, requests).wall);
            });
        }
        group.finish();
        const REQUESTS: u32 = 400_000;
        let round = || (scene.run(1, REQUESTS.into()), scene.run(2, REQUESTS.into()));
        let rounds: Vec<(Took, Took)> = (0..9).map(|_| round()).collect();
        let more = |time: fn(&Took) -> Duration| {
            let ratio = |(one, two): &(Took, Took)| 2.0 * time(one).as_secs_f64() / time(two).as_secs_f64();
            let mut ratios: Vec<f64> = rounds.iter().map(ratio).collect();
            ratios.sort_by(f64::total_cmp);
            format!("{:.2} ({ratios:.2?})", ratios.get(ratios.len() / 2).unwrap_or(&0.0))
        };
        println!("store/{name}, how much more two threads do than one, median (and all rounds):");
        println!("  by the clock: {}", more(|took| took.wall));
        println!("  by their own time: {}", more(|took| took.own));
        let each: Vec<_> = rounds.iter().map(|(one, two)| (one.own / REQUESTS, two.own / REQUESTS)).collect();
        println!("  own time of a request, one and two threads: {each:?}\n");
    }
}

fn insert(criterion: &mut Criterion) {
    let (keys, fields) = (keys(1 << 20), stored_fields());
    let store = Store::new(StoreLimits::with_budget(64 << 20));
    let mut at = 0;
    criterion.bench_function("store/insert that evicts", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % keys.len();
            keys.get(at).is_some_and(|key| store.admit(key, entry(&fields), store.purge_seq(), || false))
        });
    });
}

fn parts(criterion: &mut Criterion) {
    let (rule, limits) = (rule(), Limits::default());
    criterion.bench_function("parse a request", |bencher| {
        bencher.iter(|| take_request(&mut BytesMut::from(HEAD), &limits).is_ok());
    });
    let request = take_request(&mut BytesMut::from(HEAD), &limits).ok().flatten();
    if let Some(request) = request {
        criterion.bench_function("build a key, and hash it", |bencher| {
            bencher.iter(|| Key::of(&rule, black_box(&request), "http").hash());
        });
        // What a hit costs more where its rule compresses.
        criterion.bench_function("choose a content coding", |bencher| {
            bencher.iter(|| Accepted::of(black_box(&request.fields)).preferred(&Coding::ALL).next());
        });
    }
    let fields = stored_fields();
    criterion
        .bench_function("make an entry of 2 KB, with its head serialised", |bencher| bencher.iter(|| entry(&fields)));
}

/// What a limit costs: a hit that counts, and a request that also counts as running, each of one client and of many.
fn limits(criterion: &mut Criterion) {
    let client = |number: u32| ClientId::of(Some(Ipv4Addr::from_bits(number).into()));
    for (name, clients) in [("one client", 1), ("100,000 clients", 100_000)] {
        let limit = Limit { rate: "1000000/s".parse().ok(), concurrent: Some(1000), per: Per::Client, hits: true };
        let limiter = Arc::new(Limiter::new(limit));
        let mut numbers = (0..clients).cycle();
        let mut next = || client(numbers.next().unwrap_or_default());
        criterion.bench_function(&format!("limits/hit, {name}"), |bencher| {
            bencher.iter(|| black_box(limiter.admits_hit(next(), clock::monotonic_ns())));
        });
        criterion.bench_function(&format!("limits/request, {name}"), |bencher| {
            bencher.iter(|| drop(black_box(limiter.enter(next(), clock::monotonic_ns()))));
        });
    }
}

criterion_group! {
    name = micro;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1));
    targets = parts, limits, insert, store
}
criterion_main!(micro);
