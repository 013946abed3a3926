//! Generated requests and answers: as values, which the oracle reads, and written as heads, which our code reads.

use http::StatusCode;
use millpond_shared::http1::{Fields, FieldsBuilder, Minor, RequestHead, ResponseHead};
use millpond_shared::splitmix::SplitMix64;

use super::super::date;
use super::super::sample::request;

pub struct Random(SplitMix64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(SplitMix64::new(seed))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.draw() % bound
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }

    fn maybe<T>(&mut self, one_in: u64, make: impl FnOnce(&mut Random) -> T) -> Option<T> {
        self.one_in(one_in).then(|| make(self))
    }
}

/// Times that meet: lifetimes, windows and steps of the clock are made of these.
const SPANS: [u64; 9] = [0, 1, 2, 5, 10, 30, 60, 600, 100_000];
pub const URIS: u64 = 3;

#[derive(Clone, Debug, Default)]
pub struct Wishes {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    pub max_age: Option<u64>,
    pub min_fresh: Option<u64>,
    /// `Some(None)`: without a value.
    pub max_stale: Option<Option<u64>>,
    pub stale_if_error: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub method: &'static str,
    pub uri: u64,
    /// The selecting fields `Foo` and `Bar`.
    pub foo: Option<u64>,
    pub bar: Option<u64>,
    pub authorized: bool,
    pub wishes: Wishes,
    /// `If-None-Match` with this tag.
    pub has: Option<Tag>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub weak: bool,
    pub number: u64,
}

/// A directive with its value; `Some(None)`: one that is no number of seconds.
pub type Directive = (&'static str, Option<Option<u64>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varies {
    Foo,
    Both,
    Anything,
}

#[derive(Clone, Debug)]
pub struct Answered {
    pub status: u16,
    pub control: Option<Vec<Directive>>,
    pub targeted: Option<Vec<Directive>>,
    /// `Some(None)`: no date. Likewise below.
    pub expires: Option<Option<u64>>,
    pub date: Option<Option<u64>>,
    pub age: Option<Option<u64>>,
    pub modified: Option<u64>,
    pub tag: Option<Tag>,
    pub vary: Option<Varies>,
    /// Of a POST: another URI that has changed.
    pub location: Option<u64>,
    /// Tells bodies apart.
    pub body: u64,
}

pub fn asked(random: &mut Random) -> Asked {
    let wishes = if random.one_in(3) {
        Wishes {
            no_store: random.one_in(8),
            no_cache: random.one_in(8),
            only_if_cached: random.one_in(6),
            max_age: random.maybe(5, |random| random.of(&SPANS)),
            min_fresh: random.maybe(6, |random| random.of(&SPANS)),
            max_stale: random.maybe(4, |random| random.maybe(2, |random| random.of(&SPANS))),
            stale_if_error: random.maybe(5, |random| random.of(&SPANS)),
        }
    } else {
        Wishes::default()
    };
    Asked {
        method: random.of(&["GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "ODD", "OPTIONS"]),
        uri: random.below(URIS),
        foo: random.maybe(2, |random| random.below(2)),
        bar: random.maybe(3, |random| random.below(2)),
        authorized: random.one_in(10),
        wishes,
        has: random.maybe(8, tag),
    }
}

fn tag(random: &mut Random) -> Tag {
    Tag { weak: random.one_in(3), number: random.below(3) }
}

pub fn span(random: &mut Random) -> u64 {
    random.of(&SPANS)
}

fn directives(random: &mut Random) -> Vec<Directive> {
    let flags = [
        "no-store",
        "no-cache",
        "private",
        "public",
        "must-revalidate",
        "proxy-revalidate",
        "must-understand",
        "unheard-of",
    ];
    let seconds =
        ["max-age", "max-age", "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "stale-if-error"];
    let mut all = Vec::new();
    for _ in 0..random.below(5) {
        let flag = random.one_in(4);
        all.push(match flag {
            true => (random.of(&flags), None),
            false if random.one_in(15) => (random.of(&seconds), Some(None)),
            false => (random.of(&seconds), Some(Some(random.of(&SPANS)))),
        });
    }
    all
}

/// What the origin answers at `now`.
pub fn answered(random: &mut Random, now: u64, body: u64) -> Answered {
    let about = |random: &mut Random| {
        let (ahead, by) = (random.one_in(2), random.of(&SPANS));
        if ahead { now + by } else { now - by }
    };
    let unless_invalid = |random: &mut Random, value: u64| (!random.one_in(12)).then_some(value);
    Answered {
        status: random.of(&[200, 200, 200, 200, 200, 200, 203, 204, 301, 302, 307, 404, 410, 299, 500, 503, 599]),
        control: random.maybe(2, directives),
        targeted: random.maybe(8, directives),
        expires: random.maybe(4, |random| {
            let at = about(random);
            unless_invalid(random, at)
        }),
        date: (!random.one_in(4)).then(|| {
            let at = if random.one_in(4) { about(random) } else { now };
            unless_invalid(random, at)
        }),
        age: random.maybe(6, |random| {
            let age = random.of(&SPANS);
            unless_invalid(random, age)
        }),
        modified: random.maybe(3, |random| now - random.below(2000)),
        tag: random.maybe(3, tag),
        vary: random.maybe(4, |random| random.of(&[Varies::Foo, Varies::Foo, Varies::Both, Varies::Anything])),
        location: random.maybe(3, |random| random.below(URIS)),
        body,
    }
}

impl Asked {
    /// As it is written: in odd ways, too.
    pub fn head(&self, random: &mut Random) -> RequestHead {
        let Wishes { no_store, no_cache, only_if_cached, max_age, min_fresh, max_stale, stale_if_error } = self.wishes;
        let flag = |name: &'static str, set: bool| set.then_some((name, None));
        let value = |name: &'static str, value: Option<u64>| value.map(|seconds| (name, Some(Some(seconds))));
        let wishes: Vec<Directive> = [
            flag("no-store", no_store),
            flag("no-cache", no_cache),
            flag("only-if-cached", only_if_cached),
            value("max-age", max_age),
            value("min-fresh", min_fresh),
            value("stale-if-error", stale_if_error),
            max_stale.map(|most| ("max-stale", most.map(Some))),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut lines = String::new();
        for line in written(&wishes, random) {
            lines.push_str(&format!("Cache-Control: {line}\n"));
        }
        for (name, value) in [("Foo", self.foo), ("Bar", self.bar)] {
            lines.extend(value.map(|value| format!("{name}: {}{value}\n", if random.one_in(2) { " " } else { "" })));
        }
        lines.extend(self.has.map(|tag| format!("If-None-Match: \"other\", {}\n", tag.text())));
        if self.authorized {
            lines.push_str("Authorization: me\n");
        }
        request(&format!("{} /{}", self.method, self.uri), &lines)
    }
}

impl Answered {
    pub fn head(&self, random: &mut Random) -> ResponseHead {
        let mut fields = FieldsBuilder::new();
        for line in written(self.control.as_deref().unwrap_or_default(), random) {
            fields.push(random.of(&["Cache-Control", "cache-control", "CACHE-CONTROL"]), line);
        }
        if let Some(targeted) = self.targeted.as_deref().filter(|targeted| !targeted.is_empty()) {
            let text = |(name, value): &Directive| match value {
                None => (*name).to_owned(),
                Some(None) => format!("{name}=soon"),
                Some(Some(seconds)) => format!("{name}={seconds}"),
            };
            fields.push("CDN-Cache-Control", targeted.iter().map(text).collect::<Vec<_>>().join(","));
        }
        for (name, at) in [("Expires", self.expires), ("Date", self.date)] {
            if let Some(at) = at {
                fields.push(name, at.map_or_else(|| random.of(&["0", "-1", "soon"]).to_owned(), date::format));
            }
        }
        if let Some(age) = self.age {
            fields.push("Age", age.map_or_else(|| random.of(&["-1", "1.5", "x"]).to_owned(), |age| age.to_string()));
        }
        if let Some(modified) = self.modified {
            fields.push("Last-Modified", date::format(modified));
        }
        if let Some(tag) = self.tag {
            fields.push("ETag", tag.text());
        }
        match self.vary {
            None => {}
            Some(Varies::Foo) => drop(fields.push("Vary", "FOO")),
            Some(Varies::Both) => drop(fields.push("Vary", "bar").push("vary", "foo")),
            Some(Varies::Anything) => drop(fields.push("Vary", "foo, *")),
        }
        if let Some(location) = self.location {
            fields.push("Location", format!("/{location}"));
        }
        ResponseHead { status: status(self.status), minor: Minor::One, fields: fields.build() }
    }
}

impl Tag {
    pub fn text(&self) -> String {
        format!("{}\"{}\"", if self.weak { "W/" } else { "" }, self.number)
    }
}

pub fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("a status")
}

/// The validators that a request to the origin names: its `If-None-Match` and `If-Modified-Since`.
pub fn conditions(fields: &Fields) -> Vec<String> {
    let all = ["if-none-match", "if-modified-since"].into_iter().flat_map(|name| fields.get_all(name));
    all.map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

/// Directives as lines of a field.
fn written(directives: &[Directive], random: &mut Random) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (name, value) in directives {
        let name = if random.one_in(4) { name.to_uppercase() } else { (*name).to_owned() };
        let text = match value {
            None => name,
            Some(None) => format!("{name}={}", random.of(&["", "-1", "1.5", "soon", "'5'"])),
            Some(Some(seconds)) if random.one_in(4) => format!("{name}=\"{seconds}\""),
            Some(Some(seconds)) => format!("{name}={seconds}"),
        };
        match lines.last_mut().filter(|_| !random.one_in(3)) {
            Some(line) => line.push_str(&format!("{}{text}", random.of(&[", ", ",", " ,, "]))),
            None => lines.push(text),
        }
    }
    lines
}
