//! `kill -9` while events are posted and documents are read: what was acknowledged is in its documents afterwards, once.
//!
//! A killed process keeps what the kernel has of its files; that a 202 waits for the disk itself is shown where a disk
//! can be made to forget, in `origin/src/queue/crashes.rs`.
//!
//! `SEED=…` brings back the choices of a run (not the moments, which the machine's scheduling has a share in);
//! `MILLPOND_CRASH_SECONDS` makes each test that kills again and again go on for so long.

mod leases;
pub mod moves;
mod newcomer;
mod one_process;
pub mod several_processes;
pub mod spare;
pub mod traffic;

use std::time::Duration;

/// How long to go on killing.
fn duration() -> Duration {
    let seconds = std::env::var("MILLPOND_CRASH_SECONDS").ok().map(|text| text.parse().expect("whole seconds"));
    Duration::from_secs(seconds.unwrap_or(20))
}
