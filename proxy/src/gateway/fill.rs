//! Brings a body into the log of its flight, and into the store.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::clock;
use tokio::time::{sleep_until, timeout};

use super::{Gateway, parts, told};
use crate::cache::{Entry, Part, PurgeSeq};
use crate::flight::{Draft, Filler, Flight, Lead};
use crate::key::Key;
use crate::outcome::Reason;
use crate::semantics::range;
use crate::upstreams::{Body, OriginError, Ready};

/// Bytes of a body for which its head is held back as long as a stale response might be sent instead; a shorter body is
/// held back whole. Of a longer one what follows may still be cut off.
const HELD_BACK_MAX: u64 = 1 << 20;
/// How long a head is held back at most. Then who has a stale response to send gets that, as if the origin had not
/// answered in time, and the fill goes on.
const HELD_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a fill goes on for the store alone, while nobody reads it; then it is given up.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Brings in what of a body is held back that is for one client alone: the same share, in the same time.
pub(super) async fn hold_back(body: &mut Body) -> Result<(), OriginError> {
    timeout(HELD_BACK_TIMEOUT, body.hold(HELD_BACK_MAX as usize)).await.unwrap_or(Err(OriginError::Timeout))
}

/// One body on its way in. Owned, so that it can outlive the request that caused it.
pub(super) struct Fill {
    gateway: Arc<Gateway>,
    key: Key,
    filler: Filler,
    draft: Arc<Draft>,
    began: PurgeSeq,
    /// Since when its head is held back.
    held_since: Option<Instant>,
}

impl Fill {
    /// Takes what of the body is there, and goes on behind if that is not all. `hold`: the head is held back, as a stale
    /// response might still be sent instead. `began`: the last purge before the fetch.
    pub fn start(
        gateway: &Arc<Gateway>,
        key: &Key,
        draft: Arc<Draft>,
        mut body: Body,
        began: PurgeSeq,
        mut lead: Lead,
        hold: bool,
    ) -> Arc<Flight> {
        let flight = lead.flight();
        let mut fill = Fill {
            gateway: Arc::clone(gateway),
            key: key.clone(),
            filler: Filler::new(&flight, gateway.store.limits().object_max_bytes),
            draft,
            began,
            held_since: hold.then(clock::monotonic),
        };
        if !hold {
            flight.begin(Arc::clone(&fill.draft));
        }
        // Most bodies came with their head.
        match fill.take_ready(&mut body) {
            Ok(true) => fill.landed(lead),
            Ok(false) => {
                tokio::spawn(async move {
                    match fill.run(&mut body, &mut lead).await {
                        Ok(true) => fill.landed(lead),
                        // Nobody reads it, and it can't be stored.
                        Ok(false) => lead.unshared(Reason::BodyTooLarge),
                        Err(error) => fill.broke_off(lead, error),
                    }
                });
            }
            Err(error) => fill.broke_off(lead, error),
        }
        flight
    }

    /// Takes what is there without waiting. `true`: that was all.
    fn take_ready(&mut self, body: &mut Body) -> Result<bool, OriginError> {
        loop {
            match body.ready()? {
                Ready::Piece(piece) => {
                    if !self.push(piece) {
                        return Ok(false);
                    }
                }
                Ready::End => return Ok(true),
                Ready::NotYet => return Ok(false),
            }
        }
    }

    /// `false`: given up, as the body is too large to be stored and nobody reads it.
    async fn run(&mut self, body: &mut Body, lead: &mut Lead) -> Result<bool, OriginError> {
        let mut alarm = pin!(sleep_until(self.next_alarm().into()));
        loop {
            // One wait for each piece, whatever the alarm: how long the origin is silent counts from its last.
            let mut next = pin!(body.next());
            let piece = loop {
                tokio::select! {
                    biased;
                    piece = next.as_mut() => break piece?,
                    () = alarm.as_mut() => {
                        self.alarmed()?;
                        alarm.as_mut().reset(self.next_alarm().into());
                    }
                }
            };
            let Some(piece) = piece else { return Ok(true) };
            if !self.push(piece) {
                lead.unlist();
                if !self.filler.room().await {
                    return Ok(false);
                }
            }
        }
    }

    /// Appends a piece, and lets the head go once enough has come. `false`: the body is too large to be stored.
    fn push(&mut self, piece: Bytes) -> bool {
        let stored = self.filler.push(piece);
        if self.held_since.is_some() && (!stored || self.filler.length() >= HELD_BACK_MAX) {
            self.held_since = None;
            self.filler.flight().begin(Arc::clone(&self.draft));
        }
        stored
    }

    /// When to look whether something takes too long.
    fn next_alarm(&self) -> Instant {
        let unread_since = self.filler.flight().unread_since().unwrap_or_else(clock::monotonic);
        let late_at = self.held_since.map(|since| since + HELD_BACK_TIMEOUT);
        late_at.unwrap_or(unread_since + UNREAD_TIMEOUT)
    }

    fn alarmed(&mut self) -> Result<(), OriginError> {
        if self.held_since.take().is_some() {
            self.filler.flight().is_late(Arc::clone(&self.draft));
            return Ok(());
        }
        let is_unread = self.filler.flight().unread_since().is_some_and(|since| since.elapsed() >= UNREAD_TIMEOUT);
        if is_unread { Err(OriginError::Timeout) } else { Ok(()) }
    }

    /// The body is whole.
    fn landed(self, lead: Lead) {
        if !self.filler.is_storable() {
            return lead.passed_on();
        }
        let (draft, body) = (&self.draft, self.filler.body());
        let entry = if draft.status == StatusCode::PARTIAL_CONTENT {
            let part = parts::part_of(&draft.fields).filter(|part| part.held() == body.len() as u64);
            let entry = part.and_then(|part| parts::with_parts_held(&self.gateway.store, &self.key, draft, part, body));
            let Some(entry) = entry else { return lead.passed_on() };
            entry
        } else {
            Entry::new(
                draft.status,
                draft.fields.clone(),
                body,
                draft.times,
                draft.selection.clone(),
                draft.tags.clone(),
                draft.stamp.clone(),
            )
        };
        let mut entry = entry.instead_of(draft.original.clone()).restated(draft.is_restated);
        if told::is_sent_in_codings(&entry, draft.coded_from) {
            entry = entry.in_codings();
        }
        let entry = Arc::new(entry);
        let is_stored = self.gateway.admit(&self.key, &entry, self.began);
        if let Some(coding) = draft.preferred.filter(|_| is_stored) {
            self.gateway.compressor.make(self.key.as_str(), &entry, coding);
        }
        lead.complete(entry);
    }

    /// The body ended too early. What came of it is of use to whoever asks next (RFC 9111 §3.3).
    fn broke_off(self, lead: Lead, error: OriginError) {
        if let Some(entry) = self.beginning() {
            let entry = entry.instead_of(self.draft.original.clone()).restated(self.draft.is_restated);
            self.gateway.admit(&self.key, &Arc::new(entry), self.began);
        }
        lead.failed(error);
    }

    /// An incomplete entry of what came of a 200, if the rest can be asked for.
    fn beginning(&self) -> Option<Entry> {
        let draft = &self.draft;
        let is_resumable = draft.status == StatusCode::OK && draft.stamp.is_none() && self.filler.is_storable();
        let length = draft.length.filter(|_| is_resumable && range::strong_tag(&draft.fields).is_some())?;
        let body = self.filler.body();
        let part = Part::of(0..body.len() as u64, length).filter(|part| !part.is_whole())?;
        parts::with_parts_held(&self.gateway.store, &self.key, draft, part, body)
    }
}
