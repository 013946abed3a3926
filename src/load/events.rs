//! The events that are sent: a template filled with ids, keys and numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use millpond_shared::splitmix::SplitMix64;
use ring::rand::{SecureRandom, SystemRandom};

use crate::Failure;

/// Some 200 bytes.
pub const DEFAULT: &str =
    r#"{"id":"{id}","type":"load","subject":"{key}","data":{"user":"{key}","page":"{key}","n":{n},"text":"{pad}"}}"#;

/// Makes events.
pub struct Events {
    parts: Vec<Part>,
    /// Letters at random; each event has a part of them, so that nothing gains by their being the same.
    pad: String,
    pad_bytes: usize,
    keys: Keys,
    /// First part of every id of this run.
    run: String,
    next: AtomicU64,
}

enum Part {
    Text(String),
    Id,
    Key,
    Number,
    Pad,
}

impl Events {
    pub fn new(template: &str, pad: u32, keys: u32, zipf: f64) -> Result<Events, Failure> {
        let mut drawn = [0; 6];
        SystemRandom::new().fill(&mut drawn).map_err(|_| Failure::Failed("the system has no randomness".to_owned()))?;
        let events = Events {
            parts: parts(template),
            pad: letters(pad as usize + PADS),
            pad_bytes: pad as usize,
            keys: Keys::new(keys, zipf),
            run: drawn.iter().map(|byte| format!("{byte:02x}")).collect(),
            next: AtomicU64::new(0),
        };
        let mut sample = Vec::new();
        events.put(&mut sample, 0, Key::Drawn(0));
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&sample)
            .map_err(|error| Failure::Refused(format!("--event: it makes no JSON object: {error}")))?;
        Ok(events)
    }

    /// The number of the next event.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Appends the id of an event.
    pub fn put_id(&self, out: &mut Vec<u8>, number: u64) {
        out.extend_from_slice(self.run.as_bytes());
        out.push(b'-');
        put_number(out, number);
    }

    /// A key, drawn by `random`.
    pub fn key(&self, random: &mut SplitMix64) -> Key {
        Key::Drawn(self.keys.at(random.fraction()))
    }

    /// Appends an event.
    pub fn put(&self, out: &mut Vec<u8>, number: u64, key: Key) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Id => self.put_id(out, number),
                Part::Key => key.put(out),
                Part::Number => put_number(out, number),
                Part::Pad => {
                    let from = number as usize * PAD_STEP % PADS;
                    out.extend_from_slice(self.pad.as_bytes().get(from..from + self.pad_bytes).unwrap_or_default());
                }
            }
        }
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// By its number.
    Drawn(usize),
    Named(&'static str),
}

impl Key {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Key::Drawn(number) => {
                out.push(b'k');
                put_number(out, number);
            }
            Key::Named(name) => out.extend_from_slice(name.as_bytes()),
        }
    }
}

fn put_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// How many different pads there are, and from one to the next: primes, so that it takes long until one comes again.
const PADS: usize = 65_521;
const PAD_STEP: usize = 7_919;

/// `count` letters at random.
fn letters(count: usize) -> String {
    let mut random = SplitMix64::new(count as u64);
    (0..count).map(|_| char::from(b'a' + (random.fraction() * 26.0) as u8)).collect()
}

fn parts(template: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let found =
            HOLES.iter().filter_map(|(hole, make)| Some((rest.find(hole)?, hole, make))).min_by_key(|hole| hole.0);
        let Some((at, hole, make)) = found else { break };
        let (text, behind) = rest.split_at(at);
        parts.push(Part::Text(text.to_owned()));
        parts.push(make());
        rest = behind.strip_prefix(hole).unwrap_or_default();
    }
    parts.push(Part::Text(rest.to_owned()));
    parts
}

type Hole = (&'static str, fn() -> Part);

const HOLES: [Hole; 4] =
    [("{id}", || Part::Id), ("{key}", || Part::Key), ("{n}", || Part::Number), ("{pad}", || Part::Pad)];

/// How often each key is drawn.
struct Keys {
    /// By key number, how much of all events is about it or one before it: 0 to 1, rising.
    shares: Vec<f64>,
    /// By which part of 0 to 1 was drawn, the first key that it can be; one entry more, for the end of the last part. To
    /// search all shares touches a cold line of memory at nearly every step.
    guide: Vec<usize>,
}

/// Parts of 0 to 1 that the guide tells apart: a power of two, so that no rounding comes between a part and its number.
const GUIDED: usize = 4_096;

impl Keys {
    fn new(keys: u32, zipf: f64) -> Keys {
        let shares = shares(keys, zipf);
        let starts = (0..=GUIDED).map(|part| part as f64 / GUIDED as f64);
        let guide = starts.map(|start| shares.partition_point(|share| *share <= start)).collect();
        Keys { shares, guide }
    }

    /// The key whose share `drawn` falls in; `drawn` is 0 or more, and below 1.
    fn at(&self, drawn: f64) -> usize {
        let part = (drawn * GUIDED as f64) as usize;
        let (first, end) = match self.guide.get(part..part + 2) {
            Some(&[first, end]) => (first, end),
            _ => (0, self.shares.len()),
        };
        let among = self.shares.get(first..end).unwrap_or_default();
        (first + among.partition_point(|share| *share <= drawn)).min(self.shares.len() - 1)
    }
}

/// Zipf's law: key number r has a share of 1 / r^s.
fn shares(keys: u32, zipf: f64) -> Vec<f64> {
    let weights = (1..=keys.max(1)).map(|rank| f64::from(rank).powf(-zipf));
    let mut sum = 0.0;
    let mut shares: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_wherever_they_stand() {
        let events = Events::new(r#"{"{key}":"{id}{id}","n":{n},"p":"{pad}","{x}":1}"#, 0, 1, 0.0).unwrap();
        let mut out = Vec::new();
        events.put(&mut out, 7, Key::Drawn(0));
        let mut id = Vec::new();
        events.put_id(&mut id, 7);
        let id = String::from_utf8(id).unwrap();
        let expected = format!(r#"{{"k0":"{id}{id}","n":7,"p":"","{{x}}":1}}"#);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(Events::new("{n}", 0, 1, 0.0).is_err() && Events::new("{", 0, 1, 0.0).is_err());
        assert!(Events::new(DEFAULT, 64, 10, 1.0).is_ok());
    }

    #[test]
    fn each_event_is_padded_with_other_letters() {
        let events = Events::new(r#"{"p":"{pad}"}"#, 16, 1, 0.0).unwrap();
        let padded = |number| {
            let mut out = Vec::new();
            events.put(&mut out, number, Key::Named("k0"));
            String::from_utf8(out).unwrap()
        };
        let is_letters = |text: &str| text[6..22].bytes().all(|byte| byte.is_ascii_lowercase()) && &text[22..] == "\"}";
        assert!([0, 1, u64::from(u32::MAX)].iter().all(|number| is_letters(&padded(*number))), "{}", padded(1));
        assert!(padded(0) != padded(1) && padded(1) == padded(1));
    }

    #[test]
    fn keys_are_as_frequent_as_zipf_says() {
        let events = Events::new("{}", 0, 1000, 1.0).unwrap();
        let mut random = SplitMix64::new(1);
        let mut counts = [0u32; 1000];
        for _ in 0..100_000 {
            let Key::Drawn(key) = events.key(&mut random) else { panic!("a key that was not drawn") };
            counts[key] += 1;
        }
        // The 1000th harmonic number is 7.485.
        let share = |key: usize| f64::from(counts[key]) / 100_000.0;
        assert!((share(0) - 1.0 / 7.485).abs() < 0.01 && (share(9) - 0.1 / 7.485).abs() < 0.003, "{:?}", &counts[..12]);
        let even = Events::new("{}", 0, 4, 0.0).unwrap();
        assert_eq!(even.keys.shares, [0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn the_guide_leads_to_the_key_that_a_search_of_all_finds() {
        let mut random = SplitMix64::new(7);
        for (count, zipf) in [(1, 1.0), (2, 0.0), (4, 0.0), (1000, 1.0), (5000, 0.0), (100_000, 1.1), (300, 8.0)] {
            let keys = Keys::new(count, zipf);
            let edges = (0..GUIDED).map(|part| part as f64 / GUIDED as f64);
            let shares = keys.shares.iter().copied().filter(|share| *share < 1.0).take(5000);
            let drawn: Vec<f64> = edges.chain(shares).chain((0..5000).map(|_| random.fraction())).collect();
            for drawn in drawn.into_iter().flat_map(|drawn| [drawn, drawn.next_down().max(0.0)]) {
                let searched = keys.shares.partition_point(|share| *share <= drawn).min(keys.shares.len() - 1);
                assert_eq!(keys.at(drawn), searched, "{drawn} of {count} keys");
            }
        }
    }
}
