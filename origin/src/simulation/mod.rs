//! The whole pipeline in one thread: queues, leases, dispatchers and shards as they are, under one seed and one clock.
//!
//! Nothing of the pipeline is copied or mocked. What it asks of the world is given to it by the simulation: the time and
//! timers (`timing`), threads for what blocks (`blocking`), the turns of the queues' writers, disks (`store::forgetful`)
//! and the wires between processes. As in FoundationDB ("FoundationDB: A Distributed Unbundled Transactional Key Value
//! Store", SIGMOD 2021, §4) and TigerBeetle, a seed gives a whole history: who goes on next, how late a call comes, who is
//! killed, put to sleep, cut off, or finds its disk full.
//!
//! | file | what it holds |
//! |---|---|
//! | `scheduler` | the one thread: tasks of processes, polled in an order that the seed gives; the one clock |
//! | `wire` | calls between processes: late, lost, done without a word |
//! | `pond` | the processes, and how each starts, dies and starts again |
//! | `traffic`, `moves` | producers; an operator who moves slots between shards |
//! | `reading`, `watcher`, `follower` | documents as clients ask for them; readers and followers, for whom no version may go back |
//! | `history` | what befalls a pond, and what must hold afterwards |
//! | `tally` | how often each kind of it has happened |
//! | `model`, `filed`, `ledger` | what documents must be; what queues must hold; what was seen on the way |

mod filed;
mod follower;
mod history;
mod ledger;
mod model;
mod moves;
mod pond;
mod reading;
mod scheduler;
mod tally;
mod traffic;
mod watcher;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub use self::scheduler::{Simulation, Turns};
pub use self::tally::Befell;
use self::tally::Tally;

/// How many histories are run unless `HISTORIES` in the environment is another number: `make test` runs 10,000.
const HISTORIES: u64 = 300;

/// Tells which seed it was if its history fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={0} fails: `SEED={0} cargo sim whatever_befalls -- --nocapture` tells it again", self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn whatever_befalls_a_pond_nothing_is_lost_doubled_or_seen_going_back() {
    if let Some(seed) = number("SEED") {
        let _told = Told(seed);
        println!("{}", history::run(seed).tally);
        return;
    }
    let (next, last) = (AtomicU64::new(1), number("HISTORIES").unwrap_or(HISTORIES));
    let tally = Mutex::<Tally>::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    let told = Told(seed);
                    let ran = history::run(seed);
                    tally.lock().add(&ran.tally);
                    drop(told);
                }
            });
        }
    });
    let tally = tally.into_inner();
    println!("{last} histories, in which there were\n{tally}");
    assert!(last < HISTORIES || tally.never().is_empty(), "none of {last} histories had {:?}", tally.never());
}

#[test]
fn a_seed_gives_the_same_history_again() {
    for seed in 1..=5 {
        let _told = Told(seed);
        assert_eq!(history::run(seed), history::run(seed));
    }
    assert_ne!(history::run(1), history::run(2));
}
