//! Purges and the fetches that were under way when they came.
//!
//! A fetch remembers the sequence number of the last purge before it began. When its response is admitted, the purges
//! since then are looked through; a response that one of them would have hit is stale from the start.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Mode;
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
    /// The same as the one inside, for those who only ask whether there was another one.
    last: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    recent: VecDeque<(Purge, Mode)>,
}

impl PurgeLog {
    pub fn now(&self) -> PurgeSeq {
        PurgeSeq(self.last.load(Ordering::Acquire))
    }

    pub fn add(&self, purge: Purge, mode: Mode) {
        let mut inner = self.inner.lock();
        inner.last += 1;
        inner.recent.push_back((purge, mode));
        if inner.recent.len() > REMEMBERED_MAX {
            inner.recent.pop_front();
        }
        self.last.store(inner.last, Ordering::Release);
    }

    /// What the purges since `since` ask for this key and these tags: the harshest, or nothing.
    ///
    /// Under a lock that whoever purges takes after [`PurgeLog::add`], no purge is overlooked.
    pub fn asked_since(&self, since: PurgeSeq, key: KeyHash, tags: &[Box<str>]) -> Option<Mode> {
        let until = self.now();
        if until == since {
            return None;
        }
        self.asked_between(since, until, key, tags)
    }

    /// The same for the purges after `since` up to `until`. Those that are forgotten count as hits.
    pub fn asked_between(&self, since: PurgeSeq, until: PurgeSeq, key: KeyHash, tags: &[Box<str>]) -> Option<Mode> {
        let inner = self.inner.lock();
        let missed = inner.last.saturating_sub(since.0) as usize;
        if missed > inner.recent.len() && since < until {
            return Some(Mode::Delete);
        }
        let later = inner.last.saturating_sub(until.0) as usize;
        let concerned = inner.recent.iter().rev().take(missed).skip(later).filter(|(purge, _)| match purge {
            Purge::Key(purged) => *purged == key,
            Purge::Tag(tag) => tags.contains(tag),
            Purge::All => true,
        });
        concerned.map(|(_, mode)| *mode).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_purges_count_and_none_is_forgotten_silently() {
        let log = PurgeLog::default();
        let (mine, other) = (KeyHash(1), KeyHash(2));
        log.add(Purge::Key(mine), Mode::Stale);
        let began = log.now();
        assert_eq!(log.asked_since(began, mine, &[]), None);
        log.add(Purge::Tag("news".into()), Mode::Stale);
        assert_eq!(log.asked_since(began, mine, &["news".into()]), Some(Mode::Stale));
        assert_eq!(log.asked_since(began, mine, &["sport".into()]), None);
        let joined = log.now();
        log.add(Purge::Key(other), Mode::Delete);
        assert_eq!(log.asked_since(began, other, &[]), Some(Mode::Delete));
        assert_eq!(log.asked_between(began, joined, other, &[]), None, "it came after");
        assert_eq!(log.asked_between(began, joined, mine, &["news".into()]), Some(Mode::Stale));
        for _ in 0..REMEMBERED_MAX {
            log.add(Purge::Key(KeyHash(3)), Mode::Stale);
        }
        assert_eq!(
            log.asked_since(began, mine, &[]),
            Some(Mode::Delete),
            "what is no longer remembered counts as a hit"
        );
    }
}
