//! What a body may be: CloudEvents in all modes, content codings, streams of lines; and how much of it, how fast.

use std::io::Write;

use http::Method;
use millpond_shared::wire::Taker;
use serde_json::{Value, json};

use super::tests::{Rig, rig_of, source};
use super::*;
use crate::queue::testing::Machine;

fn rig(machine: Machine) -> Rig {
    let mut wiki = source("wiki");
    wiki.kind = "{type}".parse().unwrap();
    let mut data = source("data");
    data.shape = Shape::Data;
    rig_of(machine, vec![wiki, data])
}

async fn post(rig: &Rig, path: &str, fields: &[(&str, &str)], body: impl Into<Bytes>) -> (u16, Value) {
    let mut request = Request::post(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = rig.ingest.answer(request.body(body.into()).unwrap()).await;
    (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
}

const WHOLE: &str = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data":{"n":1}}"#;

#[tokio::test]
async fn a_cloud_event_is_the_same_in_every_mode() {
    let rig = rig(Machine::new(2));
    let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
    assert_eq!(post(&rig, "/events/wiki", &structured, WHOLE).await.1["accepted"], 1);
    let batched = [("content-type", "application/cloudevents-batch+json")];
    let (status, told) = post(&rig, "/events/wiki", &batched, format!("[{WHOLE}]")).await;
    assert_eq!((status, &told["duplicates"]), (202, &json!(1)));
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/a"),
        ("ce-type", "t"),
        ("ce-subject", "caf%C3%A9"),
    ];
    let (status, told) = post(&rig, "/events/wiki", &binary, r#"{"n":1}"#).await;
    assert_eq!((status, &told["duplicates"]), (202, &json!(1)));
    let elsewhere = binary.map(|(name, value)| (name, if name == "ce-source" { "/b" } else { value }));
    let (status, told) = post(&rig, "/events/wiki", &elsewhere, r#"{"n":1}"#).await;
    assert_eq!((status, &told["accepted"]), (202, &json!(1)), "ids are unique within a source");
    let mut ids = [rig.ids(0).await, rig.ids(1).await].concat();
    ids.sort();
    assert_eq!(ids, ["/a 1", "/b 1"]);
}

#[tokio::test]
async fn what_is_no_cloud_event_is_told() {
    let rig = rig(Machine::new(1));
    let structured = ("content-type", "application/cloudevents+json");
    let batch = ("content-type", "application/cloudevents-batch+json");
    for (fields, path, body, status, says) in [
        (vec![structured], "wiki", "{\"id\":\"1\"}", 400, "specversion is missing"),
        (vec![structured], "wiki", "[]", 400, "an event is a JSON object"),
        (vec![batch], "wiki", WHOLE, 400, "a batch of CloudEvents is an array"),
        (vec![("content-type", "application/cloudevents+xml")], "wiki", WHOLE, 415, "this format of CloudEvents"),
        (vec![structured], "data", WHOLE, 415, "takes payloads, not CloudEvents"),
        (vec![("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "t")], "wiki", "1", 400, "source is missing"),
        (vec![("ce-specversion", "1.0"), ("ce-id", "%ff")], "wiki", "1", 400, "the field ce-id is not UTF-8"),
        (vec![("ce-specversion", "1.0"), ("ce-id", "1")], "wiki", "{", 400, "data is not JSON"),
    ] {
        let (found, told) = post(&rig, &format!("/events/{path}"), &fields, body).await;
        assert!(found == status && told["error"].as_str().unwrap().contains(says), "{says}: {found} {told}");
    }
}

#[tokio::test]
async fn codings_are_undone_within_the_limits_of_the_source() {
    let rig = rig(Machine::new(1));
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let body = r#"[{"id":"1","type":"t"},{"id":"2","type":"t"}]"#;
    let coded = |coding: &'static str| [("content-type", "application/json"), ("content-encoding", coding)];
    let (status, told) = post(&rig, "/events/wiki", &coded("gzip"), gzip(body)).await;
    assert_eq!((status, &told["accepted"]), (202, &json!(2)));
    let zstd = zstd::encode_all(body.as_bytes(), 0).unwrap();
    assert_eq!(post(&rig, "/events/wiki", &coded("zstd"), zstd.clone()).await.1["duplicates"], 2);
    let large = format!("[{}{{}}]", "{},".repeat(1_000));
    for (coding, body, status, says) in [
        ("gzip", gzip(&large), 413, "becomes larger than 2000 bytes"),
        ("gzip", zstd.clone(), 400, "is not what its Content-Encoding says"),
        ("zstd", zstd[..zstd.len() - 1].to_vec(), 400, "ends before"),
        ("br", zstd, 415, "encoded with `br`"),
    ] {
        let (found, told) = post(&rig, "/events/wiki", &coded(coding), body).await;
        assert!(found == status && told["error"].as_str().unwrap().contains(says), "{says}: {found} {told}");
    }
}

/// Sends a body of lines piece by piece, as a server does.
async fn stream(rig: &Rig, coding: &str, pieces: &[&[u8]]) -> (u16, Value) {
    let mut taker = taker(rig, coding);
    let mut answer = None;
    for piece in pieces {
        if let Err(refused) = taker.take(Bytes::copy_from_slice(piece)).await {
            answer = Some(*refused);
            break;
        }
    }
    let answer = match answer {
        Some(answer) => answer,
        None => taker.end().await,
    };
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap())
}

fn taker<'a>(rig: &'a Rig, coding: &str) -> Box<dyn Taker + 'a> {
    let head = Request::post("/events/wiki").header("content-type", "application/x-ndjson");
    let head = head.header("content-encoding", coding).body(()).unwrap();
    match Origin::intake(&rig.ingest, &head, None) {
        Intake::Pieces(taker) => taker,
        Intake::Whole { .. } | Intake::Nothing(_) => panic!("lines of unknown length are taken as they come"),
    }
}

fn line(id: usize) -> String {
    format!("{{\"id\":\"{id}\",\"type\":\"t\"}}\n")
}

#[tokio::test]
async fn lines_are_taken_however_they_are_cut() {
    for coding in ["", "zstd"] {
        let rig = rig(Machine::new(1));
        let mut text: String = (0..50).map(line).collect();
        text.push_str("broken\n\n");
        text.push_str(line(50).trim_end());
        let bytes = if coding.is_empty() { text.into_bytes() } else { zstd::encode_all(text.as_bytes(), 0).unwrap() };
        let pieces: Vec<&[u8]> = bytes.chunks(7).collect();
        let (status, told) = stream(&rig, coding, &pieces).await;
        assert_eq!((status, &told["accepted"], &told["position"]), (202, &json!(51), &json!({"0": 51})), "{told}");
        assert_eq!(told["rejected"][0]["index"], 50);
        let ids: Vec<String> = (0..=50).map(|id| id.to_string()).collect();
        assert_eq!(rig.ids(0).await, ids, "in their order");
    }
}

/// Far more than fits into one request, and than would be held in memory.
#[tokio::test]
async fn a_stream_is_stored_while_it_arrives() {
    let rig = rig(Machine::new(1));
    let mut taker = taker(&rig, "");
    let mut next = 0;
    while rig.stored(0) < 1_000 {
        let piece: String = (next..next + 100).map(line).collect();
        next += 100;
        taker.take(piece.into()).await.unwrap();
    }
    let answer = taker.end().await;
    let told: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!((answer.status().as_u16(), &told["accepted"]), (202, &json!(next)));
}

#[tokio::test]
async fn a_stream_ends_where_there_is_no_room_and_says_what_was_stored() {
    let mut machine = Machine::new(1);
    machine.limits.depth_max_events = 100;
    let rig = rig(machine);
    let text: String = (0..150).map(line).collect();
    let (status, told) = stream(&rig, "", &[text.as_bytes()]).await;
    assert_eq!((status, &told["accepted"], told["rejected"].as_array().unwrap().len()), (503, &json!(100), 10));
}

#[tokio::test]
async fn a_line_that_never_ends_is_refused() {
    let rig = rig(Machine::new(1));
    let piece = vec![b'x'; 1 << 20];
    let (status, told) = stream(&rig, "", &[&piece, &piece, &piece]).await;
    assert!(status == 413 && told["error"].as_str().unwrap().contains("a line is longer"), "{told}");
}

#[tokio::test]
async fn a_source_that_sends_too_fast_is_told_before_its_body_is_read() {
    let mut slow = source("slow");
    slow.rate = Some(Rate { per_second: 0.001, burst: 3.0 });
    let rig = rig_of(Machine::new(1), vec![slow, source("other")]);
    let judged = |path: &str, length| {
        let head = Request::builder().method(Method::POST).uri(path).body(()).unwrap();
        match Origin::intake(&rig.ingest, &head, length) {
            Intake::Nothing(response) => Err(response),
            Intake::Whole { max_bytes } => Ok(max_bytes),
            Intake::Pieces(_) => panic!("no lines"),
        }
    };
    assert_eq!(judged("/events/slow", Some(10)).unwrap(), 2_000);
    assert_eq!(rig.post("/events/slow", "[{},{},{},{}]").await.0, 202, "a batch is let in whole");
    let refused = judged("/events/slow", Some(10)).unwrap_err();
    assert_eq!(refused.status(), 429);
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1_000..=3_600).contains(&seconds), "{seconds}");
    assert!(judged("/events/other", Some(10)).is_ok(), "one source does not slow another");
    for (path, length, status) in [("/events/none", Some(10), 404), ("/events/other", Some(1 << 30), 413)] {
        assert_eq!(judged(path, length).unwrap_err().status(), status, "{path}");
    }
}

#[tokio::test]
async fn full_queues_refuse_before_the_body_is_read() {
    let mut machine = Machine::new(1);
    machine.limits.depth_max_events = 1;
    let rig = rig(machine);
    let head = Request::post("/events/wiki").body(()).unwrap();
    assert!(matches!(Origin::intake(&rig.ingest, &head, Some(10)), Intake::Whole { .. }));
    assert_eq!(rig.post("/events/wiki", line(1)).await.0, 202);
    let Intake::Nothing(refused) = Origin::intake(&rig.ingest, &head, Some(10)) else { panic!("refused") };
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (503, true));
}

#[tokio::test]
async fn who_does_not_wait_for_the_disk_is_told_so() {
    let rig = rig(Machine::new(1));
    let syncs = rig.machine.events[0].hold_syncs();
    let (status, told) = rig.post("/events/wiki?ack=memory", format!("[{},7]", line(1))).await;
    let rejected = json!([{"index": 1, "reason": "an event is a JSON object: send { … }"}]);
    let expected = json!({"accepted": 1, "duplicates": 0, "rejected": rejected, "position": {}, "ack": "memory"});
    assert_eq!((status, told), (202, expected));
    drop(syncs);
    while rig.stored(0) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.post("/events/wiki?ack=sometimes", line(1)).await.0, 400);
    assert_eq!(rig.post("/events/wiki?x=1&ack=disk", line(1)).await.1["duplicates"], 1);
}
