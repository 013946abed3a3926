//! Two dispatchers, of which one is stopped beyond the end of its leases and then goes on as if nothing had happened.

use std::thread;

use super::several_processes::SHORT_LEASE;
use super::traffic::Traffic;
use crate::harness::eventually;
use crate::harness::pipeline::{DISPATCHER, DISPATCHER_2, Part, Pipeline, SEVERAL_PROCESSES};
use crate::harness::random::Random;

/// Event queues of the examples: what there is to hold.
const EVENT_QUEUES: f64 = 4.0;
const ROUNDS: usize = 4;

#[test]
fn a_dispatcher_that_slept_through_its_leases_files_nothing_twice() {
    let mut random = Random::told("crash::leases");
    let mut pipeline = Pipeline::prepared(&[SHORT_LEASE]);
    SEVERAL_PROCESSES.iter().chain([&DISPATCHER_2]).for_each(|part| pipeline.start(*part));
    let traffic = Traffic::to(pipeline.proxy());
    let held = |part: Part| pipeline.metrics(part).sum("millpond_leases_held", &[]);
    eventually("all event queues to be held", || match held(DISPATCHER) + held(DISPATCHER_2) {
        EVENT_QUEUES => Ok(()),
        other => Err(other.to_string()),
    });
    thread::scope(|scope| {
        let running = traffic.start(scope, &mut random);
        for _ in 0..ROUNDS {
            // The one that has more to lose.
            let (sleeper, other) = if held(DISPATCHER) >= held(DISPATCHER_2) {
                (DISPATCHER, DISPATCHER_2)
            } else {
                (DISPATCHER_2, DISPATCHER)
            };
            running.wait_for_events(random.below(400));
            pipeline.signal(sleeper, "STOP");
            eventually("the other one to hold everything", || match held(other) {
                EVENT_QUEUES => Ok(()),
                held => Err(held.to_string()),
            });
            running.wait_for_events(random.below(400));
            pipeline.signal(sleeper, "CONT");
            // It learns that it holds nothing any more, and works on whatever it can claim.
            eventually("nothing to be held twice", || match held(sleeper) + held(other) {
                EVENT_QUEUES => Ok(()),
                held => Err(held.to_string()),
            });
            running.wait_for_events(random.below(400));
        }
        running.stop();
    });
    pipeline.wait_until_applied();
    traffic.compare_all();
    assert_eq!(pipeline.sum("millpond_shard_unapplied_events_total"), 0.0, "nothing was filed twice");
    assert_eq!(pipeline.sum("millpond_shard_applied_events_total"), traffic.filings() as f64);
}
