//! Producers that send until they are acknowledged, and readers that watch what they are given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use millpond_shared::clock;
use serde_json::{Value, json};

use crate::e2e::feeds::{compare, version};
use crate::e2e::model::{Expected, Fate, Model, encoded};
use crate::harness::client::{Client, Request, Response};
use crate::harness::eventually;
use crate::harness::process::lock;
use crate::harness::random::Random;

const PRODUCERS: usize = 2;
const READERS: usize = 2;
/// Most events in one batch.
const BATCH_MAX: usize = 40;
/// Documents that readers choose from: those that changed last.
const RECENT: usize = 40;
/// Users of one producer that events are about in turn, and for how many events.
const USERS: usize = 8;
const USERS_FOR: usize = 360;

/// What readers were given since somebody looked.
#[derive(Debug, Default)]
pub struct Watched {
    /// How long each answer took.
    pub took: Vec<Duration>,
    /// Answers that were errors, and connections that ended without one.
    pub failed: Vec<String>,
}

/// What the clients of one proxy do and see.
pub struct Traffic {
    proxy: SocketAddr,
    over: AtomicBool,
    /// How often the proxy was killed: a new one has nothing in its cache.
    life: AtomicUsize,
    /// Every event that was acknowledged.
    model: Mutex<Model>,
    acknowledged: AtomicU64,
    reads: AtomicU64,
    watched: Mutex<Watched>,
    recent: Mutex<Vec<String>>,
}

impl Traffic {
    pub fn to(proxy: SocketAddr) -> Traffic {
        Traffic {
            proxy,
            over: AtomicBool::new(false),
            life: AtomicUsize::new(0),
            model: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            watched: Mutex::default(),
            recent: Mutex::default(),
        }
    }

    /// Starts all clients.
    pub fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, random: &mut Random) -> Running<'scope> {
        let mut clients = Vec::new();
        for number in 0..PRODUCERS {
            let random = Random::from(random.next());
            clients.push(scope.spawn(move || self.produce(number, random)));
        }
        for _ in 0..READERS {
            let random = Random::from(random.next());
            clients.push(scope.spawn(move || self.read(random)));
        }
        Running { traffic: self, clients }
    }

    /// Says that the proxy is about to be killed.
    pub fn proxy_ends(&self) {
        self.life.fetch_add(1, Ordering::SeqCst);
    }

    fn produce(&self, number: usize, mut random: Random) {
        let mut client = Client::of(self.proxy);
        let mut next = 0;
        while !self.over.load(Ordering::SeqCst) {
            let count = 1 + random.below(BATCH_MAX);
            let events: Vec<Made> = (next..next + count).map(|n| Made::new(number, n)).collect();
            next += count;
            let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
            let request = Request::post("/events/wiki", texts.join("\n"));
            eventually("an acknowledgement", || self.sent(&mut client, &request, count));
            let mut model = lock(&self.model);
            for text in texts {
                assert_eq!(model.take(text), Fate::Accepted, "every event is another one");
            }
            drop(model);
            self.acknowledged.fetch_add(count as u64, Ordering::SeqCst);
            let mut recent = lock(&self.recent);
            recent.extend(events.into_iter().flat_map(|event| event.urls));
            let surplus = recent.len().saturating_sub(RECENT);
            recent.drain(..surplus);
        }
    }

    /// Sends a batch; anything but a whole acknowledgement must be a refusal in words, or the end of the connection.
    fn sent(&self, client: &mut Client, request: &Request, count: usize) -> Result<(), String> {
        let answer = client.try_ask(request).map_err(|error| error.to_string())?;
        match answer.status() {
            202 => {
                let told = answer.json();
                let number = |name: &str| told[name].as_u64().expect("a number");
                assert_eq!(number("accepted") + number("duplicates"), count as u64, "{told}");
                assert_eq!(told["rejected"], json!([]));
                Ok(())
            }
            502..=504 => Err(format!("{}: {}", answer.status(), answer.text())),
            other => panic!("{other}: {:?}, {}", answer.head, answer.text()),
        }
    }

    fn read(&self, mut random: Random) {
        let mut client = Client::of(self.proxy);
        let mut life = usize::MAX;
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        let mut kept: BTreeSet<String> = BTreeSet::new();
        while !self.over.load(Ordering::SeqCst) {
            let url = {
                let recent = lock(&self.recent);
                recent.get(random.below(recent.len())).cloned()
            };
            let Some(url) = url else {
                std::thread::yield_now();
                continue;
            };
            let before = self.life.load(Ordering::SeqCst);
            if life != before {
                (life, client, kept) = (before, Client::of(self.proxy), BTreeSet::new());
            }
            let asked = clock::monotonic();
            let answer = client.try_ask(&Request::get(&url));
            if self.life.load(Ordering::SeqCst) != before {
                continue;
            }
            self.watch(&url, asked.elapsed(), &answer);
            match answer {
                Ok(answer) => judge(&answer, &url, &mut seen, &mut kept),
                // Only a proxy that has just come back, or is about to, does not answer.
                Err(_) => std::thread::yield_now(),
            }
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn watch(&self, url: &str, took: Duration, answer: &std::io::Result<Response>) {
        let mut watched = lock(&self.watched);
        watched.took.push(took);
        match answer {
            Ok(answer) if answer.status() < 500 => {}
            Ok(answer) => watched.failed.push(format!("{url}: {}: {}", answer.status(), answer.text())),
            Err(error) => watched.failed.push(format!("{url}: {error}")),
        }
    }

    /// What readers were given since this was asked last.
    pub fn take_watched(&self) -> Watched {
        std::mem::take(&mut *lock(&self.watched))
    }

    /// Every document as the acknowledged events make it.
    pub fn documents(&self) -> BTreeMap<String, Expected> {
        let model = lock(&self.model);
        let documents = model.documents();
        let items = |(url, document): (&String, &Expected)| {
            let is_user = url.starts_with("/users/") && url.ends_with(".json");
            document.value["items"].as_array().filter(|_| is_user).map_or(0, Vec::len)
        };
        let listed: usize = documents.iter().map(items).sum();
        assert_eq!(listed as u64, self.acknowledged(), "every event can be seen: none is too old for its feed");
        documents
    }

    /// Compares every document with what the acknowledged events make of it.
    pub fn compare_all(&self) {
        let mut client = Client::of(self.proxy);
        let documents = self.documents();
        for (url, expected) in &documents {
            eventually(&format!("{url} as it must be"), || compare(&client.get(url), expected));
        }
        println!(
            "{} events acknowledged, {} reads, {} documents compared",
            self.acknowledged(),
            self.reads.load(Ordering::SeqCst),
            documents.len()
        );
    }

    /// In how many documents the acknowledged events are.
    pub fn filings(&self) -> usize {
        lock(&self.model).filings()
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }
}

/// What a reader was given of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    version: (u64, u64),
    /// In the feed of a user.
    events: usize,
}

/// What a reader may be given.
fn judge(answer: &Response, url: &str, seen: &mut BTreeMap<String, Seen>, kept: &mut BTreeSet<String>) {
    // It says that it may be older: its shard has not caught up since it was started again.
    if answer.field("millpond-behind").is_some() {
        assert!(!kept.contains(url), "{url} was in the cache: {:?}", answer.head);
        return;
    }
    match answer.status() {
        200 => {
            let now = Seen { version: version(answer), events: in_order(answer, url) };
            let before = seen.insert(url.to_owned(), now).unwrap_or_default();
            let goes_on = now.version >= before.version && now.events >= before.events;
            assert!(goes_on, "{url}: {now:?} after {before:?}: {:?}", answer.head);
            let status = answer.field("cache-status").unwrap_or_default();
            if status.contains("; stored") || status.contains("; hit") {
                kept.insert(url.to_owned());
            }
        }
        // Not applied yet.
        404 => assert!(!seen.contains_key(url), "{url} was there: {:?}", answer.head),
        502..=504 => assert!(!kept.contains(url), "{url} was in the cache: {:?}", answer.head),
        other => panic!("{url}: {other}: {:?}, {}", answer.head, answer.text()),
    }
}

/// How many events a user's feed has: always the first so many that were sent of this user, since their order is kept.
fn in_order(answer: &Response, url: &str) -> usize {
    if !url.ends_with("/feed.json") {
        return 0;
    }
    let document = answer.json();
    let number = |item: &Value| item["content_text"].as_str()?.rsplit_once('.')?.1.parse::<usize>().ok();
    let items = document["items"].as_array().expect("a feed has items");
    let mut numbers: Vec<usize> = items.iter().map(|item| number(item).expect("a number")).collect();
    numbers.sort_unstable();
    let first = numbers.first().map_or(0, |n| n / USERS_FOR * USERS_FOR + n % USERS);
    let sent: Vec<usize> = (first..).step_by(USERS).take(numbers.len()).collect();
    assert_eq!(numbers, sent, "{url}: an event is there before one that was sent earlier");
    numbers.len()
}

/// The clients, at work.
pub struct Running<'scope> {
    traffic: &'scope Traffic,
    clients: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl Running<'_> {
    /// Waits for so many more acknowledged events.
    #[track_caller]
    pub fn wait_for_events(&self, count: usize) {
        self.wait_for(&self.traffic.acknowledged, count, "acknowledged events");
    }

    /// Waits for so many more reads.
    #[track_caller]
    pub fn wait_for_reads(&self, count: usize) {
        self.wait_for(&self.traffic.reads, count, "reads");
    }

    /// Waits for a moment that is set.
    #[track_caller]
    pub fn wait_until(&self, moment: Instant) {
        eventually("a moment", || {
            assert!(!self.clients.iter().any(ScopedJoinHandle::is_finished), "a client has failed");
            let left = moment.saturating_duration_since(clock::monotonic());
            if left.is_zero() { Ok(()) } else { Err(format!("{left:?} to go")) }
        });
    }

    #[track_caller]
    fn wait_for(&self, counter: &AtomicU64, count: usize, what: &str) {
        let until = counter.load(Ordering::SeqCst) + count as u64;
        eventually(&format!("{count} more {what}"), || {
            assert!(!self.clients.iter().any(ScopedJoinHandle::is_finished), "a client has failed");
            let now = counter.load(Ordering::SeqCst);
            if now >= until { Ok(()) } else { Err(format!("{} to go", until - now)) }
        });
    }

    /// Ends the clients; what producers have under way is acknowledged first.
    pub fn stop(mut self) {
        self.traffic.over.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

/// Says that it is over if the test fails, so that the clients end and the failure is told.
impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.traffic.over.store(true, Ordering::SeqCst);
    }
}

/// An event as a producer sends it, and the documents it is in.
struct Made {
    text: String,
    urls: [String; 4],
}

impl Made {
    /// Few enough in every feed that none is ever too old for it; some late, some at the same time.
    fn new(producer: usize, n: usize) -> Made {
        let user = format!("{producer}/user {}", n / USERS_FOR * USERS + n % USERS);
        let channel = format!("#{producer} {}", n / 90);
        let page = format!("page {}", n % 5);
        let text = json!({
            "time": 1_442_016_000_000_u64 + (n / 3 * 7919 % 100_000) as u64,
            "channel": channel, "page": page, "user": user, "comment": format!("{producer}.{n}"), "isRobot": false,
            "delta": n,
        })
        .to_string();
        let (user, channel, page) = (encoded(&user), encoded(&channel), encoded(&page));
        let urls = [
            format!("/users/{user}/feed.json"),
            format!("/users/{user}/feed.xml"),
            format!("/channels/{channel}/edits.json"),
            format!("/pages/{channel}/{page}/latest.json"),
        ];
        Made { text, urls }
    }
}
