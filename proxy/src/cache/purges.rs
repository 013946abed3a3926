//! Purges and the fetches that were under way when they came.
//!
//! A fetch remembers the sequence number of the last purge before it began. When its response is admitted, the purges
//! since then are looked through; a response that one of them would have hit is stale from the start.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::key::KeyHash;

/// Number of purges so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PurgeSeq(u64);

/// What a purge was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    Key(KeyHash),
    Tag(Box<str>),
    All,
}

/// Purges that are remembered one by one; a fetch that began before the oldest of them counts as hit.
const REMEMBERED_MAX: usize = 4096;

#[derive(Debug, Default)]
pub struct PurgeLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    recent: VecDeque<Purge>,
}

impl PurgeLog {
    pub fn now(&self) -> PurgeSeq {
        PurgeSeq(self.inner.lock().last)
    }

    pub fn add(&self, purge: Purge) {
        let mut inner = self.inner.lock();
        inner.last += 1;
        inner.recent.push_back(purge);
        if inner.recent.len() > REMEMBERED_MAX {
            inner.recent.pop_front();
        }
    }

    /// Whether a purge since `since` was about this key or one of these tags.
    pub fn hit_since(&self, since: PurgeSeq, key: KeyHash, tags: &[Box<str>]) -> bool {
        let inner = self.inner.lock();
        let missed = inner.last.saturating_sub(since.0) as usize;
        if missed > inner.recent.len() {
            return true;
        }
        inner.recent.iter().rev().take(missed).any(|purge| match purge {
            Purge::Key(purged) => *purged == key,
            Purge::Tag(tag) => tags.contains(tag),
            Purge::All => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_purges_count_and_none_is_forgotten_silently() {
        let log = PurgeLog::default();
        let (mine, other) = (KeyHash(1), KeyHash(2));
        log.add(Purge::Key(mine));
        let began = log.now();
        assert!(!log.hit_since(began, mine, &[]));
        log.add(Purge::Tag("news".into()));
        assert!(log.hit_since(began, mine, &["news".into()]));
        assert!(!log.hit_since(began, mine, &["sport".into()]));
        log.add(Purge::Key(other));
        assert!(log.hit_since(began, other, &[]));
        for _ in 0..REMEMBERED_MAX {
            log.add(Purge::Key(KeyHash(3)));
        }
        assert!(log.hit_since(began, mine, &[]), "what is no longer remembered counts as a hit");
    }
}
