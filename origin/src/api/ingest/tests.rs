//! Ingest, over queues on forgetful disks.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::queue::testing::{Machine, round_of, taken_ids};
use crate::queue::{DispatchQueues, Queues};

const LONG: Duration = Duration::from_secs(30);

pub(super) struct Rig {
    pub machine: Machine,
    queues: Arc<Queues>,
    pub ingest: Ingest,
    pub registry: Registry,
}

pub(super) fn source(name: &str) -> Source {
    Source {
        name: name.to_owned(),
        path: format!("/events/{name}"),
        shape: Shape::Event,
        kind: "edit".parse().unwrap(),
        id: IdRule::Member,
        time: None,
        subject: None,
        partition: None,
        window: Duration::from_secs(600),
        body_max: 2_000,
        auth: Auth::None,
        rate: None,
    }
}

fn rig(machine: Machine) -> Rig {
    let mut by_user = source("by-user");
    by_user.partition = Some("{data.user}".parse().unwrap());
    rig_of(machine, vec![source("wiki"), by_user])
}

pub(super) fn rig_of(machine: Machine, sources: Vec<Source>) -> Rig {
    let queues = machine.open();
    let registry = Registry::new();
    let ingest = Ingest::new(sources, queues.clone(), 10, &registry).unwrap();
    Rig { machine, queues, ingest, registry }
}

impl Rig {
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let request = Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
        let response = self.ingest.answer(request).await;
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
    }

    /// How many events one queue has on disk.
    pub fn stored(&self, queue: usize) -> u64 {
        self.queues.status().event_queues[queue].last
    }

    /// Ids of what one queue holds, in their order.
    pub async fn ids(&self, queue: u16) -> Vec<String> {
        let lease = self.queues.acquire(queue, "test", LONG).await.unwrap();
        let taken = self.queues.take(lease, usize::MAX, Duration::ZERO).await.unwrap();
        self.queues.release(lease).await.unwrap();
        let ids = taken.map(|taken| taken_ids(&taken)).unwrap_or_default();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    fn counted(&self, name: &str, outcome: &str) -> u64 {
        self.ingest.walk.doors[&format!("/events/{name}")].counted(outcome)
    }
}

#[tokio::test]
async fn what_is_answered_202_is_on_disk_and_known_again() {
    let mut rig = rig(Machine::new(3));
    let body = r#"[{"id":"a"},{"id":"b"},{"id":"a"},{"id":7}]"#;
    let (status, told) = rig.post("/events/wiki", body).await;
    assert_eq!((status, &told["accepted"], &told["duplicates"]), (202, &json!(2), &json!(1)));
    assert_eq!(told["rejected"], json!([{"index": 3, "reason": "id is not a string: write it in quotes"}]));
    let positions: u64 = told["position"].as_object().unwrap().values().map(|offset| offset.as_u64().unwrap()).sum();
    assert_eq!(positions, 2);

    let after = rig.machine.crash();
    rig = super::tests::rig(after);
    let mut ids = Vec::new();
    for queue in 0..3 {
        ids.extend(rig.ids(queue).await);
    }
    ids.sort();
    assert_eq!(ids, ["a", "b"]);
    let (status, told) = rig.post("/events/wiki", body).await;
    assert_eq!((status, &told["accepted"], &told["duplicates"]), (202, &json!(0), &json!(3)));
    assert_eq!(told["position"], json!({}));
    assert_eq!(rig.counted("wiki", "duplicate"), 3);
    assert_eq!(rig.counted("wiki", "rejected"), 1);
    let scraped = rig.registry.gather();
    assert!(scraped.iter().any(|family| family.name() == "millpond_events_total"));
}

/// The 202 itself waits: while the disk of one of its queues has not synced, a batch is not answered.
#[tokio::test]
async fn nothing_is_answered_before_every_disk_concerned_has_synced() {
    for (slow, fast) in [(0, 1), (1, 0)] {
        let rig = rig(Machine::new(2));
        let syncs = rig.machine.events[slow].hold_syncs();
        let events: Vec<Value> = (0..8).map(|n| json!({ "id": n.to_string() })).collect();
        let mut answer = std::pin::pin!(rig.post("/events/wiki", json!(events).to_string()));
        while rig.queues.status().event_queues[fast].last == 0 {
            tokio::select! {
                told = &mut answer => panic!("answered before the sync: {told:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        let cut = super::tests::rig(rig.machine.crash());
        let there = cut.ids(fast as u16).await;
        assert!((1..8).contains(&there.len()) && cut.ids(slow as u16).await.is_empty(), "{there:?}");

        drop(syncs);
        let (status, told) = answer.await;
        assert_eq!((status, &told["accepted"]), (202, &json!(8)));
        let cut = super::tests::rig(rig.machine.crash());
        assert_eq!(cut.ids(fast as u16).await.len() + cut.ids(slow as u16).await.len(), 8);
    }
}

#[tokio::test]
async fn lines_and_single_events_are_taken_too() {
    let rig = rig(Machine::new(1));
    assert_eq!(rig.post("/events/wiki", r#" {"id":"a"} "#).await.1["position"], json!({"0": 1}));
    let (status, told) = rig.post("/events/wiki", "{\"id\":\"b\"}\n{\"id\":\n{\"id\":\"c\"}\n").await;
    assert_eq!((status, &told["accepted"], &told["position"]), (202, &json!(2), &json!({"0": 3})));
    let reason = told["rejected"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("line 2, column") && told["rejected"][0]["index"] == 1, "{told}");
    assert_eq!(rig.post("/events/wiki", "[]").await.0, 202);
    assert_eq!(rig.ids(0).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_broken_array_keeps_what_stands_before_the_break() {
    let rig = rig(Machine::new(1));
    let (status, told) = rig.post("/events/wiki", r#"[{"id":"a"},{"id":"b"},{"id" "c"},{"id":"d"}]"#).await;
    assert_eq!((status, &told["accepted"]), (202, &json!(2)));
    assert_eq!(told["rejected"][0]["index"], 2);
    assert!(told["rejected"][0]["reason"].as_str().unwrap().ends_with("nothing behind it was read"), "{told}");
}

#[tokio::test]
async fn a_partition_keeps_its_order_and_its_queue() {
    let rig = rig(Machine::new(4));
    let event = |id: u32, user: &str| json!({"id": id.to_string(), "data": {"user": user}});
    for batch in (0..8).map(|n| [event(2 * n, "u"), event(2 * n + 1, "v")]) {
        assert_eq!(rig.post("/events/by-user", json!(batch).to_string()).await.0, 202);
    }
    let mut queues_of_u = 0;
    for queue in 0..4 {
        let ids: Vec<u32> = rig.ids(queue).await.iter().map(|id| id.parse().unwrap()).collect();
        let of_u: Vec<u32> = ids.iter().copied().filter(|id| id % 2 == 0).collect();
        queues_of_u += usize::from(!of_u.is_empty());
        assert!(of_u.is_sorted() && (of_u.is_empty() || of_u.len() == 8), "{of_u:?}");
    }
    assert_eq!(queues_of_u, 1);
}

#[tokio::test]
async fn events_without_an_id_go_where_there_is_room_and_others_stay() {
    let mut machine = Machine::new(3);
    machine.limits.depth_max_events = 2;
    let rig = rig(machine);
    let body = vec![json!({}); 5];
    let (status, told) = rig.post("/events/wiki", json!(body).to_string()).await;
    assert_eq!((status, &told["accepted"]), (202, &json!(5)), "three queues hold six: {told}");
    let depths: Vec<u64> = rig.queues.status().event_queues.iter().map(|queue| queue.last).collect();
    assert_eq!(depths.iter().sum::<u64>(), 5);

    // One place is left. Of two events with ids for other queues none may take it: a repeat would look for it there.
    let open = depths.iter().position(|depth| *depth == 1).unwrap() as u64;
    let id = |wanted: &dyn Fn(u64) -> bool| {
        (0..).map(|n| format!("id{n}")).find(|id| wanted(xxhash_rust::xxh3::xxh3_64(id.as_bytes()) % 3)).unwrap()
    };
    let (here, elsewhere) = (id(&|queue| queue == open), id(&|queue| queue != open));
    let batch = json!([{"id": elsewhere}, {"id": here}, {"id": 1}, {}]);
    let (status, told) = rig.post("/events/wiki", batch.to_string()).await;
    assert_eq!(status, 503);
    assert_eq!((&told["accepted"], &told["rejected"].as_array().unwrap().len()), (&json!(1), &3));
    let retry: Vec<bool> = told["rejected"].as_array().unwrap().iter().map(|r| r["retry"] == true).collect();
    assert_eq!(retry, [true, false, true], "{told}");
    assert!(told["error"].as_str().unwrap().starts_with("event 0: its event queue is full"), "{told}");
    assert_eq!((rig.counted("wiki", "refused"), rig.counted("wiki", "rejected")), (2, 1));
}

#[tokio::test]
async fn a_producer_that_repeats_a_refused_batch_stores_nothing_twice() {
    let mut machine = Machine::new(1);
    machine.limits.depth_max_events = 2;
    let rig = rig(machine);
    let body = r#"[{"id":"a"},{"id":"b"},{"id":"c"}]"#;
    let request = Request::post("/events/wiki").body(Bytes::from_static(body.as_bytes())).unwrap();
    let response = rig.ingest.answer(request).await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let lease = rig.queues.acquire(0, "test", LONG).await.unwrap();
    let round = round_of(1..=2, vec![]);
    rig.queues.push(lease, round).await.unwrap();
    let (status, told) = rig.post("/events/wiki", body).await;
    assert_eq!((status, &told["accepted"], &told["duplicates"]), (202, &json!(1), &json!(2)));
}

#[tokio::test]
async fn requests_that_are_no_batch_are_refused_in_words() {
    let rig = rig(Machine::new(1));
    let many = json!(vec![json!({}); 11]).to_string();
    for (path, body, status, words) in [
        ("/events/wiki", String::new(), 400, "holds no event"),
        ("/events/wiki", " \n".to_owned(), 400, "holds no event"),
        ("/events/wiki", "nonsense".to_owned(), 400, "event 0: this is not JSON"),
        ("/events/wiki", "[7, []]".to_owned(), 400, "event 0: an event is a JSON object"),
        ("/events/wiki", "x".repeat(2_001), 413, "2000 bytes"),
        ("/events/wiki", many, 413, "more than 10 events"),
        ("/events/none", "{}".to_owned(), 404, "no source takes events at /events/none"),
    ] {
        let (found, told) = rig.post(path, body).await;
        assert_eq!(found, status, "{told}");
        assert!(told["error"].as_str().unwrap().contains(words), "{told}");
    }
    let (_, told) = rig.post("/events", "{}").await;
    assert_eq!(told["fix"], "POST events to /events/by-user, /events/wiki");

    let ask = async |method: &str, name: &str, value: &str| {
        let request = Request::builder().method(method).uri("/events/wiki?x=y").header(name, value);
        rig.ingest.answer(request.body(Bytes::from_static(b"{}")).unwrap()).await
    };
    let response = ask("GET", "accept", "*/*").await;
    assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, "POST"));
    assert_eq!(ask("POST", "content-encoding", "br").await.status().as_u16(), 415);
    assert_eq!(ask("POST", "content-encoding", "identity").await.status().as_u16(), 202);
    assert_eq!((rig.ingest.body_limit("/events/wiki?a"), rig.ingest.body_limit("/x")), (2_000, 0));
}

#[tokio::test]
async fn a_failed_queue_is_told_as_503() {
    let rig = rig(Machine::new(1));
    rig.machine.events[0].fail();
    let (status, told) = rig.post("/events/wiki", r#"[{"id":"a"},{}]"#).await;
    assert_eq!((status, &told["accepted"]), (503, &json!(0)));
    assert!(told["error"].as_str().unwrap().contains("must be reopened"), "{told}");
}

#[tokio::test]
async fn large_bodies_are_taken_apart_all_the_same() {
    let queues = Machine::new(2).open();
    let large = Source { body_max: 8 << 20, ..source("wiki") };
    let ingest = Ingest::new(vec![large], queues, 10_000, &Registry::new()).unwrap();
    let events: Vec<Value> =
        (0..5_000).map(|n| json!({"id": n.to_string(), "data": {"text": "x".repeat(60)}})).collect();
    let body = json!(events).to_string();
    assert!(body.len() > walk::LARGE_BODY);
    let response = ingest.answer(Request::post("/events/wiki").body(body.into()).unwrap()).await;
    let told: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!((response.status().as_u16(), &told["accepted"]), (202, &json!(5_000)));
}
