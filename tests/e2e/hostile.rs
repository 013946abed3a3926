//! Requests that attack ingest, a thousand at a time: each gets its 4xx, memory stays bounded, and honest producers go on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use millpond_shared::clock;
use ring::hmac;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::client::{Client, Request};
use crate::harness::eventually;
use crate::harness::pipeline::{INGEST, Pipeline, QUEUE};
use crate::harness::process::{Millpond, lock};
use crate::harness::producers::{SECRET, pond_with};
use crate::harness::random::Random;

const SOURCES: &str = r#"
[[source]]
name = "signed"
path = "/events/signed"
partition = "{data.user}"
auth = { kind = "standard-webhooks", secrets = ["file:secret"] }

[[source]]
name = "open"
path = "/events/open"

[[source]]
name = "small"
path = "/events/small"
body_max = "64KiB"
"#;

/// Connections that attack at the same time.
const ATTACKERS: usize = 1_000;
/// What a source takes at most unless it says otherwise, in bytes.
const BODY_MAX: usize = 8 << 20;
/// How often each attack must be answered, and how many honest requests meanwhile.
const ANSWERS: usize = 20;
const HONEST: usize = 30;
/// How much more memory the process may take meanwhile, in MiB.
const MEMORY_MAX_MIB: usize = 256;
/// Bodies that become large, all at once, while nothing can be stored; and what the process may take for them, in MiB.
/// They would be more than 2 GiB, each of them several times. There is a quarter of a GiB of room for them.
const LARGE: usize = 300;
const LARGE_MEMORY_MAX_MIB: usize = 1_024;

/// A request that attacks, as it is sent.
struct Attack {
    name: &'static str,
    bytes: Vec<u8>,
    status: u16,
    /// It is not sent to its end; the answer comes when the server has waited long enough.
    slow: bool,
}

/// The fields that sign a request by Standard Webhooks.
fn signed(request: Request, id: &str, body: &[u8]) -> Request {
    let timestamp = clock::wall_secs().to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(SECRET).expect("base64"));
    let tag = hmac::sign(&key, &[format!("{id}.{timestamp}.").as_bytes(), body].concat());
    let signature = format!("v1,{}", STANDARD.encode(tag));
    request.field("webhook-id", id).field("webhook-timestamp", &timestamp).field("webhook-signature", &signature)
}

fn honest(id: &str) -> Request {
    let body = format!("{{\"id\":\"{id}\",\"type\":\"t\",\"data\":{{\"user\":\"u\"}}}}");
    signed(Request::post("/events/signed", &body), id, body.as_bytes())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn attacks(to: SocketAddr, replayed: &Request) -> Vec<Attack> {
    let attack = |name, request: Request, status| Attack { name, bytes: request.bytes(to), status, slow: false };
    let post = |body: &[u8]| Request::post("/events/open", body);
    let raw = |name, head: &str, body: &[u8], status, slow| {
        let head = format!("POST /events/open HTTP/1.1\r\nHost: {to}\r\n{head}");
        Attack { name, bytes: [head.as_bytes(), body].concat(), status, slow }
    };
    let forged = "{\"type\":\"t\",\"data\":{\"user\":\"u\"}}";
    let packed = gzip(b"{\"type\":\"t\",\"data\":{\"user\":\"u\"}}");
    let too_long = format!("Content-Length: {}\r\n\r\n", BODY_MAX + 1);
    let nearly = format!("Content-Length: {BODY_MAX}\r\n\r\n");
    vec![
        attack("forged", signed(Request::post("/events/signed", forged), "a", b"another body"), 401),
        attack("unsigned", Request::post("/events/signed", forged), 401),
        attack("replayed", replayed.clone(), 401),
        attack("truncated", post(b"{\"type\":\"t\",\"data\":{\"us"), 400),
        attack("truncated in its coding", post(&packed[..packed.len() - 9]).field("Content-Encoding", "gzip"), 400),
        raw("too large", &too_long, b"[", 413, false),
        attack("too large, of no length", Request::post_chunked("/events/small", &[&" ".repeat(80 << 10)]), 413),
        attack("a bomb", post(&gzip(&vec![b' '; 64 << 20])).field("Content-Encoding", "gzip"), 413),
        attack("nested", post(format!("{{\"type\":\"t\",\"data\":{}", "[".repeat(100_000)).as_bytes()), 400),
        attack("not UTF-8", post(b"{\"type\":\"t\",\"data\":\"\xff\xfe\"}"), 400),
        attack("not in its coding", post(b"{}").field("Content-Encoding", "zstd"), 400),
        attack("in an unknown coding", post(b"{}").field("Content-Encoding", "br"), 415),
        raw("of two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n\r\n", b"{}", 400, false),
        raw("a huge head", &format!("X: {}\r\n", "x".repeat(200 << 10)), b"", 431, false),
        raw("a slow head", "X: ", b"", 408, true),
        raw("a slow body", &nearly, b"[", 408, true),
        raw("a slow, large body", &nearly, &vec![b' '; 256 << 10], 408, true),
    ]
}

/// What the attackers were answered.
#[derive(Default)]
struct Answered {
    /// By the name of the attack.
    counts: Mutex<BTreeMap<&'static str, usize>>,
    wrong: Mutex<BTreeSet<String>>,
    over: AtomicBool,
}

impl Answered {
    /// Attacks until it is over.
    async fn attack(&self, to: SocketAddr, attack: &Attack) {
        while !self.over.load(Ordering::Relaxed) {
            let status = status(to, &attack.bytes).await;
            if status == Some(attack.status) {
                *lock(&self.counts).entry(attack.name).or_default() += 1;
            } else if status.is_some() {
                lock(&self.wrong).insert(format!("{}: {status:?}", attack.name));
            }
        }
    }

    /// Which attacks were not answered often enough.
    fn missing(&self, attacks: &[Attack]) -> Vec<&'static str> {
        let counts = lock(&self.counts);
        let enough =
            |attack: &&Attack| counts.get(attack.name).copied().unwrap_or(0) >= if attack.slow { 1 } else { ANSWERS };
        attacks.iter().filter(|attack| !enough(attack)).map(|attack| attack.name).collect()
    }
}

/// Sends a request; the status it is answered with. `None`: it was reset before it was all sent.
async fn status(to: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    // It may be refused before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    while answer.len() < "HTTP/1.1 400".len() {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_thousand_attackers_are_refused_and_honest_producers_go_on() {
    let pond = pond_with(SOURCES, "");
    for (way, to) in [("ingest", pond.address("ingest")), ("proxy", pond.proxy())] {
        let replayed = honest(&format!("replayed-{way}"));
        assert_eq!(replayed.ask(to).status(), 202);
        let mut attacks = attacks(to, &replayed);
        // The proxy waits longer for a body that pauses than a test may.
        attacks.retain(|attack| way == "ingest" || !attack.name.ends_with("body"));
        attack_and_measure(&pond, way, to, Arc::new(attacks));
    }
}

fn attack_and_measure(pond: &Millpond, way: &str, to: SocketAddr, attacks: Arc<Vec<Attack>>) {
    let before = pond.resident_mib();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let answered = Arc::new(Answered::default());
    for number in 0..ATTACKERS {
        let (answered, attacks) = (Arc::clone(&answered), Arc::clone(&attacks));
        runtime.spawn(async move { answered.attack(to, &attacks[number % attacks.len()]).await });
    }
    let (acknowledged, refused, mut most) = (AtomicUsize::new(0), Mutex::new(Vec::new()), before);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::of(to);
            while !answered.over.load(Ordering::Relaxed) {
                let number = acknowledged.load(Ordering::Relaxed) + lock(&refused).len();
                let answer = client.ask(&honest(&format!("honest-{number}-{way}")));
                if answer.status() == 202 {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                } else {
                    lock(&refused).push(format!("{}: {}", answer.status(), answer.text()));
                }
            }
        });
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("all attacks to be answered", || {
                most = most.max(pond.resident_mib());
                let (missing, honest) = (answered.missing(&attacks), acknowledged.load(Ordering::Relaxed));
                if missing.is_empty() && honest >= HONEST {
                    Ok(())
                } else {
                    Err(format!("not answered: {missing:?}; {honest} honest requests acknowledged"))
                }
            });
        }));
        answered.over.store(true, Ordering::Relaxed);
        if let Err(panic) = looked {
            println!("{:?} {:?}; {before} MiB, then {most} MiB", lock(&refused), lock(&answered.wrong));
            std::panic::resume_unwind(panic);
        }
    });
    println!("{way}: {before} MiB, then {most} MiB; answered {:?}", lock(&answered.counts));
    assert_eq!(*lock(&answered.wrong), BTreeSet::new(), "{way}");
    assert_eq!(*lock(&refused), Vec::<String>::new(), "{way}: honest requests");
    assert!(most - before <= MEMORY_MAX_MIB, "{way}: {before} MiB, then {most} MiB");
}

/// What small bodies become is in memory until it is stored: here it is not, as the queue does not answer.
#[test]
fn bodies_that_become_large_take_no_more_memory_than_there_is_room_for() {
    let mut pipeline = Pipeline::of(&[QUEUE]);
    pipeline.start(INGEST);
    let to = pipeline.address(INGEST, "ingest");
    let event = |n: usize, comment: &str| {
        format!("{{\"time\":{n},\"user\":\"u\",\"channel\":\"c\",\"page\":\"p\",\"comment\":\"{comment}\"}}\n")
    };
    assert_eq!(Request::post("/events/wiki", event(0, "before")).ask(to).status(), 202);
    let before = pipeline.resident_mib(INGEST);
    pipeline.signal(QUEUE, "STOP");
    // A ninetieth of it: what shrinks more is refused as a bomb.
    let mut random = Random::from(1);
    let noise: String = (0..1_250).map(|_| format!("{:016x}", random.next())).collect();
    let lines: String = (0..8).map(|n| event(n, &(noise.clone() + &"x".repeat(980_000)))).collect();
    let request = Request::post("/events/wiki", gzip(lines.as_bytes())).field("Content-Encoding", "gzip");
    let bytes = Arc::new(request.bytes(to));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let statuses = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..LARGE {
        let (bytes, statuses) = (Arc::clone(&bytes), Arc::clone(&statuses));
        runtime.spawn(async move {
            let answered = status(to, &bytes).await;
            lock(&statuses).push(answered);
        });
    }
    let mut most = before;
    eventually("all to be answered", || {
        most = most.max(pipeline.resident_mib(INGEST));
        let answered = lock(&statuses).len();
        if answered == LARGE { Ok(()) } else { Err(format!("{answered} answered; {most} MiB")) }
    });
    pipeline.signal(QUEUE, "CONT");
    println!("{before} MiB, then {most} MiB");
    assert!(lock(&statuses).iter().all(|status| *status == Some(503)), "{:?}", lock(&statuses));
    assert!(most - before <= LARGE_MEMORY_MAX_MIB, "{before} MiB, then {most} MiB");
    eventually("events to be taken again", || match Request::post("/events/wiki", event(0, "after")).ask(to) {
        answer if answer.status() == 202 => Ok(()),
        answer => Err(answer.text()),
    });
}
