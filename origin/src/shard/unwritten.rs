//! What of the state is not on disk yet, and how it gets there: a slice at a time (no lock, no I/O).
//!
//! What changed is written in the order in which it became dirty. A slice carries the position right before the first
//! change of the oldest document that is still dirty, so that everything up to it is on disk once the slice is; the marks
//! it carries are those of that position. Documents may be on disk ahead of it: each tells by its version what it has, and
//! a replay skips that.

use std::collections::{BTreeMap, VecDeque};

use millpond_shared::version::{Offset, Position, QueueId};

use super::held::{CellId, Held, Stage};
use crate::store::shard_file::{Opened, Taking, Write};

/// Documents and frames that wait for a slice, and what the last slice carried.
pub struct Unwritten {
    /// Dirty documents in the order in which they became so, each with the position of the frame that did it.
    dirty: VecDeque<(Position, CellId)>,
    dirty_bytes: u64,
    /// Documents of the slice that is being committed.
    writing: Vec<CellId>,
    /// Position, marks and taking that the last slice carries.
    reached: Position,
    reached_marks: BTreeMap<QueueId, Offset>,
    reached_taking: Taking,
    /// Frames that were applied behind `reached`.
    behind: VecDeque<Frame>,
    /// Events of the same, and those that the slice which is being committed carries.
    events_behind: u64,
    events_under_way: u64,
    /// Number of commits so far.
    commits: u64,
}

/// What is kept of a frame that was applied.
pub struct Frame {
    pub position: Position,
    /// Event queue and last offset of its round; none where documents were handed over.
    pub round: Option<(QueueId, Offset)>,
    pub events: u64,
    /// As it is behind the frame.
    pub taking: Taking,
}

impl Unwritten {
    /// Nothing yet, behind what a file held when it was opened.
    pub fn behind(opened: Opened) -> Unwritten {
        Unwritten {
            dirty: VecDeque::new(),
            dirty_bytes: 0,
            writing: Vec::new(),
            reached: opened.committed,
            reached_marks: opened.marks,
            reached_taking: opened.taking,
            behind: VecDeque::new(),
            events_behind: 0,
            events_under_way: 0,
            commits: 0,
        }
    }

    /// Everything up to this position is on disk once the slices taken so far are.
    pub fn reached(&self) -> Position {
        self.reached
    }

    /// Number of commits so far.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// What the documents that wait for a slice take in memory, in bytes.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    /// Whether no document is on its way to the file, or has to go there.
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.writing.is_empty()
    }

    /// Events applied behind the position of the last slice.
    pub fn events_since_slice(&self) -> u64 {
        self.events_behind
    }

    /// Events that a restart would have to replay.
    pub fn events(&self) -> u64 {
        self.events_behind + self.events_under_way
    }

    /// The frame at `position` has changed a document that was in stage `was`, and is dirty now. `weights`: what it took in
    /// memory before and takes now, in bytes.
    pub fn changed(&mut self, id: CellId, position: Position, was: Stage, weights: (u64, u64)) {
        match was {
            Stage::Dirty => self.dirty_bytes = self.dirty_bytes - weights.0 + weights.1,
            Stage::Clean | Stage::Writing => {
                self.dirty_bytes += weights.1;
                self.dirty.push_back((position, id));
            }
        }
    }

    /// A frame was applied, whether or not it changed anything.
    pub fn applied(&mut self, frame: Frame) {
        self.events_behind += frame.events;
        self.behind.push_back(frame);
    }

    /// The next slice, about `bytes_max` bytes and at least one document, where frames up to `applied` were applied to the
    /// documents `held`; `None` if there is nothing that the last one did not carry.
    pub fn slice(&mut self, held: &mut Held, applied: Position, bytes_max: u64) -> Option<Write> {
        if self.reached == applied {
            return None;
        }
        let (mut documents, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some((_, id)) = self.dirty.pop_front()
        {
            let row = held.change(id, |cell| {
                cell.stage = Stage::Writing;
                (cell.weight(), (cell.projection, cell.key.clone(), cell.document.clone()))
            });
            let Some((weight, row)) = row else { continue };
            bytes += weight;
            documents.push(row);
            self.writing.push(id);
        }
        self.dirty_bytes -= bytes;
        self.reached = self.dirty.front().map_or(applied, |(first, _)| first.saturating_sub(1));
        while let Some(frame) = self.behind.pop_front_if(|frame| frame.position <= self.reached) {
            if let Some((queue, last)) = frame.round {
                let mark = self.reached_marks.entry(queue).or_default();
                *mark = last.max(*mark);
            }
            self.reached_taking = frame.taking;
            self.events_behind -= frame.events;
            self.events_under_way += frame.events;
        }
        let (marks, taking) = (self.reached_marks.clone(), Some(self.reached_taking));
        Some(Write { committed: self.reached, marks, taking, documents })
    }

    /// The last slice is on disk.
    pub fn committed(&mut self, held: &mut Held) {
        for id in std::mem::take(&mut self.writing) {
            held.change(id, |cell| {
                if cell.stage == Stage::Writing {
                    cell.stage = Stage::Clean;
                }
            });
        }
        self.events_under_way = 0;
        self.commits += 1;
    }
}
