//! Signed requests that were taken, so that the very same one is refused when it comes again.
//!
//! Nothing hangs on this but the answer. That no event is stored twice is the event queue's business: an event of a
//! signed request without an id of its own has one that is made of `webhook-id`, and ids are remembered on disk for the
//! source's window, which is no shorter than the tolerance. So a request that stores nothing, since all its events are
//! known, is either a replay (the same signature) or an honest repeat (signed again, with a new timestamp).

use std::time::Duration;

use parking_lot::Mutex;

use super::Verified;
use crate::queue::HashParts;

/// Most requests in one generation; the next one begins a new generation early. 10 to 20 MiB.
pub const REPLAYS_MAX: usize = 1 << 20;

type Fingerprints = HashParts<u64>;

/// What was taken: two generations, the younger of which is filled.
pub struct Replays {
    /// When this process began to remember, in seconds since the Unix epoch.
    began_s: u64,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    younger: Fingerprints,
    older: Fingerprints,
    /// When the younger one began.
    since_s: u64,
}

impl Replays {
    pub fn new(now_s: u64) -> Replays {
        Replays { began_s: now_s, generations: Mutex::new(Generations { since_s: now_s, ..Generations::default() }) }
    }

    /// Remembers a request that was taken, for as long as its signature is within the tolerance.
    pub fn taken(&self, request: &Verified, tolerance: Duration, now_s: u64) {
        // A timestamp may lie ahead by the tolerance, and counts until it lies behind by it.
        let generation_s = tolerance.as_secs().saturating_mul(2);
        let mut generations = self.generations.lock();
        let over = now_s.saturating_sub(generations.since_s) > generation_s;
        if over || generations.younger.len() >= REPLAYS_MAX {
            generations.older = std::mem::take(&mut generations.younger);
            generations.since_s = now_s;
        }
        generations.younger.extend([request.fingerprint]);
    }

    /// Whether the very same request was taken.
    pub fn knows(&self, request: &Verified) -> bool {
        let generations = self.generations.lock();
        let known = |generation: &Fingerprints| generation.contains(request.fingerprint);
        known(&generations.younger) || known(&generations.older)
    }

    /// Whether a request of which every event was known is a replay. What was signed before this process began, and
    /// can't be told from one, counts as one.
    pub fn is_replay(&self, request: &Verified) -> bool {
        request.timestamp < self.began_s || self.knows(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Duration = Duration::from_secs(300);

    fn request(fingerprint: u64, timestamp: u64) -> Verified {
        Verified { id: "m".to_owned(), timestamp, fingerprint }
    }

    #[test]
    fn the_same_signature_is_a_replay_and_another_is_a_repeat() {
        let replays = Replays::new(1_000);
        replays.taken(&request(7, 1_001), TOLERANCE, 1_001);
        assert!(replays.is_replay(&request(7, 1_001)));
        assert!(!replays.is_replay(&request(8, 1_002)), "signed again");
        assert!(replays.is_replay(&request(9, 999)), "signed before the start");
    }

    #[test]
    fn it_is_remembered_as_long_as_it_could_be_sent() {
        let replays = Replays::new(0);
        // Signed 300 s ahead, it is within the tolerance until 600 s from now.
        replays.taken(&request(7, 400), TOLERANCE, 100);
        replays.taken(&request(8, 700), TOLERANCE, 700);
        assert!(replays.is_replay(&request(7, 400)));
        replays.taken(&request(9, 1_400), TOLERANCE, 1_400);
        assert!(!replays.is_replay(&request(7, 400)), "its generation is gone");
        assert!(replays.is_replay(&request(8, 700)));
    }

    #[test]
    fn a_flood_ends_a_generation() {
        let replays = Replays::new(0);
        for fingerprint in 0..=2 * REPLAYS_MAX as u64 {
            replays.taken(&request(fingerprint, 1), TOLERANCE, 1);
        }
        let generations = replays.generations.lock();
        assert_eq!((generations.older.len(), generations.younger.len()), (REPLAYS_MAX, 1));
    }
}
