//! A primary is killed while its spare goes on; a shard that has lost its file starts from a copy of the other's.

use std::thread;

use super::several_processes::SHORT_LEASE;
use super::traffic::{Running, Traffic};
use crate::harness::eventually;
use crate::harness::pipeline::{Part, Pipeline, SEVERAL_PROCESSES, SHARD_A, SPARE};
use crate::harness::random::Random;

/// The spare is in the shard map; each copies from the other.
pub const WITH_SPARE: [(&str, &str); 2] = [
    ("  \"127.0.0.1:7102\" = [2, 3]", "  \"127.0.0.1:7103\" = [0, 1]"),
    ("listen = \"127.0.0.1:7101\"", "copy_from = \"127.0.0.1:7103\""),
];

/// Events before anything is killed, and between two kills.
const EVENTS: usize = 600;
/// Reads that are watched after each kill.
const READS: usize = 1_500;

#[test]
fn a_spare_answers_at_once_for_a_primary_that_is_killed_and_gives_it_its_documents_back() {
    let mut random = Random::told("crash::spare");
    let mut pipeline = Pipeline::prepared(&[&WITH_SPARE[..], &[SHORT_LEASE]].concat());
    SEVERAL_PROCESSES.iter().for_each(|part| pipeline.start(*part));
    let traffic = Traffic::to(pipeline.proxy());
    thread::scope(|scope| {
        let running = traffic.start(scope, &mut random);
        running.wait_for_events(EVENTS);
        committed(&pipeline, SHARD_A);
        pipeline.start(SPARE);
        pipeline.log(SPARE).wait_for_line("copied");
        reaches(&pipeline, SPARE, SHARD_A);
        kill(&mut pipeline, SHARD_A, &traffic, &running);

        // The primary has lost its files.
        for shard in [0, 1] {
            std::fs::remove_file(pipeline.data().join(format!("shards/shard-{shard}.redb"))).expect("it was there");
        }
        committed(&pipeline, SPARE);
        pipeline.start(SHARD_A);
        pipeline.log(SHARD_A).wait_for_line("copied");
        running.wait_for_events(EVENTS);
        reaches(&pipeline, SHARD_A, SPARE);
        kill(&mut pipeline, SPARE, &traffic, &running);
        running.stop();
    });
    // What it has not committed, the queue keeps for it.
    pipeline.start(SPARE);
    pipeline.wait_until_applied();
    traffic.compare_all();
}

/// Kills a replica while the other goes on; no reader may see more of it than that an answer took a little longer. How
/// much longer depends on what else the machine does: it is told here, and measured by `benches/switch/p99.sh`.
fn kill(pipeline: &mut Pipeline, part: Part, traffic: &Traffic, running: &Running<'_>) {
    traffic.take_watched();
    pipeline.kill9(part);
    running.wait_for_reads(READS);
    let mut watched = traffic.take_watched();
    assert!(watched.failed.is_empty(), "{} died: {:#?}", part.file, watched.failed);
    watched.took.sort_unstable();
    let p99 = watched.took[watched.took.len() * 99 / 100];
    println!("{} died: {} reads, p99 {p99:?}, longest {:?}", part.file, watched.took.len(), watched.took.last());
}

/// Waits until both shards of a process have something on disk.
fn committed(pipeline: &Pipeline, part: Part) {
    eventually("something to be on disk", || {
        let metrics = pipeline.metrics(part);
        let committed: Vec<f64> = metrics.all("millpond_shard_committed").map(|sample| sample.value).collect();
        if committed.len() == 2 && committed.iter().all(|at| *at > 0.0) {
            Ok(())
        } else {
            Err(format!("{committed:?}"))
        }
    });
}

/// Waits until one has come as far as the other was.
fn reaches(pipeline: &Pipeline, part: Part, other: Part) {
    let sum = |part: Part| pipeline.metrics(part).sum("millpond_shard_version", &[]);
    let far = sum(other);
    eventually("it to have caught up", || {
        let now = sum(part);
        if now >= far { Ok(()) } else { Err(format!("{now} of {far}")) }
    });
}
