//! Ingest: takes events over HTTP and answers once they are on disk.
//!
//! The walk of a request: `source` by its path → `batch`: body to elements → `element`: element to event and place →
//! append to the queues → `report`.

pub mod batch;
pub mod element;
mod report;
mod source;
#[cfg(test)]
mod tests;

pub use element::EVENT_MAX_BYTES;
pub use source::{IdRule, Shape, Source};

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode, header};
use millpond_shared::clock;
use millpond_shared::event::Event;
use millpond_shared::version::QueueId;
use millpond_shared::wire::Origin;
use prometheus::{IntCounterVec, Opts, Registry};
use ring::rand::{SecureRandom, SystemRandom};

use crate::http::{Answer, Handler, Refusals, method_not_allowed, refusal};
use crate::queue::{EventQueues, Fate, QueueError};
use batch::NoBatch;
use element::{Built, Place, hexadecimal};
use report::Report;

/// Most events in one request unless configured; one more is answered 413.
pub const BATCH_EVENTS_DEFAULT: usize = 10_000;
/// Bodies from this size on are taken apart beside the async workers, in bytes: it takes them milliseconds.
const LARGE_BODY: usize = 256 << 10;

/// The ingest role.
pub struct Ingest {
    sources: Vec<Arc<Source>>,
    queues: Arc<dyn EventQueues>,
    batch_max_events: usize,
    events: IntCounterVec,
    refusals: Refusals,
}

/// An event on its way to a queue.
#[derive(Clone)]
struct Sent {
    index: usize,
    event: Event<'static>,
    /// Whether its id came from the producer, so that a repeat must be recognised.
    repeatable: bool,
    /// Whether any queue will do.
    movable: bool,
}

/// What a body holds.
#[derive(Default)]
struct Batch {
    pinned: BTreeMap<QueueId, Vec<Sent>>,
    anywhere: Vec<Sent>,
    /// Where `anywhere` is tried first.
    first_try: u64,
    report: Report,
}

impl Ingest {
    pub fn new(
        sources: Vec<Source>,
        queues: Arc<dyn EventQueues>,
        batch_max_events: usize,
        registry: &Registry,
    ) -> Result<Ingest, prometheus::Error> {
        let events = IntCounterVec::new(
            Opts::new("millpond_events_total", "Events that producers sent, by what became of them"),
            &["source", "outcome"],
        )?;
        registry.register(Box::new(events.clone()))?;
        for source in &sources {
            for outcome in ["accepted", "duplicate", "rejected", "refused"] {
                events.with_label_values(&[source.name.as_str(), outcome]);
            }
        }
        let sources = sources.into_iter().map(Arc::new).collect();
        Ok(Ingest { sources, queues, batch_max_events, events, refusals: Refusals::register(registry, "ingest")? })
    }

    async fn take(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        let Some(source) = self.source(head.uri.path()) else { return self.unknown_path(head.uri.path()) };
        if head.method != Method::POST {
            return method_not_allowed("POST");
        }
        if body.len() as u64 > source.body_max {
            return too_large(&format!("the body is larger than {} bytes, the limit of this source", source.body_max));
        }
        let field = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let encoding = field(header::CONTENT_ENCODING);
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
            let problem = format!("the body is encoded with `{encoding}`");
            return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem, "send it without Content-Encoding");
        }
        let queues = match self.queues.count().await {
            Ok(count) => count.max(1),
            Err(error) => return unavailable(&error.to_string()),
        };
        match self.parted(source.clone(), body, field(header::CONTENT_TYPE).to_owned(), queues).await {
            Ok(batch) => self.append(source, batch, queues).await.answer(),
            Err(Unparted::Body(NoBatch::Empty)) => {
                refusal(StatusCode::BAD_REQUEST, "the body holds no event", "send a JSON object, an array, or lines")
            }
            Err(Unparted::Body(NoBatch::TooMany)) => {
                too_large(&format!("the body holds more than {} events, the limit", self.batch_max_events))
            }
            Err(Unparted::NoRandomness) => unavailable("the system has no randomness to make ids of"),
            Err(Unparted::Ended) => unavailable("the process is ending"),
        }
    }

    fn source(&self, path: &str) -> Option<&Arc<Source>> {
        self.sources.iter().find(|source| source.path == path)
    }

    fn unknown_path(&self, path: &str) -> Response<Bytes> {
        let known: Vec<&str> = self.sources.iter().map(|source| source.path.as_str()).collect();
        let fix = format!("POST events to {}", known.join(", "));
        refusal(StatusCode::NOT_FOUND, format!("no source takes events at {path}"), fix)
    }

    /// Takes the body apart, here or beside the async workers.
    async fn parted(
        &self,
        source: Arc<Source>,
        body: Bytes,
        content_type: String,
        queues: u16,
    ) -> Result<Batch, Unparted> {
        let max_events = self.batch_max_events;
        if body.len() < LARGE_BODY {
            return part(&source, &body, &content_type, max_events, queues);
        }
        let work = move || part(&source, &body, &content_type, max_events, queues);
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(Unparted::Ended))
    }

    /// Appends to all queues concerned at once; what may go anywhere goes where there is room.
    async fn append(&self, source: &Source, batch: Batch, queues: u16) -> Report {
        let Batch { mut pinned, anywhere, first_try, mut report } = batch;
        let first = queue_of(first_try, queues);
        pinned.entry(first).or_default().extend(anywhere);
        let appended = pinned.into_iter().map(|(queue, sent)| self.append_to(queue, source, sent));
        let mut homeless = Vec::new();
        for outcome in join_all(appended).await {
            outcome.tell(&mut report, &mut homeless);
        }
        let others = (1..queues).map(|step| (first + step) % queues);
        for queue in others {
            if homeless.is_empty() {
                break;
            }
            let sent = std::mem::take(&mut homeless);
            self.append_to(queue, source, sent).await.tell(&mut report, &mut homeless);
        }
        for sent in homeless {
            report.refused(sent.index, FULL);
        }
        self.count(source, &report);
        report
    }

    /// Appends to one queue, in the order they were sent.
    async fn append_to(&self, queue: QueueId, source: &Source, sent: Vec<Sent>) -> Outcome {
        let window = sent.iter().any(|sent| sent.repeatable).then_some(source.window);
        let kept = sent.iter().map(|sent| (sent.index, sent.movable.then(|| sent.clone()))).collect();
        let events: Vec<_> = sent.into_iter().map(|sent| sent.event).collect();
        let fates = if events.is_empty() { Ok(Vec::new()) } else { self.queues.append(queue, window, events).await };
        Outcome { queue, kept, fates }
    }

    fn count(&self, source: &Source, report: &Report) {
        let refused = report.rejected.iter().filter(|rejected| rejected.retry).count();
        for (outcome, count) in [
            ("accepted", report.accepted),
            ("duplicate", report.duplicates),
            ("rejected", report.rejected.len() - refused),
            ("refused", refused),
        ] {
            self.events.with_label_values(&[source.name.as_str(), outcome]).inc_by(count as u64);
        }
    }
}

const FULL: &str = "its event queue is full: send it again later";
const TOO_LARGE: &str =
    "it is larger than a message of the queue's engine may be: make it smaller, or raise max_payload there";

/// What became of an append to one queue.
struct Outcome {
    queue: QueueId,
    /// The index of each event, and the event itself if another queue may take it.
    kept: Vec<(usize, Option<Sent>)>,
    fates: Result<Vec<Fate>, QueueError>,
}

impl Outcome {
    /// Tells the report; what found no room and may go elsewhere becomes homeless.
    fn tell(self, report: &mut Report, homeless: &mut Vec<Sent>) {
        let fates = match self.fates {
            Ok(fates) => fates,
            // Whether it was stored nobody knows: another queue could store it twice, the producer must ask again.
            Err(error) => {
                return self.kept.iter().for_each(|(index, _)| report.refused(*index, error.to_string()));
            }
        };
        for ((index, movable), fate) in self.kept.into_iter().zip(fates) {
            match (fate, movable) {
                (Fate::Stored { offset }, _) => report.stored(self.queue, offset),
                (Fate::Duplicate, _) => report.duplicates += 1,
                (Fate::TooLarge, _) => report.rejected(index, TOO_LARGE),
                (Fate::Full, Some(sent)) => homeless.push(sent),
                (Fate::Full, None) => report.refused(index, FULL),
            }
        }
    }
}

/// Why a body was not taken apart.
enum Unparted {
    Body(NoBatch),
    NoRandomness,
    Ended,
}

fn part(source: &Source, body: &[u8], content_type: &str, max_events: usize, queues: u16) -> Result<Batch, Unparted> {
    let received = clock::wall_ms();
    let mut ids = Ids::new()?;
    let mut batch = Batch { first_try: ids.random, ..Batch::default() };
    for (index, element) in
        batch::split(body, content_type, max_events).map_err(Unparted::Body)?.into_iter().enumerate()
    {
        let built = element.and_then(|text| element::build(source, text, received, || ids.next()));
        match built {
            Err(reason) => batch.report.rejected(index, reason),
            Ok(Built { event, place, repeatable }) => {
                let sent = Sent { index, event, repeatable, movable: place == Place::Any };
                match place {
                    Place::Pinned(hash) => batch.pinned.entry(queue_of(hash, queues)).or_default().push(sent),
                    Place::Any => batch.anywhere.push(sent),
                }
            }
        }
    }
    Ok(batch)
}

fn queue_of(hash: u64, queues: u16) -> QueueId {
    QueueId::try_from(hash % u64::from(queues.max(1))).unwrap_or_default()
}

/// Ids that nobody has given before: random ones, of which those of a batch share a part.
struct Ids {
    random: u64,
    prefix: String,
    next: u32,
}

impl Ids {
    fn new() -> Result<Ids, Unparted> {
        let mut random = [0; 12];
        SystemRandom::new().fill(&mut random).map_err(|_| Unparted::NoRandomness)?;
        let number = random.iter().fold(0, |sum: u64, byte| sum.rotate_left(8) ^ u64::from(*byte));
        Ok(Ids { random: number, prefix: hexadecimal(&random), next: 0 })
    }

    fn next(&mut self) -> String {
        self.next += 1;
        format!("{}{:08x}", self.prefix, self.next)
    }
}

fn too_large(problem: &str) -> Response<Bytes> {
    refusal(StatusCode::PAYLOAD_TOO_LARGE, problem, "send it in smaller parts")
}

fn unavailable(error: &str) -> Response<Bytes> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, error, "send the batch again later");
    response.headers_mut().insert(header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    response
}

#[async_trait]
impl Origin for Ingest {
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.take(request).await
    }
}

#[async_trait]
impl Handler for Ingest {
    async fn handle(&self, request: Request<Bytes>) -> Answer {
        self.take(request).await.into()
    }

    fn body_limit(&self, target: &str) -> u64 {
        let path = target.split('?').next().unwrap_or(target);
        self.source(path).map_or(UNKNOWN_BODY_MAX, |source| source.body_max)
    }

    fn refused(&self, reason: &'static str) {
        self.refusals.count(reason);
    }
}

/// Largest body that is read to a path that no source has: enough to say so, in bytes.
const UNKNOWN_BODY_MAX: u64 = 64 << 10;
