//! A body of lines that may have any length: they are appended as they arrive, and the answer sums up.
//!
//! What arrives while a group of lines is being stored is the next group: so a slow producer's line does not wait for
//! others, and a fast one's groups grow. A producer is read no faster than its lines are stored.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::Response;
use millpond_shared::wire::Taker;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::answers::{self, Refused};
use super::cloud_events::Format;
use super::coding::{Decoder, NotDecoded};
use super::door::Door;
use super::report::Report;
use super::walk::Walk;

/// Bytes of lines that are stored together, at most; one line more than this makes a group of its own.
const GROUP_BYTES: usize = 256 << 10;
/// Longest line, in bytes; a longer one is answered 413: no event is as large.
const LINE_MAX_BYTES: usize = 2 << 20;
/// How much of a piece is decoded in one step, in bytes: what comes out of it is in memory.
const STEP_BYTES: usize = 4 << 10;
/// Groups that wait while one is stored.
const GROUPS_WAITING: usize = 1;

/// A body on its way.
pub struct Lines {
    door: Arc<Door>,
    decoder: Option<Decoder>,
    /// Whole lines, and behind them the beginning of one.
    gathered: Vec<u8>,
    batch_max_events: usize,
    groups: Option<mpsc::Sender<Bytes>>,
    storing: JoinHandle<Result<Report, Refused>>,
}

impl Lines {
    pub fn new(walk: Arc<Walk>, door: Arc<Door>, decoder: Decoder) -> Lines {
        let (groups, waiting) = mpsc::channel(GROUPS_WAITING);
        let batch_max_events = walk.batch_max_events;
        let storing = tokio::spawn(store(walk, Arc::clone(&door), waiting));
        Lines { door, decoder: Some(decoder), gathered: Vec::new(), batch_max_events, groups: Some(groups), storing }
    }

    /// Sends whole lines off as long as there are any; `all`: what is there is the end.
    async fn send(&mut self, all: bool) -> Result<(), Refused> {
        while let Some(end) = self.group_end(all) {
            let rest = self.gathered.split_off(end);
            let group = std::mem::replace(&mut self.gathered, rest);
            let sent = match &self.groups {
                Some(groups) => groups.send(Bytes::from(group)).await.is_ok(),
                None => false,
            };
            if !sent {
                return Err(self.ended().await);
            }
        }
        if self.gathered.len() > LINE_MAX_BYTES {
            return Err(answers::too_large(&format!("a line is longer than {LINE_MAX_BYTES} bytes")));
        }
        Ok(())
    }

    /// Where the next group ends.
    fn group_end(&self, all: bool) -> Option<usize> {
        let mut end = None;
        for (at, count) in memchr::memchr_iter(b'\n', &self.gathered).zip(1..) {
            if end.is_some() && at >= GROUP_BYTES {
                return end;
            }
            end = Some(at + 1);
            if count == self.batch_max_events {
                return end;
            }
        }
        end.or((all && !self.gathered.is_empty()).then_some(self.gathered.len()))
    }

    /// The answer, once everything that was sent off is stored or refused.
    async fn ended(&mut self) -> Refused {
        self.groups = None;
        match (&mut self.storing).await {
            Ok(Ok(report)) => report.answer().into(),
            Ok(Err(refused)) => refused,
            Err(_) => answers::unavailable("the process is ending"),
        }
    }

    fn not_decoded(&self, why: &NotDecoded) -> Refused {
        answers::not_decoded(&self.door.source, why)
    }
}

#[async_trait]
impl Taker for Lines {
    async fn take(&mut self, piece: Bytes) -> Result<(), Refused> {
        for step in piece.chunks(STEP_BYTES) {
            let Some(decoder) = &mut self.decoder else { break };
            let mut lines = decoder.push(step).map_err(|why| self.not_decoded(&why))?;
            self.gathered.append(&mut lines);
            if self.gathered.len() >= GROUP_BYTES {
                self.send(false).await?;
            }
        }
        self.send(false).await
    }

    async fn end(mut self: Box<Self>) -> Response<Bytes> {
        if let Some(decoder) = self.decoder.take() {
            match decoder.end() {
                Ok(mut rest) => self.gathered.append(&mut rest),
                Err(why) => return *self.not_decoded(&why),
            }
        }
        match self.send(true).await {
            Ok(()) => *self.ended().await,
            Err(refused) => *refused,
        }
    }
}

/// Stores groups of lines until there are no more, or one finds no room.
async fn store(walk: Arc<Walk>, door: Arc<Door>, mut waiting: mpsc::Receiver<Bytes>) -> Result<Report, Refused> {
    let (mut told, mut stored_before) = (Report::default(), 0);
    while let Some(group) = waiting.recv().await {
        if group.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        while let Err(until) = door.admit() {
            tokio::time::sleep(until).await;
        }
        let queues = walk.count_queues().await?;
        let batch = walk.opened(walk.parcel(&door, group, Format::Lines, queues)).await?;
        let elements = batch.len() + batch.report.rejected.len();
        door.charge(batch.len());
        let report = walk.append(&door, batch, queues).await;
        told.absorb(report, stored_before);
        stored_before += elements;
        if !told.is_settled() {
            break;
        }
    }
    Ok(told)
}
