//! The lowest ranks that sampling has seen: kept from one eviction to the next, they stand in for many more samples.

/// Candidates kept.
const CANDIDATES_MAX: usize = 32;

/// A slot that may be evicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub shard: usize,
    /// Its hash in the table of the shard.
    pub hash: u64,
    /// What it was when it was seen: of use no slot of a lower rank.
    pub rank: f64,
}

/// Candidates in falling order of rank.
#[derive(Debug)]
pub struct Pool {
    candidates: Vec<Candidate>,
}

impl Pool {
    pub fn new() -> Pool {
        Pool { candidates: Vec::with_capacity(CANDIDATES_MAX + 1) }
    }

    /// Takes the candidate in if it is among the lowest.
    pub fn offer(&mut self, candidate: Candidate) {
        let full = self.candidates.len() >= CANDIDATES_MAX;
        if full && self.candidates.first().is_some_and(|highest| candidate.rank >= highest.rank) {
            return;
        }
        let is_same = |known: &Candidate| known.hash == candidate.hash && known.shard == candidate.shard;
        if let Some(known) = self.candidates.iter().position(is_same) {
            self.candidates.remove(known);
        } else if full {
            self.candidates.remove(0);
        }
        let at = self.candidates.partition_point(|other| other.rank > candidate.rank);
        self.candidates.insert(at, candidate);
    }

    pub fn take_lowest(&mut self) -> Option<Candidate> {
        self.candidates.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(hash: u64, rank: f64) -> Candidate {
        Candidate { shard: 0, hash, rank }
    }

    #[test]
    fn the_lowest_ranks_are_kept_and_none_twice() {
        let mut pool = Pool::new();
        for hash in 0..1_000 {
            pool.offer(candidate(hash, (hash * 7919 % 1000) as f64));
        }
        pool.offer(candidate(5, 3.5));
        pool.offer(candidate(5, 4.5));
        pool.offer(candidate(6, f64::NEG_INFINITY));
        let taken: Vec<f64> = std::iter::from_fn(|| pool.take_lowest()).map(|candidate| candidate.rank).collect();
        let mut expected: Vec<f64> = (0..30).map(f64::from).chain([4.5, f64::NEG_INFINITY]).collect();
        expected.sort_by(f64::total_cmp);
        assert_eq!(taken, expected);
    }
}
