//! Every role in one process, killed again and again.

use std::thread;

use millpond_shared::clock;

use super::duration;
use super::traffic::Traffic;
use crate::harness::pipeline::{ALL, ONE_PROCESS, Pipeline};
use crate::harness::random::Random;

/// Most events between two kills.
const EVENTS_MAX: usize = 600;

#[test]
fn the_process_is_killed_again_and_again() {
    let mut random = Random::told("crash::one_process");
    let mut pipeline = Pipeline::of(&ONE_PROCESS);
    let traffic = Traffic::to(pipeline.proxy());
    let mut kills = 0;
    thread::scope(|scope| {
        let running = traffic.start(scope, &mut random);
        let began = clock::monotonic();
        while began.elapsed() < duration() {
            running.wait_for_events(random.below(EVENTS_MAX));
            traffic.proxy_ends();
            pipeline.kill9(ALL);
            pipeline.start(ALL);
            kills += 1;
        }
        running.stop();
    });
    pipeline.wait_until_applied();
    traffic.compare_all();
    println!("killed {kills} times");
}
