//! Events in, hot feeds out: every document of every event, against a naive model, in one process and in several; and
//! one event more, seen through a cache whose ttl is an hour.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use flate2::read::GzDecoder;
use millpond_shared::clock;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::model::{Expected, Fate, Format, Model, encoded, id_of, read};
use crate::harness::client::{Client, Request, Response};
use crate::harness::eventually;
use crate::harness::pipeline::{ON_NATS, ONE_PROCESS, Part, Pipeline, SEVERAL_PROCESSES};
use crate::harness::process::lock;
use crate::harness::random::Random;

/// Clients that post, or read, at the same time.
const CLIENTS: usize = 4;
/// Most events in one request of these tests.
const BATCH_MAX: usize = 400;
/// How often a document is looked at again to find an old copy of it.
const LOOKS: usize = 50;
/// Most differences that are shown.
const SHOWN_MAX: usize = 10;

#[test]
fn the_sample_becomes_every_document_that_it_should() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sample.ndjson");
    in_one_process_and_in_several(&std::fs::read_to_string(file).expect("the sample is committed"), true);
}

#[test]
fn so_do_all_real_events() {
    let Some(folder) = std::env::var_os("MILLPOND_DATA") else {
        println!("SKIPPED: MILLPOND_DATA is not set; it names the folder whose data/ holds the real events");
        return;
    };
    let file = PathBuf::from(folder).join("data/wikiticker-2015-09-12-sampled.json.gz");
    let packed = std::fs::File::open(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut events = String::new();
    GzDecoder::new(packed).read_to_string(&mut events).expect("packed text");
    assert_eq!(events.lines().count(), 39_244);
    // Of a document one output, or it takes minutes: the sample has all of them.
    in_one_process_and_in_several(&events, false);
}

fn in_one_process_and_in_several(events: &str, every_output: bool) {
    let mut random = Random::told("feeds");
    let mut model = Model::default();
    let mut fates: BTreeMap<&str, Fate> = BTreeMap::new();
    for line in events.lines() {
        let fate = model.take(line);
        fates.entry(line).or_insert(fate);
    }
    let outputs = if every_output { model.documents() } else { one_output_of_each(model.documents()) };
    let mut bodies = Vec::new();
    for parts in [&ONE_PROCESS[..], &SEVERAL_PROCESSES[..], &ON_NATS[..]] {
        let pipeline = Pipeline::of(parts);
        let began = clock::monotonic();
        post_all(&pipeline, events, &fates, &mut random);
        let posted = began.elapsed();
        pipeline.wait_until_applied();
        let applied = began.elapsed();
        assert_eq!(pipeline.sum("millpond_shard_applied_events_total"), model.filings() as f64);
        assert_eq!(pipeline.sum("millpond_shard_unapplied_events_total"), 0.0);
        bodies.push(compare_all(&pipeline, &outputs));
        println!(
            "{} process(es): {} events posted in {posted:.1?}, applied after {applied:.1?}; {} outputs compared in {:.1?}",
            parts.len(),
            events.lines().count(),
            outputs.len(),
            began.elapsed() - applied
        );
        one_event_more(&pipeline, parts);
    }
    let [one, several, on_nats] = &bodies[..] else { panic!("three ways") };
    assert_eq!(one.len(), outputs.len());
    for other in [several, on_nats] {
        let differ: Vec<_> = one.iter().filter(|(url, body)| other.get(*url) != Some(*body)).take(SHOWN_MAX).collect();
        assert!(differ.is_empty(), "other bytes in several processes than in one: {differ:?}");
    }
}

/// Of the outputs of each document one, in turn.
fn one_output_of_each(documents: BTreeMap<String, Expected>) -> BTreeMap<String, Expected> {
    let mut by_tag: BTreeMap<String, Vec<(String, Expected)>> = BTreeMap::new();
    for (url, expected) in documents {
        by_tag.entry(expected.tag.clone()).or_default().push((url, expected));
    }
    let in_turn = |(turn, mut outputs): (usize, Vec<(String, Expected)>)| outputs.swap_remove(turn % outputs.len());
    by_tag.into_values().enumerate().map(in_turn).collect()
}

/// Posts all lines in batches of all shapes, some of them twice, in an order of its own, from several clients at once.
fn post_all(pipeline: &Pipeline, events: &str, fates: &BTreeMap<&str, Fate>, random: &mut Random) {
    let mut lines: Vec<&str> = events.lines().collect();
    let mut batches = Vec::new();
    while !lines.is_empty() {
        let size = [1, 2, 20, BATCH_MAX][random.below(4)].min(lines.len());
        let batch: Vec<&str> = lines.drain(lines.len() - 1 - random.below(size)..).collect();
        if random.below(10) == 0 {
            batches.push(Batch { lines: batch.clone(), shape: Shape::any(random, &batch) });
        }
        let shape = Shape::any(random, &batch);
        batches.push(Batch { lines: batch, shape });
    }
    random.shuffle(&mut batches);
    let (next, told) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<&str, u64>::new()));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::of(pipeline.proxy());
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = client.ask(&batch.request());
                    let mut told = lock(&told);
                    for (what, count) in batch.judge(&answer, fates) {
                        *told.entry(what).or_default() += count;
                    }
                }
            });
        }
    });
    let sent: usize = batches.iter().map(|batch| batch.lines.len()).sum();
    let rejected: usize =
        batches.iter().flat_map(|batch| &batch.lines).filter(|line| fates[**line] == Fate::Rejected).count();
    // A line that differs from another only by the white space around it is a duplicate of it.
    let accepted = fates.values().filter(|fate| **fate == Fate::Accepted).count();
    let expected = BTreeMap::from([
        ("accepted", accepted as u64),
        ("duplicates", (sent - rejected - accepted) as u64),
        ("rejected", rejected as u64),
    ]);
    assert_eq!(lock(&told).clone(), expected);
}

struct Batch<'a> {
    lines: Vec<&'a str>,
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Single,
    Array,
    /// As NDJSON by its content type.
    Lines,
    /// Lines that nothing announces.
    LinesUnannounced,
}

impl Shape {
    fn any(random: &mut Random, batch: &[&str]) -> Shape {
        match random.below(3) {
            0 if batch.len() == 1 => Shape::Single,
            0 | 1 => Shape::Array,
            _ if random.below(2) == 0 => Shape::LinesUnannounced,
            _ => Shape::Lines,
        }
    }
}

impl Batch<'_> {
    fn request(&self) -> Request {
        let post = |body: String| Request::post("/events/wiki", body);
        match self.shape {
            Shape::Single => post(self.lines[0].to_owned()).field("Content-Type", "application/json"),
            Shape::Array => {
                post(format!("[{}\n]", self.lines.join(",\r\n "))).field("Content-Type", "application/json")
            }
            Shape::Lines => post(self.lines.join("\r\n")).field("Content-Type", "application/x-ndjson"),
            Shape::LinesUnannounced => post(self.lines.join("\n") + "\n"),
        }
    }

    /// Checks an answer against what must become of each event; what it counts.
    fn judge(&self, answer: &Response, fates: &BTreeMap<&str, Fate>) -> [(&'static str, u64); 3] {
        let wrong: Vec<usize> = (0..self.lines.len()).filter(|at| fates[self.lines[*at]] == Fate::Rejected).collect();
        let status = if wrong.len() == self.lines.len() { 400 } else { 202 };
        let told = answer.json();
        assert_eq!(answer.status(), status, "{told}");
        let rejected = told["rejected"].as_array().expect("a list");
        let indices: Vec<usize> =
            rejected.iter().map(|one| one["index"].as_u64().expect("an index") as usize).collect();
        assert_eq!(indices, wrong, "{told}\n{:?}", self.lines);
        let count = |name: &str| told[name].as_u64().expect("a number");
        let counts = [("accepted", count("accepted")), ("duplicates", count("duplicates"))];
        assert_eq!(counts[0].1 + counts[1].1 + wrong.len() as u64, self.lines.len() as u64, "{told}");
        [counts[0], counts[1], ("rejected", wrong.len() as u64)]
    }
}

/// Gets every document and compares it with what it must be; the hash of each body, by URL.
fn compare_all(pipeline: &Pipeline, documents: &BTreeMap<String, Expected>) -> BTreeMap<String, Vec<u8>> {
    let all: Vec<(&String, &Expected)> = documents.iter().collect();
    let (next, bodies, wrong) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let (mut client, mut mine) = (Client::of(pipeline.proxy()), BTreeMap::new());
                while let Some((url, expected)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = client.get(url);
                    mine.insert((*url).clone(), digest(&SHA256, &answer.body).as_ref().to_vec());
                    if let Err(difference) = compare(&answer, expected) {
                        lock(&wrong).push(format!("{url}: {difference}"));
                    }
                }
                lock(&bodies).append(&mut mine);
            });
        }
    });
    let wrong = lock(&wrong).clone();
    let shown = wrong.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {} documents are wrong:\n{shown}", wrong.len(), all.len());
    std::mem::take(&mut *lock(&bodies))
}

/// Whether an answer is the document it must be, with all that comes with a document.
pub fn compare(answer: &Response, expected: &Expected) -> Result<(), String> {
    let content_type = match expected.format {
        Format::Json => "application/json",
        Format::JsonFeed => "application/feed+json",
        Format::Atom => "application/atom+xml; charset=utf-8",
        Format::Rss => "application/rss+xml; charset=utf-8",
        Format::ActivityStreams => "application/activity+json",
        Format::Xml => "application/xml; charset=utf-8",
        Format::Html => "text/html; charset=utf-8",
    };
    let version = answer.field("millpond-version").and_then(|version| version.split_once('-'));
    let is_version = version.is_some_and(|(epoch, position)| {
        epoch.parse::<u64>().is_ok() && position.parse::<u64>().is_ok_and(|position| position > 0)
    });
    let told = (answer.status(), answer.field("content-type"), answer.field("cache-tag"), is_version);
    if told != (200, Some(content_type), Some(&expected.tag), true) {
        return Err(format!("{:?}, {}", answer.head, answer.text()));
    }
    for name in ["etag", "last-modified", "cache-control", "cache-status"] {
        answer.field(name).ok_or_else(|| format!("no {name}"))?;
    }
    if answer.field("millpond-position").is_some() {
        return Err("millpond-position is between proxy and shard only".to_owned());
    }
    let found = read(expected.format, &answer.body)?;
    difference(&found, &expected.value, "").map_or(Ok(()), Err)
}

/// The first place where two values differ, and how.
fn difference(found: &Value, expected: &Value, at: &str) -> Option<String> {
    match (found, expected) {
        (Value::Object(mine), Value::Object(other)) if mine.keys().eq(other.keys()) => {
            mine.iter().find_map(|(name, value)| difference(value, &other[name], &format!("{at}/{name}")))
        }
        (Value::Array(mine), Value::Array(other)) if mine.len() == other.len() => {
            let pairs = mine.iter().zip(other).enumerate();
            pairs.into_iter().find_map(|(index, (mine, other))| difference(mine, other, &format!("{at}/{index}")))
        }
        _ => (found != expected).then(|| format!("{at}: {found}, must be {expected}")),
    }
}

/// Whatever the ttl says, what is posted is seen at the next GET, by everybody, and then comes from the cache.
fn one_event_more(pipeline: &Pipeline, parts: &[Part]) {
    let mut client = Client::of(pipeline.proxy());
    let mut model = Model::default();
    // Several documents, several outputs; those of the second round existed before.
    for round in 0..2 {
        let event = json!({
            "time": format!("2026-01-01T00:00:0{round}Z"), "channel": "#one more/channel", "page": "50% of 猫?",
            "user": "one.more/user", "comment": format!("<{round}>"), "isRobot": false, "delta": round,
        })
        .to_string();
        let (user, channel) = (encoded("one.more/user"), encoded("#one more/channel"));
        let urls = [
            format!("/users/{user}/feed.json"),
            format!("/users/{user}/feed.xml"),
            format!("/channels/{channel}/edits.json"),
            format!("/pages/{channel}/{}/latest.json", encoded("50% of 猫?")),
            format!("/pages/{channel}/{}/counts.json", encoded("50% of 猫?")),
        ];
        let before: Vec<Response> = urls.iter().map(|url| hit(&mut client, url, [404, 200][round])).collect();
        assert_eq!(model.take(&event), Fate::Accepted);
        let documents = model.documents();

        let seen: Vec<AtomicBool> = urls.iter().map(|_| AtomicBool::new(false)).collect();
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut client = Client::of(pipeline.proxy());
                    for (at, url) in urls.iter().enumerate() {
                        let mut look = || {
                            let must_be_new = seen[at].load(Ordering::SeqCst);
                            let answer = client.get(url);
                            match compare(&answer, &documents[url]) {
                                Ok(()) => seen[at].store(true, Ordering::SeqCst),
                                Err(why) => assert!(!must_be_new, "{url}: seen, and then {why}"),
                            }
                            if must_be_new { Ok(answer) } else { Err(format!("{:?}", answer.head)) }
                        };
                        eventually(&format!("the new event in {url}, in {parts:?}"), &mut look);
                        (0..LOOKS).for_each(|_| drop(look()));
                    }
                });
            }
            let posted = Client::of(pipeline.proxy()).ask(&Request::post("/events/wiki", &event));
            assert_eq!((posted.status(), posted.json()["accepted"].as_u64()), (202, Some(1)), "{}", posted.text());
        });

        for (url, before) in urls.iter().zip(before) {
            let after = hit(&mut client, url, 200);
            assert_ne!(after.field("etag"), before.field("etag"));
            assert!(version(&after) > version(&before), "{:?} after {:?}", after.head, before.head);
            conditional(&mut client, url, &before, &after);
        }
        let items = hit(&mut client, &urls[0], 200).json()["items"].clone();
        assert_eq!(items[0]["id"], Value::from(id_of(&event)));
    }
}

/// What `millpond-version` says.
pub fn version(answer: &Response) -> (u64, u64) {
    let text = answer.field("millpond-version").unwrap_or_else(|| panic!("no version: {:?}", answer.head));
    let numbers = text.split_once('-').and_then(|(epoch, at)| Some((epoch.parse().ok()?, at.parse().ok()?)));
    numbers.unwrap_or_else(|| panic!("{text} is no version"))
}

/// Gets a document until it comes from the cache.
pub fn hit(client: &mut Client, url: &str, status: u16) -> Response {
    eventually(&format!("a hit of {url}"), || {
        let answer = client.get(url);
        assert_eq!(answer.status(), status, "{url}: {:?}, {}", answer.head, answer.text());
        if answer.detail() == "hit" { Ok(answer) } else { Err(answer.detail().to_owned()) }
    })
}

/// `If-None-Match` with the validators of an older and of the current version.
fn conditional(client: &mut Client, url: &str, older: &Response, current: &Response) {
    let etag = current.field("etag").expect("a document has an ETag");
    let asks = |etag: &str| Request::get(url).field("If-None-Match", etag);
    let same = client.ask(&asks(etag));
    assert_eq!((same.status(), same.body.len(), same.detail()), (304, 0, "hit"), "{:?}", same.head);
    for name in ["etag", "cache-control"] {
        assert_eq!(same.field(name), current.field(name), "{name}");
    }
    assert_eq!(client.ask(&asks(&format!("\"other\", W/{etag}"))).status(), 304);
    let changed = client.ask(&asks(older.field("etag").unwrap_or("\"other\"")));
    assert_eq!((changed.status(), &changed.body), (200, &current.body));
}
