//! From the body of a request to the events it holds: verify, split, build. What takes CPU time, and nothing that waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millpond_shared::event::Event;
use millpond_shared::version::QueueId;

use super::auth::{Auth, Claim, Unverified, Verified};
use super::batch::{self, NoBatch};
use super::cloud_events::Format;
use super::coding::{Coding, NotDecoded};
use super::element::{self, Built, Element, Place};
use super::new_ids::{NewIds, RandomIds};
use super::report::Report;
use super::source::Source;
use crate::http::Share;

/// A body, and what has to be known to take it apart.
pub struct Parcel {
    pub source: Arc<Source>,
    /// What the head says about who sent it.
    pub claim: Option<Claim>,
    pub coding: Coding,
    pub body: Bytes,
    pub format: Format,
    pub limits: PartLimits,
    pub ids: Arc<RandomIds>,
    /// When it was taken: milliseconds since the Unix epoch.
    pub received: u64,
    /// What it may become, of what there is for bodies.
    pub share: Share,
}

/// What one request may hold, and what for.
#[derive(Clone, Copy, Debug)]
pub struct PartLimits {
    pub max_events: usize,
    /// Number of event queues.
    pub queues: u16,
}

/// An event on its way to a queue.
#[derive(Clone)]
pub struct Sent {
    pub index: usize,
    pub event: Event<'static>,
    /// Whether a repeat of it must be recognised.
    pub repeatable: bool,
    /// Whether any queue will do.
    pub movable: bool,
}

/// What a body holds.
#[derive(Default)]
pub struct Batch {
    pub pinned: BTreeMap<QueueId, Vec<Sent>>,
    pub anywhere: Vec<Sent>,
    /// Where `anywhere` is tried first.
    pub first_try: QueueId,
    pub report: Report,
    pub verified: Option<Verified>,
    /// What its body has become takes this much, until the events are stored.
    pub share: Option<Share>,
}

/// Why a body was not taken apart.
#[derive(Debug)]
pub enum Unparted {
    Unverified(Unverified),
    NotDecoded(NotDecoded),
    NoBatch(NoBatch),
}

impl From<Unverified> for Unparted {
    fn from(unverified: Unverified) -> Unparted {
        Unparted::Unverified(unverified)
    }
}

impl Parcel {
    /// Nothing of the body is read, or decoded, before it is verified.
    pub fn open(mut self) -> Result<Batch, Unparted> {
        let verified = match (&self.source.auth, self.claim) {
            (Auth::Webhooks(webhooks), Some(claim)) => Some(webhooks.verify(claim, &self.body)?),
            (Auth::Webhooks(_), None) => return Err(Unverified::Missing("webhook-id").into()),
            (Auth::None | Auth::SignedUrl(_), _) => None,
        };
        let ids = match &verified {
            Some(request) => NewIds::Of(request),
            None => NewIds::Random(&self.ids),
        };
        let may_be = |bytes: u64| match self.share.grow_to(bytes) {
            _ if bytes > self.source.body_max => Err(NotDecoded::TooLarge),
            grown => grown.map_err(NotDecoded::NoRoom),
        };
        let body = self.coding.decode(self.body, may_be).map_err(Unparted::NotDecoded)?;
        let PartLimits { max_events, queues } = self.limits;
        let mut batch = Batch { first_try: queue_of(self.ids.number(), queues), ..Batch::default() };
        let (received, cloud_event) = (self.received, self.format.is_cloud_event());
        let elements = batch::split(&body, &self.format, max_events).map_err(Unparted::NoBatch)?;
        let capacity = Capacity::of(elements.len(), queues);
        let wanted = self.source.wanted();
        for (index, element) in elements.into_iter().enumerate() {
            let built = element.and_then(|text| {
                let element = Element { text: &text, cloud_event, wanted: wanted.as_ref(), received };
                element::build(&self.source, element, || ids.assign(index))
            });
            batch.add(index, built, queues, capacity);
        }
        (batch.verified, batch.share) = (verified, Some(self.share));
        Ok(batch)
    }
}

impl Batch {
    /// Number of events that are to be stored.
    pub fn len(&self) -> usize {
        self.anywhere.len() + self.pinned.values().map(Vec::len).sum::<usize>()
    }

    fn add(&mut self, index: usize, built: Result<Built, String>, queues: u16, capacity: Capacity) {
        match built {
            Err(reason) => self.report.rejected(index, reason),
            Ok(Built { event, place, repeatable }) => {
                let sent = Sent { index, event, repeatable, movable: place == Place::Any };
                match place {
                    Place::Pinned(hash) => {
                        let pinned = self.pinned.entry(queue_of(hash, queues));
                        pinned.or_insert_with(|| Vec::with_capacity(capacity.pinned)).push(sent);
                    }
                    Place::Any => {
                        if self.anywhere.is_empty() {
                            self.anywhere.reserve(capacity.anywhere);
                        }
                        self.anywhere.push(sent);
                    }
                }
            }
        }
    }
}

/// How many events to make room for, each time that the first of a kind comes: lists that grow are moved.
#[derive(Clone, Copy)]
struct Capacity {
    /// Of one queue: its share, and a quarter more, as hashes don't spread evenly.
    pinned: usize,
    anywhere: usize,
}

impl Capacity {
    fn of(elements: usize, queues: u16) -> Capacity {
        let share = elements.div_ceil(usize::from(queues.max(1)));
        Capacity { pinned: (share + share.div_ceil(4)).min(elements), anywhere: elements }
    }
}

fn queue_of(hash: u64, queues: u16) -> QueueId {
    QueueId::try_from(hash % u64::from(queues.max(1))).unwrap_or_default()
}
