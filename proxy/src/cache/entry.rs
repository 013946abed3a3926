//! A stored response.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use millpond_shared::http1::{Fields, put_field, put_field_number, put_status_line};
use millpond_shared::version::{Position, ShardId, Version};

use crate::semantics::freshness::Times;
use crate::semantics::vary::Selection;

/// A complete response, with its head serialised once.
#[derive(Debug)]
pub struct Entry {
    pub status: StatusCode,
    /// Status line and fields as they go out, `Content-Length` included, without the empty line: `Age` and
    /// `Cache-Status` follow on each use.
    pub head: Bytes,
    /// The fields as they were stored, for validation and `Vary`.
    pub fields: Fields,
    pub body: Bytes,
    pub times: Times,
    pub selection: Selection,
    pub tags: Vec<Box<str>>,
    /// Where it came from, if from a shard.
    pub stamp: Option<Stamp>,
    mark: AtomicU8,
    probe_at: AtomicU64,
}

/// Which document of which shard, at which version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub shard: ShardId,
    pub tag: Box<str>,
    pub version: Version,
    /// Position the shard had applied when it rendered the document.
    pub at: Position,
    /// Generation of the shard's change stream under which it was admitted.
    pub generation: u64,
}

/// What has happened to an entry since it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    None,
    /// A soft purge: it must be validated before it is used again.
    Purged,
    /// Its document has a newer version.
    Changed,
}

/// What an entry costs beside its bytes: the struct, its `Arc`, its place in the map and the list, allocator slack.
const ENTRY_OVERHEAD: usize = size_of::<Entry>() + 256;
/// What one tag of an entry costs in the index.
const TAG_OVERHEAD: usize = 96;

impl Entry {
    /// `fields` are those to store: hop-by-hop ones and framing already left out.
    pub fn new(
        status: StatusCode,
        fields: Fields,
        body: Bytes,
        times: Times,
        selection: Selection,
        tags: Vec<Box<str>>,
        stamp: Option<Stamp>,
    ) -> Entry {
        let head = serialised_head(status, &fields, body.len());
        let (mark, probe_at) = (AtomicU8::new(Mark::None as u8), AtomicU64::new(0));
        Entry { status, head, fields, body, times, selection, tags, stamp, mark, probe_at }
    }

    /// Bytes that the entry takes, its bookkeeping included.
    pub fn weight(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| tag.len() * 2 + TAG_OVERHEAD).sum();
        self.head.len() + self.body.len() + self.fields.weight() + self.selection.weight() + tags + ENTRY_OVERHEAD
    }

    pub fn mark(&self) -> Mark {
        match self.mark.load(Ordering::Acquire) {
            0 => Mark::None,
            1 => Mark::Purged,
            _ => Mark::Changed,
        }
    }

    pub fn set_mark(&self, mark: Mark) {
        self.mark.fetch_max(mark as u8, Ordering::AcqRel);
    }

    /// The origin failed: not to be asked again for this before `at` (milliseconds since the epoch).
    pub fn hold_off_until(&self, at: u64) {
        self.probe_at.store(at, Ordering::Relaxed);
    }

    /// Whether the origin may be asked again.
    pub fn may_probe(&self, now: u64) -> bool {
        self.probe_at.load(Ordering::Relaxed) <= now
    }
}

/// Status line and fields for a body of `length` bytes.
fn serialised_head(status: StatusCode, fields: &Fields, length: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(64 + fields.weight());
    put_status_line(&mut head, status);
    for (name, value) in fields.iter() {
        put_field(&mut head, name, value);
    }
    if status != StatusCode::NO_CONTENT {
        put_field_number(&mut head, "Content-Length", length as u64);
    }
    head.freeze()
}
