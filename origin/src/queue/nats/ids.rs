//! The ids that one event queue remembers, in memory (pure).

use std::collections::BTreeMap;

use crate::queue::ids::IdSet;

/// Ids and when each is forgotten.
#[derive(Default)]
pub struct Ids {
    known: IdSet,
    /// By the time their window ends, in ms.
    ends: BTreeMap<u64, Vec<u128>>,
}

impl Ids {
    pub fn contains(&self, hash: u128) -> bool {
        self.known.contains(hash)
    }

    /// Remembers ids until `ends_ms`. One that is known already keeps the window it has.
    pub fn remember(&mut self, ends_ms: u64, hashes: impl IntoIterator<Item = u128>) {
        let new = hashes.into_iter().filter(|hash| self.known.insert(*hash));
        self.ends.entry(ends_ms).or_default().extend(new);
    }

    /// Forgets what has ended, and beyond `max` what would end first; how many of the latter.
    pub fn forget(&mut self, now_ms: u64, max: usize) -> usize {
        while let Some(group) = self.ends.first_entry().filter(|group| *group.key() <= now_ms) {
            for hash in group.remove() {
                self.known.remove(hash);
            }
        }
        let mut early = 0;
        while self.known.len() > max {
            let Some((_, group)) = self.ends.pop_first() else { break };
            early += group.len();
            for hash in group {
                self.known.remove(hash);
            }
        }
        early
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forgotten_when_their_window_ends_and_for_want_of_room() {
        let mut ids = Ids::default();
        ids.remember(10, [1, 2]);
        ids.remember(20, [2, 3]);
        assert_eq!(ids.forget(9, 99), 0);
        assert!(ids.contains(1) && ids.contains(2) && ids.contains(3));
        assert_eq!(ids.forget(10, 99), 0);
        assert!(!ids.contains(1) && !ids.contains(2) && ids.contains(3));
        ids.remember(30, [4, 5]);
        assert_eq!(ids.forget(10, 2), 1, "those that end first go first");
        assert!(!ids.contains(3) && ids.contains(4));
    }
}
