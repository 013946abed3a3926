//! Slots move between shards while events flow, and whoever has a part in it is killed.

use std::net::SocketAddr;
use std::thread;

use millpond_shared::clock;
use millpond_shared::version::ShardId;
use serde_json::Value;

use super::duration;
use super::several_processes::{SHORT_LEASE, SHORT_LEASE_ON_NATS};
use super::spare::WITH_SPARE;
use super::traffic::Traffic;
use crate::harness::client::{Client, Request};
use crate::harness::eventually;
use crate::harness::pipeline::{
    DISPATCHER, DISPATCHER_ON_NATS, INGEST_ON_NATS, NATS, ON_NATS, PROXY, Part, Pipeline, QUEUE, SEVERAL_PROCESSES,
    SHARD_A, SHARD_A_ON_NATS, SHARD_B, SHARD_B_ON_NATS, SPARE,
};
use crate::harness::random::Random;

/// Most events between the beginning of a move and a kill.
const EVENTS_MAX: usize = 150;
/// Shards of the two shard servers.
const OF_A: [ShardId; 2] = [0, 1];
const OF_B: [ShardId; 2] = [2, 3];

#[test]
fn slots_move_while_roles_are_killed() {
    let pipeline = Pipeline::prepared(&[&WITH_SPARE[..], &[SHORT_LEASE]].concat());
    let parts = [&SEVERAL_PROCESSES[..], &[SPARE]].concat();
    they_move("crash::moves", pipeline, &parts, QUEUE, &[QUEUE, DISPATCHER, SHARD_A, SHARD_B, SPARE, PROXY]);
}

#[test]
fn slots_move_on_nats_while_roles_are_killed() {
    let pipeline = Pipeline::replacing(&[SHORT_LEASE_ON_NATS]);
    let killed = [NATS, DISPATCHER_ON_NATS, SHARD_A_ON_NATS, SHARD_B_ON_NATS, PROXY];
    they_move("crash::moves_on_nats", pipeline, &ON_NATS, INGEST_ON_NATS, &killed);
}

/// `desk`: the part that is asked to move slots.
fn they_move(name: &str, mut pipeline: Pipeline, parts: &[Part], desk: Part, killed: &[Part]) {
    let mut random = Random::told(name);
    parts.iter().for_each(|part| pipeline.start(*part));
    let traffic = Traffic::to(pipeline.proxy());
    let mut moves = 0;
    thread::scope(|scope| {
        let running = traffic.start(scope, &mut random);
        running.wait_for_events(EVENTS_MAX);
        let began = clock::monotonic();
        while began.elapsed() < duration() {
            let (givers, takers) = if moves % 2 == 0 { (OF_A, OF_B) } else { (OF_B, OF_A) };
            begin(pipeline.address(desk, "admin"), givers[random.below(2)], takers[random.below(2)]);
            // Sometimes the move is over by then.
            running.wait_for_events(random.below(EVENTS_MAX));
            let part = killed[random.below(killed.len())];
            if part == PROXY {
                traffic.proxy_ends();
            }
            pipeline.kill9(part);
            pipeline.start(part);
            wait_for_the_end(pipeline.address(desk, "admin"));
            moves += 1;
        }
        running.stop();
    });
    pipeline.wait_until_applied();
    traffic.compare_all();
    println!("{moves} moves");
    let owners = map(pipeline.address(desk, "admin")).expect("a map")["map"]["owners"].to_string();
    assert_ne!(owners, "[[256,0,0],[256,1,0],[256,2,0],[256,3,0]]", "they have moved");
}

/// Begins to move half of the slots of a shard, as soon as the desk, an admin socket, takes it.
pub fn begin(desk: SocketAddr, from: ShardId, to: ShardId) {
    let state = eventually("a shard map", || map(desk));
    let (mut slot, mut owned) = (0, Vec::new());
    for run in state["map"]["owners"].as_array().expect("runs") {
        let count = run[0].as_u64().expect("a number");
        if run[1] == from {
            owned.extend(slot..slot + count);
        }
        slot += count;
    }
    let half: Vec<String> = owned.iter().take(owned.len().div_ceil(2)).map(u64::to_string).collect();
    let request = Request::post(&format!("/_millpond/queues/map/move?slots={}&to={to}", half.join(",")), "");
    eventually("the move to begin", || {
        let answer = Client::of(desk).try_ask(&request).map_err(|error| error.to_string())?;
        match answer.status() {
            // Its answer may have been lost.
            200 => Ok(()),
            409 if answer.text().contains("are moving") || answer.text().contains("already") => Ok(()),
            _ => Err(answer.text()),
        }
    });
}

/// Waits until nothing moves.
pub fn wait_for_the_end(desk: SocketAddr) {
    eventually("the end of the move", || match map(desk)? {
        state if state["moving"].is_null() => Ok(()),
        state => Err(state["moving"].to_string()),
    });
}

fn map(desk: SocketAddr) -> Result<Value, String> {
    let answer = Client::of(desk).try_ask(&Request::get("/_millpond/queues/map")).map_err(|error| error.to_string())?;
    if answer.status() == 200 { Ok(answer.json()) } else { Err(answer.text()) }
}
