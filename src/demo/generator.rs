//! Events of a small social network, the same ones every time: users by Zipf's law, posts and profiles.

use millpond_shared::splitmix::SplitMix64;
use serde_json::{Value, json};

/// Users of the network.
const USERS: usize = 1_000;
/// One event in so many is a profile, the others are posts.
const PROFILE_EVERY: u64 = 10;
/// The first event's time: 2026-01-01T00:00:00Z, in seconds; each further one is a second later.
const FIRST_TIME: i64 = 1_767_225_600;

/// An endless sequence of events.
pub struct Generator {
    random: SplitMix64,
    /// Sums of 1/rank, up to each user.
    cumulated: Vec<f64>,
    next: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        let weight = |user: usize| 1.0 / (user + 1) as f64;
        let sum = |sum: &mut f64, user| {
            *sum += weight(user);
            Some(*sum)
        };
        Generator { random: SplitMix64::new(seed), cumulated: (0..USERS).scan(0.0, sum).collect(), next: 0 }
    }

    /// Name of the user with this rank; the first is the busiest.
    pub fn user_name(rank: usize) -> String {
        format!("user-{:04}", rank + 1)
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let at = self.random.draw() as usize % words.len().max(1);
        words.get(at).copied().unwrap_or("")
    }

    fn user(&mut self) -> String {
        let total = self.cumulated.last().copied().unwrap_or(1.0);
        let point = self.random.draw() as f64 / u64::MAX as f64 * total;
        Generator::user_name(self.cumulated.partition_point(|sum| *sum < point).min(USERS - 1))
    }
}

const SUBJECTS: [&str; 8] =
    ["The mill", "A heron", "The sluice", "Our neighbour", "The miller", "A boat", "The frost", "A carp"];
const VERBS: [&str; 8] = ["turns", "waits by", "crosses", "has found", "paints", "listens to", "has left", "guards"];
const OBJECTS: [&str; 8] = [
    "the pond",
    "the old wheel",
    "the weir",
    "a basket of reeds",
    "the stone bridge",
    "the morning",
    "the race",
    "the grain",
];

impl Iterator for Generator {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.next += 1;
        let number = self.next;
        let user = self.user();
        let time = jiff_time(FIRST_TIME + number as i64);
        let (subject, verb, object) = (self.pick(&SUBJECTS), self.pick(&VERBS), self.pick(&OBJECTS));
        Some(if self.random.draw().is_multiple_of(PROFILE_EVERY) {
            json!({
                "id": format!("profile-{number}"), "type": "profile", "time": time,
                "data": { "user": user, "name": format!("{user}, the {}", object.rsplit(' ').next().unwrap_or("")), "bio": format!("{subject} {verb} {object}.") },
            })
        } else {
            json!({
                "id": format!("post-{number}"), "type": "post", "time": time,
                "data": { "user": user, "title": format!("{subject} {verb} {object}"), "text": format!("{subject} {verb} {object}. Post number {number}.") },
            })
        })
    }
}

fn jiff_time(seconds: i64) -> String {
    millpond_shared::event::time_text(seconds.saturating_mul(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_events_and_the_first_user_is_the_busiest() {
        let take = |seed| Generator::new(seed).take(5_000).collect::<Vec<_>>();
        let events = take(1);
        assert_eq!(events, take(1));
        assert_ne!(events, take(2));
        let count = |name: &str| events.iter().filter(|event| event["data"]["user"] == name).count();
        let (first, tenth) = (count(&Generator::user_name(0)), count(&Generator::user_name(9)));
        assert!(first > 5 * tenth && tenth > 0, "{first} {tenth}");
        let profiles = events.iter().filter(|event| event["type"] == "profile").count();
        assert!((400..600).contains(&profiles), "{profiles}");
    }
}
