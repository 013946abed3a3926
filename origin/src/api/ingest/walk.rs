//! What happens to a request, in the order it happens.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use millpond_shared::clock;
use millpond_shared::wire::Intake;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answers::{self, Refused};
use super::append;
use super::asked::Asked;
use super::auth::{self, Auth, Claim, Impression, Replays, Unverified, Verified};
use super::cloud_events::Format;
use super::coding::{Coding, Decoder};
use super::door::Door;
use super::lines::Lines;
use super::new_ids::RandomIds;
use super::parts::{Batch, Parcel, PartLimits, Unparted};
use super::report::Report;
use super::source::{Shape, Source};
use crate::http::{Refusals, Room, method_not_allowed, refusal};
use crate::queue::EventQueues;

/// Bodies from this size on are taken apart beside the async workers, in bytes: it takes them milliseconds.
pub const LARGE_BODY: usize = 256 << 10;
/// Bodies up to this size are mostly there with the head, in bytes: then all is judged at once, when they are.
pub const SMALL_BODY: u64 = 16 << 10;
/// Most KiB of bodies that were answered for with `?ack=memory` and are not stored yet; one more is answered 503.
pub const MEMORY_MAX_KIB: usize = 64 << 10;

/// Bytes that bodies in a coding may have become, and bodies gathered that come by a call; one more is answered 503.
pub const ROOM_BYTES: u64 = 256 << 20;

/// What every request needs.
pub struct Walk {
    /// By the path of their requests.
    pub doors: HashMap<String, Arc<Door>>,
    pub queues: Arc<dyn EventQueues>,
    pub batch_max_events: usize,
    pub ids: Arc<RandomIds>,
    pub replays: Replays,
    /// Room for what is answered for before it is stored, in KiB.
    pub in_memory: Arc<Semaphore>,
    /// Room for what bodies in a coding become, and for bodies that come by a call.
    pub room: Room,
    pub refusals: Refusals,
}

/// What a head asks for.
enum Wanted<'a> {
    /// To take the events of the body.
    Events(&'a Arc<Door>, Option<Claim>),
    /// To take the event that the URL is.
    Impression(&'a Arc<Door>, Impression),
}

/// When a batch is answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ack {
    /// Once it is on disk.
    Disk,
    /// At once.
    Memory,
}

impl Walk {
    /// What is to be done with the body, as far as the head can tell.
    pub fn intake<'a>(walk: &'a Arc<Walk>, asked: &Asked<'_>, length: Option<u64>) -> Intake<'a> {
        walk.judged(asked, length).unwrap_or_else(Intake::Nothing)
    }

    fn judged<'a>(self: &'a Arc<Walk>, asked: &Asked<'_>, length: Option<u64>) -> Result<Intake<'a>, Refused> {
        let door = self.doors.get(asked.path).ok_or_else(|| self.unknown_path(asked.path))?;
        door.admit().map_err(|until| {
            self.refusals.count("rate");
            answers::too_fast(&door.source, until)
        })?;
        if !self.queues.have_room() {
            self.refusals.count("full");
            return Err(answers::unavailable("the event queues are full"));
        }
        let max_bytes = door.source.body_max;
        if length.is_some_and(|length| length <= SMALL_BODY.min(max_bytes)) {
            return Ok(Intake::Whole { max_bytes });
        }
        self.wanted(asked)?;
        let coding = coding(asked)?;
        let lines = format(asked, &door.source)? == Format::Lines;
        let fits = length.is_some_and(|length| length <= max_bytes);
        // Nothing of a signed body may be stored before all of it is verified.
        if lines && !fits && door.source.auth == Auth::None {
            let decoder = Decoder::new(coding).map_err(|why| answers::not_decoded(&door.source, &why))?;
            return Ok(Intake::Pieces(Box::new(Lines::new(Arc::clone(self), Arc::clone(door), decoder))));
        }
        if length.is_some_and(|length| length > max_bytes) {
            return Err(answers::body_too_large(&door.source));
        }
        Ok(Intake::Whole { max_bytes })
    }

    /// Answers a request whose body is there.
    pub async fn take(&self, asked: &Asked<'_>, body: Bytes) -> Response<Bytes> {
        let taken = match self.wanted(asked) {
            Ok(Wanted::Events(door, claim)) => self.take_events(asked, door, claim, body).await,
            Ok(Wanted::Impression(door, impression)) => self.take_impression(door, impression).await,
            Err(refused) => Err(refused),
        };
        taken.unwrap_or_else(|refused| *refused)
    }

    /// Judges who sent a request, by its head.
    fn wanted(&self, asked: &Asked<'_>) -> Result<Wanted<'_>, Refused> {
        let door = self.doors.get(asked.path).ok_or_else(|| self.unknown_path(asked.path))?;
        match &door.source.auth {
            Auth::SignedUrl(_) if asked.method != Method::GET => Err(method_not_allowed("GET").into()),
            Auth::SignedUrl(signed) => {
                let read = signed.read(asked.path, asked.query, clock::wall_secs());
                let impression = read.map_err(|unverified| self.unverified(&door.source, &unverified))?;
                Ok(Wanted::Impression(door, impression))
            }
            Auth::None | Auth::Webhooks(_) if asked.method != Method::POST => Err(method_not_allowed("POST").into()),
            Auth::None => Ok(Wanted::Events(door, None)),
            Auth::Webhooks(webhooks) => {
                let claim = webhooks.claim(asked.fields, clock::wall_secs());
                let claim = claim.map_err(|unverified| self.unverified(&door.source, &unverified))?;
                Ok(Wanted::Events(door, Some(claim)))
            }
        }
    }

    async fn take_events(
        &self,
        asked: &Asked<'_>,
        door: &Arc<Door>,
        claim: Option<Claim>,
        body: Bytes,
    ) -> Result<Response<Bytes>, Refused> {
        if body.len() as u64 > door.source.body_max {
            return Err(answers::body_too_large(&door.source));
        }
        let (ack, coding, format) = (ack(asked)?, coding(asked)?, format(asked, &door.source)?);
        let queues = self.count_queues().await?;
        let size = body.len();
        let parcel = self.parcel(door, body, format, queues);
        let mut batch = self.opened(Parcel { claim, coding, ..parcel }).await?;
        door.charge(batch.len());
        let verified = batch.verified.take();
        // Whether its events are known will be found out behind the answer.
        if let (Ack::Memory, Some(request)) = (ack, &verified)
            && self.replays.knows(request)
        {
            return Err(self.unverified(&door.source, &Unverified::Replayed));
        }
        let report = match ack {
            Ack::Disk => self.append(door, batch, queues).await,
            Ack::Memory => self.append_behind(door, batch, queues, self.room_in_memory(size)?),
        };
        if let Some(verified) = &verified {
            self.refuse_replay(&door.source, verified, &report)?;
        }
        Ok(report.answer())
    }

    /// A body from `door`, in no coding and with no claim.
    pub fn parcel(&self, door: &Door, body: Bytes, format: Format, queues: u16) -> Parcel {
        Parcel {
            source: Arc::clone(&door.source),
            claim: None,
            coding: Coding::Identity,
            body,
            format,
            limits: PartLimits { max_events: self.batch_max_events, queues },
            ids: Arc::clone(&self.ids),
            received: clock::wall_ms(),
            share: self.room.share(),
        }
    }

    /// Takes a body apart, here or beside the async workers.
    pub async fn opened(&self, parcel: Parcel) -> Result<Batch, Refused> {
        let source = Arc::clone(&parcel.source);
        let opened = if parcel.body.len() < LARGE_BODY {
            parcel.open()
        } else {
            let opened = tokio::task::spawn_blocking(move || parcel.open()).await;
            opened.map_err(|_| answers::unavailable("the process is ending"))?
        };
        opened.map_err(|why| match why {
            Unparted::Unverified(unverified) => self.unverified(&source, &unverified),
            Unparted::NotDecoded(why) => answers::not_decoded(&source, &why),
            Unparted::NoBatch(why) => answers::no_batch(why, self.batch_max_events),
        })
    }

    pub async fn append(&self, door: &Door, batch: Batch, queues: u16) -> Report {
        let report = append::append(self.queues.as_ref(), queues, &door.source, batch).await;
        door.count(&report);
        report
    }

    fn room_in_memory(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refused> {
        let kib = u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.in_memory).try_acquire_many_owned(kib);
        room.map_err(|_| answers::unavailable("too much is answered for and not stored yet"))
    }

    /// Appends after the answer: what finds no room then is lost, and counted as that.
    fn append_behind(&self, door: &Arc<Door>, mut batch: Batch, queues: u16, room: OwnedSemaphorePermit) -> Report {
        let mut report = std::mem::take(&mut batch.report);
        report.taken_in_memory(batch.len());
        let (door, all) = (Arc::clone(door), Arc::clone(&self.queues));
        tokio::spawn(async move {
            let late = append::append(all.as_ref(), queues, &door.source, batch).await;
            door.count_late(&late);
            drop(room);
        });
        report
    }

    /// A request that stored nothing, since all of it was known, and that is the very same as before.
    fn refuse_replay(&self, source: &Source, request: &Verified, report: &Report) -> Result<(), Refused> {
        if report.is_known() && self.replays.is_replay(request) {
            return Err(self.unverified(source, &Unverified::Replayed));
        }
        if let (Auth::Webhooks(webhooks), true) = (&source.auth, report.is_settled()) {
            self.replays.taken(request, webhooks.tolerance, clock::wall_secs());
        }
        Ok(())
    }

    async fn take_impression(&self, door: &Arc<Door>, impression: Impression) -> Result<Response<Bytes>, Refused> {
        let queues = self.count_queues().await?;
        let batch = self.opened(self.parcel(door, impression.data.into(), Format::Json, queues)).await?;
        door.charge(batch.len());
        let answer = self.append(door, batch, queues).await.answer();
        Ok(if answer.status().is_success() { auth::image() } else { answer })
    }

    pub async fn count_queues(&self) -> Result<u16, Refused> {
        match self.queues.count().await {
            Ok(count) => Ok(count.max(1)),
            Err(error) => Err(answers::unavailable(&error.to_string())),
        }
    }

    fn unverified(&self, source: &Source, unverified: &Unverified) -> Refused {
        self.refusals.count(unverified.reason());
        unverified.answer(&source.name).into()
    }

    fn unknown_path(&self, path: &str) -> Refused {
        let mut known: Vec<&str> = self.doors.keys().map(String::as_str).collect();
        known.sort_unstable();
        let fix = format!("POST events to {}", known.join(", "));
        refusal(StatusCode::NOT_FOUND, format!("no source takes events at {path}"), fix).into()
    }
}

fn coding(asked: &Asked<'_>) -> Result<Coding, Refused> {
    let text = asked.text(header::CONTENT_ENCODING.as_str());
    Coding::of(text).ok_or_else(|| answers::unknown_coding(text))
}

fn format(asked: &Asked<'_>, source: &Source) -> Result<Format, Refused> {
    let format = Format::of(asked).map_err(|why| answers::no_format(&why))?;
    if format.is_cloud_event() && source.shape == Shape::Data {
        return Err(answers::not_payload(source));
    }
    Ok(format)
}

fn ack(asked: &Asked<'_>) -> Result<Ack, Refused> {
    match asked.parameter("ack") {
        None | Some("disk") => Ok(Ack::Disk),
        Some("memory") => Ok(Ack::Memory),
        Some(_) => {
            let fix = "use ?ack=disk (the default) or ?ack=memory";
            Err(refusal(StatusCode::BAD_REQUEST, "the parameter `ack` has a value that is not known", fix).into())
        }
    }
}
