//! How soon a document shows an event: from the answer to a POST until a GET holds the event's id.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Method;
use millpond_shared::clock;

use super::PATIENCE;
use super::connection::{Broken, Connection, Job, Target};
use super::events::Key;
use super::tally::{latencies, percentiles, record};
use crate::Failure;

/// The key of the events that are watched for: no other event is about it.
const KEY: &str = "watched";
/// Between two events.
const EVERY: Duration = Duration::from_millis(50);
/// Between two looks at the document.
const LOOK: Duration = Duration::from_micros(200);
/// Longest that a document is watched for one event.
const GIVE_UP: Duration = Duration::from_secs(10);

/// What is watched.
#[derive(Clone)]
pub struct Watch {
    document: Target,
    job: Job,
}

impl Watch {
    pub fn new(url: &str, job: Job) -> Result<Watch, Failure> {
        Ok(Watch { document: Target::of("--watch", &url.replace("{key}", KEY))?, job })
    }
}

/// Watches until told to stop; then tells how long it took.
pub fn start(watch: Watch, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<String, Failure>>, Failure> {
    let stop = Arc::clone(stop);
    let run = move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::from_display)?;
        let (mut times, mut missed, mut first) = (latencies()?, 0, None);
        while !stop.load(Ordering::Acquire) {
            match runtime.block_on(async { tokio::time::timeout(PATIENCE, watch.once()).await }) {
                Ok(Ok(took)) => record(&mut times, took),
                Ok(Err(why)) => {
                    missed += 1;
                    first.get_or_insert(why.to_string());
                }
                Err(_) => missed += 1,
            }
            std::thread::sleep(EVERY);
        }
        let first = first.map(|why| format!("; the first: {why}")).unwrap_or_default();
        let seen = times.len();
        Ok(format!("watched    {}, {seen} times; missed: {missed}{first}\n", percentiles(&times)))
    };
    std::thread::Builder::new().name("watch".to_owned()).spawn(run).map_err(Failure::from_display)
}

/// Why it was not seen.
#[derive(Debug, thiserror::Error)]
enum Unseen {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the event was answered with {0}")]
    NotTaken(http::StatusCode),
    #[error("the document did not show it within {} s", GIVE_UP.as_secs())]
    TooLate,
}

impl Watch {
    async fn once(&self) -> Result<Duration, Unseen> {
        let mut reader = Connection::open(&self.document).await?;
        let mut sender = Connection::open(&self.job.target).await?;
        let Target { authority, path } = &self.document;
        let get = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
        let number = self.job.events.number();
        let (mut id, mut event, mut post) = (Vec::new(), Vec::new(), Vec::new());
        self.job.events.put_id(&mut id, number);
        self.job.events.put(&mut event, number, Key::Named(KEY));
        self.job.put_post(&mut post, &id, &event);
        // A look before, so that there is a copy that the event has to change.
        reader.ask(get.as_bytes(), Method::GET).await?;
        let (head, _) = sender.ask(&post, Method::POST).await?;
        let began = clock::monotonic();
        if !head.status.is_success() {
            return Err(Unseen::NotTaken(head.status));
        }
        while began.elapsed() < GIVE_UP {
            let (_, body) = reader.ask(get.as_bytes(), Method::GET).await?;
            if memchr::memmem::find(&body, &id).is_some() {
                return Ok(began.elapsed());
            }
            std::thread::sleep(LOOK);
        }
        Err(Unseen::TooLate)
    }
}
