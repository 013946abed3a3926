//! `millpond replay-trace`: plays a trace of requests to the store that the proxy serves from, and tells how many it
//! would have answered.

mod trace;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;
use millpond_proxy::cache::{
    Cause, EvictionPolicy, Overhead, Replay, Reply, Request, StoreLayout, StoreLimits, TimeToLive,
};
use serde::Serialize;

use crate::Failure;
use trace::Trace;

#[derive(clap::Args)]
pub struct Arguments {
    /// Requests as CSV, plain or .gz, with the header time,key_hash,size[,ttl].
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// What the store may take.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    capacity: u64,
    /// How entries are chosen that must go.
    #[arg(long, value_enum, value_name = "P", default_value_t)]
    policy: Policy,
    /// Parts of the map, each with a lock of its own; rounded up to a power of two [default: as in the proxy].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    shards: Option<u16>,
    /// What is charged for an entry: all that the proxy charges, or its size alone.
    #[arg(long, value_enum, value_name = "CHARGE", default_value_t)]
    overhead: Charge,
    /// How long responses live: as the trace's column ttl says, for ever, or this many units of its time.
    #[arg(long, value_name = "trace|none|SECONDS", default_value = "trace")]
    ttl: Lives,
    /// Where chance starts.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Threads that ask; with more than one, results vary from run to run.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Policy {
    #[default]
    Gdsf,
    Lru,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Charge {
    #[default]
    Product,
    None,
}

#[derive(Clone, Copy)]
struct Lives(TimeToLive);

impl FromStr for Lives {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Lives, &'static str> {
        let lives = match text {
            "trace" => TimeToLive::Trace,
            "none" => TimeToLive::None,
            seconds => TimeToLive::Fixed(seconds.parse().map_err(|_| "give trace, none, or a whole number")?),
        };
        Ok(Lives(lives))
    }
}

/// What is printed: one JSON object on one line.
#[derive(Serialize)]
struct Report<'a> {
    trace: &'a str,
    policy: &'static str,
    capacity: u64,
    requests: u64,
    hits: u64,
    object_hit_ratio: f64,
    bytes_requested: u64,
    bytes_hit: u64,
    byte_hit_ratio: f64,
    /// Entries pushed out for room.
    evicted: u64,
    /// Requests whose response was too large to be taken in.
    rejected: u64,
    /// Entries that a request found expired, or that were taken out because they were.
    expired: u64,
    peak_bytes: u64,
    peak_entries: u64,
    /// Bytes charged beyond its size for each entry that is there in the end.
    entry_overhead_bytes: u64,
}

pub fn main(arguments: &Arguments) -> Result<(), Failure> {
    let trace = Trace::read(&arguments.trace)?;
    let policy = match arguments.policy {
        Policy::Gdsf => EvictionPolicy::Gdsf,
        Policy::Lru => EvictionPolicy::Lru,
    };
    let overhead = match arguments.overhead {
        Charge::Product => Overhead::Product,
        Charge::None => Overhead::None,
    };
    let proxy = StoreLayout::default();
    let shards = arguments.shards.map_or(proxy.shards, usize::from);
    let layout = StoreLayout { eviction: policy, shards, overhead, seed: arguments.seed };
    let replay = Replay::new(StoreLimits::with_budget(arguments.capacity), layout, trace.largest());
    let counts = Counts::default();
    let threads = usize::from(arguments.threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (replay, counts, trace) = (&replay, &counts, &trace);
            let lives = arguments.ttl.0;
            scope.spawn(move || {
                // Each thread takes its turn, so that all of them are about equally far.
                trace.requests(lives).skip(thread).step_by(threads).for_each(|request| counts.play(replay, &request));
            });
        }
    });
    let file = arguments.trace.display().to_string();
    let report = counts.report(&file, policy, arguments.capacity, &replay);
    println!("{}", serde_json::to_string(&report).map_err(Failure::from_display)?);
    Ok(())
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    hits: AtomicU64,
    rejected: AtomicU64,
    expired: AtomicU64,
    bytes_requested: AtomicU64,
    bytes_hit: AtomicU64,
    peak_bytes: AtomicU64,
    peak_entries: AtomicU64,
}

impl Counts {
    fn play(&self, replay: &Replay, request: &Request<'_>) {
        let add = |counter: &AtomicU64, number: u64| counter.fetch_add(number, Ordering::Relaxed);
        add(&self.requests, 1);
        add(&self.bytes_requested, request.size);
        let reply = replay.request(request);
        match reply {
            Reply::Hit => {
                add(&self.hits, 1);
                add(&self.bytes_hit, request.size);
            }
            Reply::Rejected => {
                add(&self.rejected, 1);
            }
            Reply::Expired => {
                add(&self.expired, 1);
            }
            Reply::Miss => {}
        }
        // Only what was taken in can be more than before.
        if matches!(reply, Reply::Miss | Reply::Expired) {
            self.peak_bytes.fetch_max(replay.bytes(), Ordering::Relaxed);
            self.peak_entries.fetch_max(replay.objects(), Ordering::Relaxed);
        }
    }

    fn report<'a>(&self, trace: &'a str, policy: EvictionPolicy, capacity: u64, replay: &Replay) -> Report<'a> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let (requests, hits) = (read(&self.requests), read(&self.hits));
        let (bytes_requested, bytes_hit) = (read(&self.bytes_requested), read(&self.bytes_hit));
        Report {
            trace,
            policy: policy.as_str(),
            capacity,
            requests,
            hits,
            object_hit_ratio: ratio(hits, requests),
            bytes_requested,
            bytes_hit,
            byte_hit_ratio: ratio(bytes_hit, bytes_requested),
            evicted: replay.evicted(Cause::Budget),
            rejected: read(&self.rejected),
            expired: read(&self.expired) + replay.evicted(Cause::Expired),
            peak_bytes: read(&self.peak_bytes),
            peak_entries: read(&self.peak_entries),
            entry_overhead_bytes: replay.overhead_bytes(),
        }
    }
}
