//! Numbers by window of time and member: state of a `group` (pure).
//!
//! The members of a window are bounded. Which of too many are counted one by one must not depend on who came first, so
//! it is those whose hashes are the least; the others are counted together, and a member that once left never comes
//! back, since the greatest hash that is kept only gets less.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use millpond_shared::event::View;
use millpond_shared::found::Found;
use millpond_shared::projection::{Grouping, Windows};
use millpond_shared::stored;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::numbers::{Numbers, Tick};
use super::series::Series;

/// For each declared row of windows: its windows with their members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    rows: Vec<Series<Members>>,
    #[serde(skip)]
    weight: usize,
}

/// The members of one window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    counted: BTreeMap<Member, Numbers>,
    /// Of all members that are too many, together.
    beyond: Option<Numbers>,
}

/// A hash, and the values that it was made of as a JSON list.
type Member = (u64, Box<str>);

/// What one event does to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTick {
    pub tick: Tick,
    /// `None` where the values are too long: they are counted with those beyond.
    member: Option<Member>,
}

/// The first members of a window, and the numbers of all others.
pub struct Ranked<'a> {
    /// The values that make a member, as a JSON list, with its numbers.
    pub top: Vec<(&'a str, &'a Numbers)>,
    pub rest: Option<Numbers>,
    /// Whether every member was counted one by one.
    pub complete: bool,
}

/// Longest list of values that is kept as a member, in bytes.
const MEMBER_BYTES_MAX: usize = 1_024;
/// What a window takes beside its members, in bytes.
const WINDOW_BYTES: usize = size_of::<(i64, Members)>();
/// What a member takes beside its values and its numbers, in bytes: its part of a node of the tree, and a block.
const MEMBER_BYTES: usize = size_of::<Member>() + 24;

impl GroupTick {
    pub fn of(grouping: &Grouping, view: &View<'_>) -> GroupTick {
        let values = values(grouping, view);
        let member = (values.len() <= MEMBER_BYTES_MAX).then(|| (xxh3_64(values.as_bytes()), values.into()));
        GroupTick { tick: Tick::of(&grouping.counting.measures, view), member }
    }
}

/// The values that make a member, as a JSON list: null for what is missing, a list or an object.
fn values(grouping: &Grouping, view: &View<'_>) -> String {
    let mut out = vec![b'['];
    for (index, path) in grouping.by.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"" } else { b"," });
        match view.find(path) {
            None | Some(Found::Value(Value::Array(_) | Value::Object(_))) => out.extend_from_slice(b"null"),
            Some(scalar) => scalar.put_json(&mut out),
        }
    }
    out.push(b']');
    // It is JSON: this can't fail.
    String::from_utf8(out).unwrap_or_default()
}

impl Group {
    pub fn empty(grouping: &Grouping) -> Group {
        Group { rows: grouping.counting.windows.iter().map(|_| Series::default()).collect(), weight: 0 }
    }

    /// Whether there is a window left for an event of this time.
    pub fn would_change(&self, grouping: &Grouping, effect: &GroupTick) -> bool {
        self.rows(grouping).any(|(windows, series)| !series.has_expired(windows, effect.tick.time))
    }

    /// Counts an event in every window that it lies in; whether there was one.
    pub fn apply(&mut self, grouping: &Grouping, effect: &GroupTick) -> bool {
        let mut changed = false;
        for (series, windows) in self.rows.iter_mut().zip(&grouping.counting.windows) {
            let (mut freed, mut fresh) = (0, 0);
            let new = || {
                fresh = WINDOW_BYTES;
                Members::default()
            };
            let dropped = |members: &Members| freed += members.weight();
            let Some(members) = series.at(*windows, effect.tick.time, new, dropped) else { continue };
            let (added, left) = members.add(grouping, effect);
            self.weight = (self.weight + fresh + added).saturating_sub(freed + left);
            changed = true;
        }
        changed
    }

    /// The rows as they are declared, with what they hold.
    pub fn rows(&self, grouping: &Grouping) -> impl Iterator<Item = (Windows, &Series<Members>)> {
        grouping.counting.windows.iter().copied().zip(&self.rows)
    }

    /// What the state takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Appends the state's bytes: their `postcard` encoding.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        stored::append(self, out);
    }

    pub(super) fn restore(grouping: &Grouping, bytes: &[u8]) -> Result<Group, String> {
        let (mut group, rest): (Group, &[u8]) = postcard::take_from_bytes(bytes).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes are left over".to_owned());
        }
        if group.rows.len() != grouping.counting.windows.len() || !group.rows.iter().all(Series::is_sound) {
            return Err("its windows are not those of the declaration".to_owned());
        }
        group.weight = group.rows.iter().flat_map(Series::iter).map(|(_, members)| members.weight()).sum();
        Ok(group)
    }
}

impl Members {
    /// Counts an event; by how many bytes the members grew, and shrank.
    fn add(&mut self, grouping: &Grouping, effect: &GroupTick) -> (usize, usize) {
        let (measures, tick) = (&grouping.counting.measures, &effect.tick);
        let mut sizes = (0, 0);
        let Some(member) = effect.member.as_ref().filter(|member| self.counts(grouping.members, member)) else {
            self.beyond(grouping, &mut sizes, |beyond| beyond.add(measures, tick));
            return sizes;
        };
        match self.counted.get_mut(member) {
            Some(numbers) => {
                sizes.1 += numbers.weight();
                numbers.add(measures, tick);
                sizes.0 += numbers.weight();
            }
            None => {
                let mut numbers = Numbers::none(measures);
                numbers.add(measures, tick);
                sizes.0 += member_weight(member, &numbers);
                self.counted.insert(member.clone(), numbers);
            }
        }
        if self.counted.len() > grouping.members
            && let Some((member, numbers)) = self.counted.pop_last()
        {
            sizes.1 += member_weight(&member, &numbers);
            self.beyond(grouping, &mut sizes, |beyond| beyond.merge(measures, &numbers));
        }
        sizes
    }

    /// Whether a member is one of those that are counted one by one, or becomes one.
    fn counts(&self, limit: usize, member: &Member) -> bool {
        self.counted.len() < limit || self.counted.last_key_value().is_some_and(|(greatest, _)| member <= greatest)
    }

    fn beyond(&mut self, grouping: &Grouping, sizes: &mut (usize, usize), change: impl FnOnce(&mut Numbers)) {
        sizes.1 += self.beyond.as_ref().map_or(0, Numbers::weight);
        let beyond = self.beyond.get_or_insert_with(|| Numbers::none(&grouping.counting.measures));
        change(beyond);
        sizes.0 += beyond.weight();
    }

    fn weight(&self) -> usize {
        WINDOW_BYTES
            + self.beyond.as_ref().map_or(0, Numbers::weight)
            + self.counted.iter().map(|(member, numbers)| member_weight(member, numbers)).sum::<usize>()
    }

    /// The members with the greatest numbers; of equal ones those whose values come first as text.
    pub fn ranked(&self, grouping: &Grouping) -> Ranked<'_> {
        let measures = &grouping.counting.measures;
        let mut members: Vec<_> = self
            .counted
            .iter()
            .map(|((_, values), numbers)| (Reverse(numbers.get(measures, grouping.rank)), values.as_ref(), numbers))
            .collect();
        members.sort_unstable_by(|(a, a_values, _), (b, b_values, _)| (a, a_values).cmp(&(b, b_values)));
        let mut rest = self.beyond.clone();
        for (.., numbers) in members.drain(grouping.top.min(members.len())..) {
            rest.get_or_insert_with(|| Numbers::none(measures)).merge(measures, numbers);
        }
        let top = members.into_iter().map(|(_, values, numbers)| (values, numbers)).collect();
        Ranked { top, rest, complete: self.beyond.is_none() }
    }
}

fn member_weight(member: &Member, numbers: &Numbers) -> usize {
    MEMBER_BYTES + member.1.len() + numbers.weight()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::numbers::Measured;
    use crate::projection::testing::{event, tumbling};
    use millpond_shared::projection::{Counting, Measure, Measures};
    use proptest::prelude::*;

    fn grouping(members: usize, top: usize) -> Grouping {
        let path = |text: &str| text.parse().expect("a path");
        let measures = Measures { count: true, max: vec![path("data.n")], ..Measures::default() };
        Grouping {
            counting: Counting { measures, windows: vec![tumbling(10, 30), Windows::All] },
            by: vec![path("data.m"), path("data.o")],
            rank: Measure::Count,
            top,
            members,
        }
    }

    /// Of events at these milliseconds, by member, with a number.
    fn group(grouping: &Grouping, events: &[(i64, u8, i64)]) -> Group {
        let mut group = Group::empty(grouping);
        for (at, member, n) in events {
            let event = event("1", at * 1_000_000, &format!("{{\"m\":\"m{member}\",\"n\":{n}}}"));
            let tick = GroupTick::of(grouping, &View::new(&event).expect("JSON"));
            assert!(group.would_change(grouping, &tick) && group.apply(grouping, &tick));
        }
        group
    }

    fn counts(grouping: &Grouping, ranked: &Ranked<'_>) -> Vec<(String, u64)> {
        let count = |numbers: &Numbers| match numbers.get(&grouping.counting.measures, Measure::Count) {
            Measured::Whole(count) => count,
            other => panic!("{other:?}"),
        };
        let top = ranked.top.iter().map(|(values, numbers)| ((*values).to_owned(), count(numbers)));
        top.chain(ranked.rest.iter().map(|rest| ("rest".to_owned(), count(rest)))).collect()
    }

    fn all_time(group: &Group) -> &Members {
        group.rows[1].iter().next().expect("the window over all time").1
    }

    #[test]
    fn a_member_is_the_list_of_its_values_as_json() {
        let data = serde_json::json!({
            "text": "\"\\/\n\u{1}é", "number": 1.5, "whole": -3, "true": true, "null": null, "list": [1], "object": { "x": 1 },
        });
        let paths = ["text", "number", "whole", "true", "null", "list", "object", "missing"];
        let paths = paths.iter().map(|name| format!("data.{name}")).chain(["id".to_owned(), "time".to_owned()]);
        let by = paths.map(|path| path.parse().expect("a path")).collect();
        let grouping = Grouping { by, ..grouping(1, 1) };
        let event = event("7", 1_000_000_000, &data.to_string());
        let tick = GroupTick::of(&grouping, &View::new(&event).expect("JSON"));
        let expected =
            serde_json::json!(["\"\\/\n\u{1}é", 1.5, -3, true, null, null, null, null, "7", "1970-01-01T00:00:01Z"]);
        let expected = expected.to_string();
        assert_eq!(tick.member, Some((xxh3_64(expected.as_bytes()), expected.into())));
    }

    #[test]
    fn the_first_are_listed_and_the_rest_is_summed() {
        let grouping = grouping(10, 2);
        let group = group(&grouping, &[(1, 3, 0), (2, 1, 0), (3, 2, 0), (4, 2, 0), (5, 4, 0)]);
        let ranked = all_time(&group).ranked(&grouping);
        let expected = [(r#"["m2",null]"#, 2), (r#"["m1",null]"#, 1), ("rest", 2)];
        assert_eq!(counts(&grouping, &ranked), expected.map(|(values, count)| (values.to_owned(), count)));
        assert!(ranked.complete);
    }

    #[test]
    fn too_many_members_and_too_long_ones_are_counted_together() {
        let grouping = grouping(3, 3);
        let events: Vec<(i64, u8, i64)> = (0..100).map(|n| (n % 9, (n % 10) as u8, n)).collect();
        let mut group = group(&grouping, &events);
        let long = event("1", 0, &serde_json::json!({ "m": "x".repeat(MEMBER_BYTES_MAX) }).to_string());
        group.apply(&grouping, &GroupTick::of(&grouping, &View::new(&long).expect("JSON")));
        let ranked = all_time(&group).ranked(&grouping);
        let counts = counts(&grouping, &ranked);
        assert_eq!(counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [10, 10, 10, 71]);
        assert!(!ranked.complete);
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_the_same_bytes(
            (events, again) in prop::collection::vec((0i64..60, 0u8..9, -5i64..5), 0..60)
                .prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
            members in 1usize..6,
        ) {
            let grouping = grouping(members, 1);
            let (one, other) = (group(&grouping, &events), group(&grouping, &again));
            prop_assert_eq!(&one, &other, "weights included");
            let blob = postcard::to_allocvec(&one).expect("encoded");
            prop_assert_eq!(&postcard::to_allocvec(&other).expect("encoded"), &blob);
            let restored = Group::restore(&grouping, &blob).expect("restored");
            prop_assert_eq!(&restored, &one);
            if !events.is_empty() {
                let all: u64 = counts(&grouping, &all_time(&one).ranked(&grouping)).iter().map(|(_, n)| n).sum();
                prop_assert_eq!(all, events.len() as u64, "every event is counted once");
            }
        }
    }
}
