//! RFC 9111 read twice: our decisions, and a transcription of the text that shares nothing with them, are given the same
//! requests and answers over a clock of their own, and have to agree at every step. `traffic` makes requests and
//! answers, `rfc` is the transcription, `subject` puts our decisions together as the gateway does.
//!
//! `SEED=… cargo test -p millpond-proxy oracle` tells one run again.

mod rfc;
mod subject;
mod traffic;

use subject::Subject;
use traffic::{Answered, Asked, Random, Wishes};

use super::sample::NOW;

/// What becomes of a request before the origin is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// A stored response is sent; `had`: as a 304.
    Send {
        body: u64,
        age: i64,
        had: bool,
    },
    /// The same, and it is refreshed behind.
    Refresh(Box<Decision>),
    /// 504.
    OnlyIfCached,
    Forward {
        conditions: Vec<String>,
    },
    /// Forwarded without a look at what is stored.
    Pass,
}

/// What becomes of it once the origin has answered, or has not.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Result {
    /// The origin's answer.
    Answer {
        body: u64,
    },
    Stored {
        body: u64,
        age: i64,
        had: bool,
    },
    Error(u16),
}

const STEPS: u64 = 100_000;

#[test]
fn our_decisions_are_those_of_the_rfc() {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand_seed);
    println!("SEED={seed}");
    let mut world = World {
        random: Random::new(seed),
        now: NOW,
        oracle: rfc::Cache::default(),
        subject: Subject::new(),
        seen: [0; 8],
    };
    for step in 0..STEPS {
        world.step(seed, step);
    }
    // Otherwise the traffic says little.
    assert!(world.seen.iter().all(|count| *count > STEPS / 2_000), "{:?}", world.seen);
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

struct World {
    random: Random,
    now: u64,
    oracle: rfc::Cache,
    subject: Subject,
    /// Hits, stale hits, 504s, validations, misses, confirmations, stale on error, errors.
    seen: [u64; 8],
}

impl World {
    fn step(&mut self, seed: u64, step: u64) {
        let wait = traffic::span(&mut self.random);
        self.now += if wait > 1000 && !self.random.one_in(20) { 1 } else { wait };
        let asked = traffic::asked(&mut self.random);
        let head = asked.head(&mut self.random);
        let told = format!("SEED={seed} step {step} at {}\n{asked:?}\n{:?}", self.now - NOW, head.fields);
        let decision = self.oracle.decide(&asked, self.now);
        assert_eq!(self.subject.decide(&head, self.now), decision, "{told}");
        self.count(&decision);
        let validates = match &decision {
            Decision::Send { .. } | Decision::OnlyIfCached => return,
            Decision::Refresh(_) => true,
            Decision::Forward { conditions } => !conditions.is_empty() && asked.method == "GET",
            Decision::Pass => false,
        };
        if !matches!(decision, Decision::Refresh(_)) {
            return self.origin(&asked, &head, validates, &told);
        }
        // For everybody, and not for the client whose request caused it.
        let asked = Asked { method: "GET", authorized: false, wishes: Wishes::default(), ..asked };
        let head = asked.head(&mut self.random);
        self.origin(&asked, &head, true, &told);
    }

    /// The origin's turn.
    fn origin(&mut self, asked: &Asked, head: &millpond_shared::http1::RequestHead, validates: bool, told: &str) {
        let sent = self.now;
        self.now += if self.random.one_in(4) { self.random.below(4) } else { 0 };
        let times = (sent, self.now);
        if self.random.one_in(12) {
            let expected = self.oracle.disconnected(asked, self.now);
            assert_eq!(self.subject.disconnected(head, self.now), expected, "disconnected: {told}");
            self.seen[if matches!(expected, Result::Stored { .. }) { 6 } else { 7 }] += 1;
            return;
        }
        let body = self.random.below(u64::MAX);
        let answer = traffic::answered(&mut self.random, self.now, body);
        if validates && self.random.one_in(2) {
            let news = Answered { status: 304, location: None, ..answer.clone() };
            let written = news.head(&mut self.random);
            let told = format!("{told}\n{news:?}\n{:?}", written.fields);
            let expected = self.oracle.validated(asked, &news, sent, self.now);
            assert_eq!(self.subject.validated(head, &written, times), expected, "304: {told}");
            self.seen[5] += u64::from(expected.is_some());
            if expected.is_some() {
                return;
            }
        }
        let written = answer.head(&mut self.random);
        let told = format!("{told}\n{answer:?}\n{:?}", written.fields);
        let expected = self.oracle.answered(asked, &answer, sent, self.now);
        let found = self.subject.answered(head, (&written, body), times);
        assert_eq!(found, expected, "answered: {told}");
        self.seen[6] += u64::from(matches!(expected, Result::Stored { .. }));
    }

    fn count(&mut self, decision: &Decision) {
        let kind = match decision {
            Decision::Send { .. } => 0,
            Decision::Refresh(_) => 1,
            Decision::OnlyIfCached => 2,
            Decision::Forward { conditions } if !conditions.is_empty() => 3,
            Decision::Forward { .. } | Decision::Pass => 4,
        };
        self.seen[kind] += 1;
    }
}
