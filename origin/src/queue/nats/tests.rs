//! What only NATS can do to the queues: other servers, other processes, and servers that go away.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::stream::{Config, StorageType};
use bytes::Bytes;
use millpond_shared::shard_map::{Final, FirstMap, Slot, Stage};
use millpond_shared::wire::{FiledEvent, ShardFrame};
use prometheus::Registry;

use super::records::{FiledRecord, filed_key};
use super::testing::NatsServer;
use super::*;
use crate::queue::testing::{Machine, START_MS, event, ids, round_frame, round_of, taken_ids};
use crate::queue::{
    DispatchQueues, EventQueues, Fate, Limits, MapChange, QueueRole, Round, RoundFrame, ShardMaps, ShardQueues,
};

const TTL: Duration = Duration::from_secs(10);
const WINDOW: Option<Duration> = Some(Duration::from_secs(600));
const LONG: Duration = Duration::from_secs(30);

/// As a process whose clock stands still would open the queues.
async fn open(settings: &NatsSettings) -> Result<NatsQueues, NatsError> {
    let limits = Limits { tidy_every: Duration::ZERO, ..Limits::default() };
    let options = Options { limits, clock: Arc::new(|| START_MS) };
    NatsQueues::open(settings, options, Clock::Given(Arc::new(|| START_MS)), &Registry::new()).await
}

async fn refusal(settings: &NatsSettings) -> String {
    open(settings).await.err().expect("refused").to_string()
}

/// A server that says what it is told to say of itself, and answers pings.
fn server_that_says(info: &str) -> NatsSettings {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let info = format!("INFO {info}\r\n");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(info.as_bytes());
            for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                if line.starts_with("PING") {
                    let _ = stream.write_all(b"PONG\r\n");
                }
            }
        }
    });
    let servers = Servers { urls: vec![url], credentials: None, ca: None };
    NatsSettings { servers, pond: "test".to_owned(), replicas: 1, event_queues: 1 }
}

#[tokio::test]
async fn servers_that_can_not_do_it_are_refused_in_words() {
    let info = |version: &str, jetstream: bool, max_payload: usize| {
        format!(
            r#"{{"server_id":"x","version":"{version}","headers":true,"jetstream":{jetstream},"max_payload":{max_payload}}}"#
        )
    };
    let old = refusal(&server_that_says(&info("2.9.10", true, 1 << 20))).await;
    assert!(old.contains("version 2.9.10, 2.10 or newer is needed"), "{old}");
    let plain = refusal(&server_that_says(&info("2.10.0", false, 1 << 20))).await;
    assert!(plain.contains("no JetStream"), "{plain}");
    let small = refusal(&server_that_says(&info("2.10.0", true, 1000))).await;
    assert!(small.contains("max_payload to 65536"), "{small}");
    let mut nobody = server_that_says("");
    nobody.servers.urls = vec!["nats://127.0.0.1:1".to_owned()];
    let nobody = refusal(&nobody).await;
    assert!(nobody.contains("can't be reached"), "{nobody}");
}

#[tokio::test]
async fn streams_that_are_not_as_they_must_be_are_refused_in_words() {
    let server = NatsServer::start(&[]);
    let settings = server.settings(3);
    open(&settings).await.unwrap().close().await;
    open(&settings).await.unwrap().close().await;
    let fewer = refusal(&NatsSettings { event_queues: 2, ..settings.clone() }).await;
    assert!(fewer.contains("event queue 2 on NATS would be left out with event_queues = 2"), "{fewer}");
    let replicated = refusal(&NatsSettings { replicas: 3, ..settings.clone() }).await;
    assert!(replicated.contains("num_replicas is 1, not 3"), "{replicated}");

    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let forgetful = Config {
        name: "other-events-0".to_owned(),
        subjects: vec!["other.events.0".to_owned()],
        storage: StorageType::Memory,
        ..Config::default()
    };
    jetstream.create_stream(forgetful).await.unwrap();
    let forgetful = refusal(&NatsSettings { pond: "other".to_owned(), ..settings }).await;
    assert!(forgetful.contains("other-events-0") && forgetful.contains("storage is Memory, not File"), "{forgetful}");
}

/// Why the last message of a subject is never purged.
#[tokio::test]
async fn the_fence_of_an_emptied_subject_lets_in_who_saw_it_empty_once() {
    let server = NatsServer::start(&[]);
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let config = Config { name: "s".to_owned(), subjects: vec!["s.*".to_owned()], ..Config::default() };
    let stream = jetstream.create_stream(config).await.unwrap();
    let publish = async |fence: u64| {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, fence.to_string().as_str());
        jetstream.publish_with_headers("s.1", headers, "x".into()).await.unwrap().await.is_ok()
    };
    assert!(publish(0).await && publish(1).await);
    assert!(!publish(0).await && !publish(1).await);
    stream.purge().filter("s.1").await.unwrap();
    assert!(!publish(2).await, "not even the true writer gets in");
    assert!(publish(0).await, "but one that is two messages behind does");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_append_to_one_queue_leave_no_gap_and_store_an_id_once() {
    let server = NatsServer::start(&[]);
    let mut appending = Vec::new();
    for process in 0..3 {
        let queues = Arc::new(open(&server.settings(1)).await.unwrap());
        for task in 0..2 {
            let queues = queues.clone();
            appending.push(tokio::spawn(async move {
                let mut stored = Vec::new();
                for n in 0..40 {
                    // Every third id is everybody's.
                    let id = if n % 3 == 0 { format!("shared {n}") } else { format!("{process} {task} {n}") };
                    match queues.append(0, WINDOW, vec![event(id.clone(), n)]).await.unwrap()[..] {
                        [Fate::Stored { offset }] => stored.push((offset, id)),
                        [Fate::Duplicate] => assert!(id.starts_with("shared"), "{id}"),
                        ref other => panic!("{other:?}"),
                    }
                }
                stored
            }));
        }
    }
    let mut stored = Vec::new();
    for task in appending {
        stored.extend(task.await.unwrap());
    }
    stored.sort();
    assert_eq!(stored.len(), 14 + 6 * 26, "of the shared ids each is stored once");
    assert_eq!(stored.iter().map(|(_, id)| id).collect::<BTreeSet<_>>().len(), stored.len());
    let queues = open(&server.settings(1)).await.unwrap();
    let lease = queues.acquire(0, "a", TTL).await.unwrap();
    let taken = queues.take(lease, usize::MAX, LONG).await.unwrap().unwrap();
    assert_eq!(taken_ids(&taken), stored);
    assert!((1..).zip(&stored).all(|(expected, (offset, _))| *offset == expected), "no gap");
}

#[tokio::test]
async fn ids_outlive_their_frames_and_offsets_go_on() {
    let server = NatsServer::start(&[]);
    let queues = open(&server.settings(1)).await.unwrap();
    let lease = queues.acquire(0, "a", TTL).await.unwrap();
    for n in 1..=5 {
        queues.append(0, WINDOW, vec![event(n.to_string(), n)]).await.unwrap();
        queues.push(lease, round_of(n..=n, vec![])).await.unwrap();
    }
    queues.close().await;
    let mut stream = queues.parts.queues[0].events.clone();
    let state = stream.info().await.unwrap().state.clone();
    assert_eq!((state.messages, state.last_sequence), (1, 5), "only the last one stays");

    let other = open(&server.settings(1)).await.unwrap();
    let events = (1..=6).map(|n| event(n.to_string(), n)).collect();
    let fates = other.append(0, WINDOW, events).await.unwrap();
    assert_eq!(fates[..5], [Fate::Duplicate; 5]);
    assert_eq!(fates[5], Fate::Stored { offset: 6 });
    let status = other.status().await.unwrap();
    let queue = status.event_queues[0];
    assert_eq!((queue.last, queue.filed, queue.oldest_age_ms), (6, 5, 0));
    assert!(queue.bytes > 0);
}

#[tokio::test]
async fn what_is_too_large_for_a_message_is_told_at_once() {
    let server = NatsServer::start(&["max_payload: 100KB"]);
    let queues = open(&server.settings(1)).await.unwrap();
    let mut large = event("large", 1);
    large.data = format!("\"{}\"", "x".repeat(90_000)).into();
    let medium = |id: &str| {
        let mut event = event(id.to_owned(), 1);
        event.data = format!("\"{}\"", "x".repeat(50_000)).into();
        event
    };
    let fates = queues.append(0, WINDOW, vec![medium("a"), large, medium("b"), event("c", 1)]).await.unwrap();
    let stored = |offset| Fate::Stored { offset };
    assert_eq!(fates, [stored(1), Fate::TooLarge, stored(2), stored(3)], "the others take two messages");
    assert!(queues.frame_max_bytes() < 100_000);
}

/// A frame of a round as the dispatcher makes it: events by offset.
fn filed(first: u64, last: u64, offsets: &[u64]) -> Bytes {
    let events = offsets.iter().map(|offset| FiledEvent {
        offset: *offset,
        routes: vec![(0, "k".into())],
        event: event(offset.to_string(), *offset),
    });
    let frame = ShardFrame {
        queue: 0,
        first,
        last,
        epoch: 1,
        map_version: 1,
        projections: vec!["p".into()],
        events: events.collect(),
    };
    frame.encode().into()
}

async fn offsets(queues: &NatsQueues, shard: u16) -> Vec<u64> {
    let pulled = queues.pull(shard, 0, 1 << 20, Duration::ZERO).await.unwrap();
    let frames = pulled.frames.iter().map(|(_, bytes)| ShardFrame::decode(bytes).unwrap());
    frames.flat_map(|frame| frame.events.iter().map(|filed| filed.offset).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn a_round_that_died_half_way_is_completed_by_the_next_holder() {
    let mut machine = Machine::new(1);
    let first = machine.open_on_nats().await;
    first.append(0, WINDOW, (1..=4).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = first.acquire(0, "a", TTL).await.unwrap();
    let frame = |shard, bytes: Bytes, events| RoundFrame { shard, events, bytes };
    {
        // It dies once the first of two shards has the round 1 to 3.
        let filer = first.parts.queues[0].filer.lock().await;
        let one = frame(0, filed(1, 3, &[1, 3]), 2);
        filer.shared().file(lease, 1, (1, 3), one, None).await.unwrap();
    }
    machine.pass_ms(TTL.as_millis() as u64);

    let second = machine.open_on_nats().await;
    let lease = second.acquire(0, "b", TTL).await.unwrap();
    let taken = second.take(lease, 2, LONG).await.unwrap().unwrap();
    assert_eq!((taken.first, taken.last), (1, 2), "as far as is known nothing is filed");
    // Its rounds are cut elsewhere.
    let frames = vec![frame(0, filed(1, 2, &[1]), 1), frame(1, filed(1, 2, &[2]), 1)];
    second.push(lease, round_of(1..=2, frames)).await.unwrap();
    let frames = vec![frame(0, filed(3, 4, &[3, 4]), 2), frame(1, filed(3, 4, &[3]), 1)];
    second.push(lease, round_of(3..=4, frames)).await.unwrap();
    assert_eq!(offsets(&second, 0).await, [1, 3, 4], "nothing twice");
    assert_eq!(offsets(&second, 1).await, [2, 3], "nothing lost");
    let counted = second.pull(0, 0, 1, Duration::ZERO).await.unwrap();
    assert_eq!((counted.frames.len(), counted.events_after), (1, 3), "what was left out is not counted");
}

#[tokio::test]
async fn who_believes_to_hold_a_lease_that_was_passed_on_is_fenced() {
    let mut machine = Machine::new(1);
    // Its clock stands still.
    let server = machine.nats.get_or_insert_with(|| Arc::new(NatsServer::start(&[]))).clone();
    let sleeper = open(&server.settings(1)).await.unwrap();
    let other = machine.open_on_nats().await;
    sleeper.append(0, None, (1..=2).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let round = |first: u64, text| round_of(first..=first, vec![round_frame(0, 1, text)]);
    let old = sleeper.acquire(0, "sleeper", TTL).await.unwrap();
    sleeper.push(old, round(1, "by the sleeper")).await.unwrap();
    sleeper.release(old).await.unwrap();
    let old = sleeper.acquire(0, "sleeper", TTL).await.unwrap();
    let taken = sleeper.take(old, 9, LONG).await.unwrap().unwrap();
    assert_eq!(taken_ids(&taken), [(2, "2".to_owned())]);

    machine.pass_ms(TTL.as_millis() as u64);
    let new = other.acquire(0, "other", TTL).await.unwrap();
    assert!(new.token > old.token);
    other.push(new, round(2, "by the other")).await.unwrap();
    // Everything is committed and purged: what is left is what the fence needs.
    other.committed(0, "shard", 2).await.unwrap();
    let fenced = Err(QueueError::Fenced { queue: 0, token: old.token });
    assert_eq!(sleeper.push(old, round(2, "late")).await, fenced);
    assert_eq!(sleeper.renew(old, TTL).await, fenced);
    assert_eq!(other.pull(0, 2, 99, Duration::ZERO).await.unwrap().frames, [], "it wrote nothing");
}

#[tokio::test]
async fn how_far_events_are_filed_does_not_go_back() {
    let mut machine = Machine::new(1);
    let sleeper = machine.open_on_nats().await;
    sleeper.append(0, None, (1..=2).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let round = |n: u64| round_of(n..=n, vec![round_frame(0, 1, "x")]);
    let old = sleeper.acquire(0, "sleeper", TTL).await.unwrap();
    sleeper.take(old, 9, LONG).await.unwrap().unwrap();

    machine.pass_ms(TTL.as_millis() as u64);
    let other = machine.open_on_nats().await;
    let new = other.acquire(0, "other", TTL).await.unwrap();
    for n in 1..=2 {
        other.push(new, round(n)).await.unwrap();
    }
    other.release(new).await.unwrap();
    // It wakes up in the middle of a call.
    let mut filer = sleeper.parts.queues[0].filer.lock().await;
    filer.write_filed(1).await.unwrap();
    let record = filer.shared().state.get::<FiledRecord>(&filed_key(0)).await.unwrap();
    assert_eq!(record.value, Some(FiledRecord { offset: 2 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_server_and_everybody_goes_on() {
    let server = Arc::new(NatsServer::start(&[]));
    let queues = Arc::new(open(&server.settings(1)).await.unwrap());
    let producer = tokio::spawn({
        let queues = queues.clone();
        async move {
            for n in 0..60 {
                // Sent again until it is acknowledged, as producers do.
                let id = n.to_string();
                while queues.append(0, WINDOW, vec![event(id.as_str(), n)]).await.is_err() {}
            }
        }
    });
    let lease = queues.acquire(0, "a", Duration::from_secs(300)).await.unwrap();
    let (mut first, mut found) = (1, Vec::new());
    let mut position = 0;
    let mut deaths = [10, 30, 50].into_iter().peekable();
    while found.len() < 60 {
        if deaths.next_if(|death| first > *death).is_some() {
            let server = server.clone();
            let again = tokio::task::spawn_blocking(move || {
                server.kill9();
                server.revive();
            });
            again.await.unwrap();
        }
        let Ok(Some(taken)) = queues.take(lease, 1, Duration::from_secs(1)).await else { continue };
        assert_eq!(taken.first, first);
        let frame = round_frame(0, 1, "x");
        let round = round_of(first..=taken.last, vec![frame]);
        if queues.push(lease, round).await.is_ok() {
            let all = ids(&taken.frames).into_iter();
            found.extend(all.filter(|(offset, _)| (taken.first..=taken.last).contains(offset)).map(|(_, id)| id));
            (first, position) = (taken.last + 1, position + 1);
        }
    }
    producer.await.unwrap();
    let expected: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    assert_eq!(found, expected);
    let mut last = 0;
    while last < position {
        if let Ok(pulled) = queues.pull(0, last, 1 << 20, LONG).await {
            assert!((last + 1..).zip(&pulled.frames).all(|(expected, (position, _))| *position == expected));
            last += pulled.frames.len() as u64;
        }
    }
    assert_eq!(queues.pull(0, last, 99, Duration::ZERO).await.unwrap().frames, [], "nothing was filed twice");
}

/// A dispatcher dies when the taking shard has its part of a round, and the giving one does not: the round is completed by
/// the map it was begun with, since the taking shard's mark has passed its events.
#[tokio::test]
async fn a_round_that_was_filed_in_part_is_completed_before_its_slots_move() {
    let mut machine = Machine::new(1);
    // So that it is not just as well written down for this reason.
    machine.limits.tidy_every = LONG;
    let first = machine.open_on_nats().await;
    first.append(0, WINDOW, (1..=4).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    first.change_map(MapChange::First(FirstMap { version: 1, shards: 2 })).await.unwrap();
    first.committed(1, "primary", 0).await.unwrap();
    let begun = first.change_map(MapChange::Begin { slots: "0".parse().unwrap(), to: 1 }).await.unwrap();
    let epoch = begun.version();
    let lease = first.acquire(0, "a", TTL).await.unwrap();
    let frame = |shard, bytes: Bytes, events| RoundFrame { shard, events, bytes };
    {
        let filer = first.parts.queues[0].filer.lock().await;
        filer.shared().file(lease, 1, (1, 3), frame(1, filed(1, 3, &[2]), 1), None).await.unwrap();
    }
    machine.pass_ms(TTL.as_millis() as u64);

    let second = machine.open_on_nats().await;
    let hold = async || second.change_map(MapChange::Hold { epoch, taken: 0 }).await.unwrap();
    hold().await;
    let state = hold().await;
    let slot = Slot(0);
    assert_eq!((state.filed_with(slot, 0, 3), state.filed_with(slot, 0, 4)), (Some(0), None), "up to the mark it had");
    assert_eq!(hold().await, state, "the giving shard does not have them yet");

    let lease = second.acquire(0, "b", TTL).await.unwrap();
    second.take(lease, 9, LONG).await.unwrap().unwrap();
    let frames = vec![frame(0, filed(1, 3, &[1, 3]), 2), frame(1, filed(1, 3, &[2]), 1)];
    second.push(lease, Round { first: 1, last: 3, map_version: state.version(), frames }).await.unwrap();
    for _ in 0..2 {
        // The next event has to wait, as is found by who has taken it. Taken again, it tells how far the others are filed.
        assert_eq!(second.take(lease, 9, LONG).await.unwrap().unwrap().first, 4);
    }
    let ended = hold().await;
    let Some(Stage::Held(Some(Final { position: Some(end), .. }))) = ended.moving.as_ref().map(|moving| &moving.stage)
    else {
        panic!("the end is not known");
    };
    let given = second.pull(0, 0, 1 << 20, LONG).await.unwrap();
    let events = |(position, bytes): &(u64, Bytes)| (*position, ShardFrame::decode(bytes).unwrap().events.len());
    let filled: Vec<_> = given.frames.iter().map(events).filter(|(_, events)| *events > 0).collect();
    assert!(matches!(filled.as_slice(), [(position, 2)] if position <= end), "{filled:?} up to {end}");
}

/// A dispatcher that does not know how far events are filed would route them by a map in which their slot has moved.
#[tokio::test]
async fn what_the_giving_shard_has_is_not_filed_again_with_the_taking_one() {
    let mut machine = Machine::new(1);
    let queues = machine.open_on_nats().await;
    queues.append(0, WINDOW, (1..=4).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    queues.change_map(MapChange::First(FirstMap { version: 1, shards: 2 })).await.unwrap();
    queues.committed(1, "primary", 0).await.unwrap();
    let begun = queues.change_map(MapChange::Begin { slots: "0".parse().unwrap(), to: 1 }).await.unwrap();
    let lease = queues.acquire(0, "a", TTL).await.unwrap();
    let frame = |shard, bytes: Bytes, events| RoundFrame { shard, events, bytes };
    let frames = vec![frame(0, filed(1, 3, &[1, 3]), 2)];
    queues.push(lease, Round { first: 1, last: 3, map_version: begun.version(), frames }).await.unwrap();
    queues.parts.queues[0].filer.lock().await.write_down().await.unwrap();
    let mut state = begun.clone();
    for _ in 0..3 {
        state = queues.change_map(MapChange::Hold { epoch: begun.version(), taken: 0 }).await.unwrap();
    }
    let stage = state.moving.as_ref().map(|moving| moving.stage.clone());
    assert!(matches!(stage, Some(Stage::Held(Some(Final { position: Some(_), .. })))), "{stage:?}");

    let filer = queues.parts.queues[0].filer.lock().await;
    let again = frame(1, filed(1, 4, &[1, 3, 4]), 3);
    filer.shared().file(lease, state.version() + 1, (1, 4), again, None).await.unwrap();
    assert_eq!(offsets(&queues, 1).await, [4]);
}
