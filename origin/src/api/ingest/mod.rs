//! Ingest: takes events over HTTP and answers once they are on disk.
//!
//! The walk of a request (`walk`): `source` by its path, and the `door` where its rate is watched → `auth`: who sent it →
//! `coding`, `cloud_events`: what its body is → `parts`: verified body to elements (`batch`), each to event and place
//! (`element`, `members`, `scan`, `new_ids`) → `append` to the queues → `report`. Lines of any number go by `lines`
//! instead; a body that comes by a call is `gathered`. `answers` has what is said when something is wrong.

mod answers;
mod append;
pub mod asked;
pub mod auth;
pub mod batch;
mod bucket;
pub mod cloud_events;
mod coding;
mod door;
pub mod element;
#[cfg(test)]
mod format_tests;
mod gathered;
mod lines;
mod members;
mod new_ids;
mod parts;
mod report;
mod scan;
#[cfg(test)]
mod signed_tests;
mod source;
#[cfg(test)]
mod tests;
mod walk;

pub use auth::Auth;
pub use bucket::Rate;
pub use element::EVENT_MAX_BYTES;
pub use source::{IdRule, Shape, Source};

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use millpond_shared::clock;
use millpond_shared::http1::{Refusal, RequestHead};
use millpond_shared::wire::{Intake, Origin};
use prometheus::Registry;
use tokio::sync::Semaphore;

use crate::http::{Answer, Handler, Refusals, Room};
use crate::queue::EventQueues;
use asked::Asked;
use auth::Replays;
use gathered::Gathered;
use new_ids::RandomIds;
use walk::{MEMORY_MAX_KIB, ROOM_BYTES, SMALL_BODY, Walk};

/// Most events in one request unless configured; one more is answered 413.
pub const BATCH_EVENTS_DEFAULT: usize = 10_000;

/// The ingest role.
pub struct Ingest {
    walk: Arc<Walk>,
}

/// The ingest role can't be started.
#[derive(Debug, thiserror::Error)]
pub enum NoIngest {
    #[error("the metrics of ingest can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the system has no randomness to make ids of")]
    NoRandomness,
}

impl Ingest {
    pub fn new(
        sources: Vec<Source>,
        queues: Arc<dyn EventQueues>,
        batch_max_events: usize,
        registry: &Registry,
    ) -> Result<Ingest, NoIngest> {
        let doors = door::doors(sources, registry)?.into_iter();
        let walk = Walk {
            doors: doors.map(|door| (door.source.target(), Arc::new(door))).collect(),
            queues,
            batch_max_events,
            ids: Arc::new(RandomIds::new().map_err(|_| NoIngest::NoRandomness)?),
            replays: Replays::new(clock::wall_secs()),
            in_memory: Arc::new(Semaphore::new(MEMORY_MAX_KIB)),
            room: Room::of(ROOM_BYTES),
            refusals: Refusals::register(registry, "ingest")?,
        };
        Ok(Ingest { walk: Arc::new(walk) })
    }
}

#[async_trait]
impl Origin for Ingest {
    fn intake(&self, head: &Request<()>, length: Option<u64>) -> Intake<'_> {
        let target = head.uri().path_and_query().map_or("", |target| target.as_str());
        match Walk::intake(&self.walk, &Asked::new(head.method(), target, head.headers()), length) {
            Intake::Whole { max_bytes } if length.is_none_or(|length| length > SMALL_BODY) => {
                Intake::Pieces(Box::new(Gathered::new(Arc::clone(&self.walk), head.clone(), max_bytes)))
            }
            intake => intake,
        }
    }

    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        self.walk.take(&Asked::new(&head.method, target, &head.headers), body).await
    }
}

#[async_trait]
impl Handler for Ingest {
    async fn handle(&self, request: Request<Bytes>) -> Answer {
        self.answer(request).await.into()
    }

    async fn handle_parsed(&self, head: &RequestHead, body: Bytes) -> Result<Answer, Refusal> {
        let asked = Asked::new(&head.method, head.target.path_and_query(), &head.fields);
        Ok(self.walk.take(&asked, body).await.into())
    }

    fn body_limit(&self, target: &str) -> u64 {
        let path = target.split('?').next().unwrap_or(target);
        self.walk.doors.get(path).map_or(0, |door| door.source.body_max)
    }

    fn intake(&self, head: &RequestHead, length: Option<u64>) -> Intake<'_> {
        Walk::intake(&self.walk, &Asked::new(&head.method, head.target.path_and_query(), &head.fields), length)
    }

    fn refused(&self, reason: &'static str) {
        self.walk.refusals.count(reason);
    }
}
