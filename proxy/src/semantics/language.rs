//! Which of the languages that an origin has a request gets: the origin's own choice, made before it is asked, so that all
//! requests that get the same select the same variant (RFC 9110 §12.5.4, RFC 4647 §3.4).

use std::cmp::Reverse;

use millpond_shared::http1::Fields;

use super::list::{self, Quoted};
use super::negotiation::thousandths;

/// The best of `offered` for a request; the earlier of two that are as good. `None`: the request asks for no language, or
/// for none of these.
///
/// A range stands for the language of the same tag, for those that are more specific (`en` for `en-GB`), and at last for
/// those that are less (`en-GB` for `en`); `*` for what no other range stands for. Weight 0 means: not this one.
pub fn best<'a>(offered: &'a [String], request: &Fields) -> Option<&'a str> {
    let members = request.get_all("accept-language").flat_map(|line| list::members(line, Quoted::Strings));
    let ranges: Vec<(&str, u16)> = members.filter_map(range).collect();
    let weighed = offered.iter().filter_map(|tag| Some((weight(&ranges, tag)?, tag)));
    // Of equal ones `min_by_key` gives the first.
    weighed.min_by_key(|(weight, _)| Reverse(*weight)).map(|(_, tag)| tag.as_str())
}

/// A language range and its weight in thousandths; one that is malformed says nothing.
fn range(member: &[u8]) -> Option<(&str, u16)> {
    let mut parts = std::str::from_utf8(member).ok()?.split(';').map(|part| part.trim_matches([' ', '\t']));
    let range = parts.next().filter(|range| *range == "*" || is_tag(range))?;
    let weight = match parts.next() {
        None => 1000,
        Some(parameter) => thousandths(parameter.strip_prefix(['q', 'Q'])?.strip_prefix('=')?)?,
    };
    parts.next().is_none().then_some((range, weight))
}

/// How good a language is: by its weight, and of equal weights by how well the range fits. `None`: it is not wanted.
fn weight(ranges: &[(&str, u16)], tag: &str) -> Option<(u16, Fit)> {
    let fitting = ranges.iter().filter_map(|(range, weight)| Some((fit(range, tag)?, *weight)));
    // The range that fits best decides, as a more specific one is there to make an exception.
    let (fit, weight) = fitting.max()?;
    (weight > 0).then_some((weight, fit))
}

/// How a range comes to stand for a language, the better the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Any,
    /// The range is more specific, by more subtags the worse.
    Broader(Reverse<usize>),
    /// The range is the start of the tag: the longer the better.
    Within(usize),
    Exact,
}

fn fit(range: &str, tag: &str) -> Option<Fit> {
    if range == "*" {
        Some(Fit::Any)
    } else if range.eq_ignore_ascii_case(tag) {
        Some(Fit::Exact)
    } else if starts_with(tag, range) {
        Some(Fit::Within(range.len()))
    } else if starts_with(range, tag) {
        Some(Fit::Broader(Reverse(range.len())))
    } else {
        None
    }
}

/// Whether the subtags of `start` are the first of `tag`.
fn starts_with(tag: &str, start: &str) -> bool {
    let cut = tag.split_at_checked(start.len());
    cut.is_some_and(|(head, rest)| head.eq_ignore_ascii_case(start) && (rest.is_empty() || rest.starts_with('-')))
}

/// Whether a text is a language tag by its shape: subtags of one to eight letters and digits (RFC 4647 §2.1).
pub fn is_tag(text: &str) -> bool {
    let is_subtag = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    text.split('-').all(is_subtag) && text.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(offered: &[&str], lines: &[&str]) -> Option<String> {
        let offered: Vec<String> = offered.iter().map(|tag| (*tag).to_owned()).collect();
        let request: Fields = lines.iter().map(|line| ("Accept-Language", *line)).collect();
        best(&offered, &request).map(str::to_owned)
    }

    #[test]
    fn the_best_language_of_those_there_are() {
        let offered = ["en", "de", "pt-BR", "zh-Hant"];
        for (value, expected) in [
            ("de", Some("de")),
            ("fr, de;q=0.2", Some("de")),
            ("DE-at, en;q=0.9", Some("de")),
            ("en;q=0.8, de;q=0.9", Some("de")),
            ("fr", None),
            ("", None),
            ("*", Some("en")),
            ("fr, *;q=0.1", Some("en")),
            ("en;q=0, *", Some("de")),
            ("pt", Some("pt-BR")),
            ("pt-PT", None),
            ("pt-BR-x-a, en;q=0.5", Some("pt-BR")),
            ("zh-Hant-TW", Some("zh-Hant")),
            ("zh-Hans", None),
            ("den, e", None),
            ("en-GB, de", Some("de")),
            ("en-GB;q=0.9, en;q=0.1, de;q=0.5", Some("de")),
            ("de;q=0", None),
            ("de;q=2, en;q=0.1", Some("en")),
            ("de;level=1, en;q=0.1", Some("en")),
            ("de;q=1;x=1, en;q=0.1", Some("en")),
            ("de ; q=0.5 ,en; Q=0.4", Some("de")),
        ] {
            assert_eq!(of(&offered, &[value]).as_deref(), expected, "{value}");
        }
        assert_eq!(of(&offered, &[]), None);
        assert_eq!(of(&offered, &["fr", "de"]).as_deref(), Some("de"), "lines are one list");
        assert_eq!(of(&["de", "en"], &["en, de"]).as_deref(), Some("de"), "of equals, the first that is offered");
    }

    proptest! {
        /// What is chosen is offered, and asking for just that gives it again: the reduced request means the same.
        #[test]
        fn the_choice_stands(value in "[a-c*;=q0-1., -]{0,30}|([a-c]{1,2}(-[A-C]{2})?(;q=0\\.[0-9])?, ){0,4}\\*?") {
            let offered = ["a", "b-BB", "b", "c-AA", "cc"];
            if let Some(chosen) = of(&offered, &[&value]) {
                prop_assert!(offered.contains(&chosen.as_str()));
                prop_assert_eq!(of(&offered, &[&chosen]), Some(chosen));
            }
        }
    }
}
