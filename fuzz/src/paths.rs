//! One spelling of a path, one key for one resource, and one text for one place in a feed.

use millpond_origin::projection::Before;
use millpond_proxy::key::{Key, forwarded_target};
use millpond_proxy::rules::{Query, Rule};
use millpond_shared::http1::{normal, origin_form};

use super::input;

pub fn path(data: &[u8]) {
    let Some(path) = origin_form(data) else { return };
    let Ok(once) = normal(path) else {
        assert!(path.split('?').next().is_some_and(|path| path.contains('%')));
        return;
    };
    assert_eq!(normal(&once).as_ref(), Ok(&once), "its normal form is its own");
    assert_eq!(origin_form(once.as_bytes()), Some(&*once), "it can be asked for");
    let (bare, query) = once.split_once('?').unwrap_or((&once, ""));
    assert_eq!(path.split_once('?').map_or("", |(_, query)| query), query, "the query stays");
    assert!(bare.starts_with('/') && !bare.contains("//"));
    assert!(bare.split('/').all(|segment| segment != "." && segment != ".."));
    for (at, _) in bare.match_indices('%') {
        let digits = &bare[at + 1..at + 3];
        let byte = u8::from_str_radix(digits, 16).expect("two digits");
        assert!(!byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte), "%{digits} stands for itself");
        assert_eq!(digits, digits.to_ascii_uppercase());
    }
    assert_eq!(segments(path), segments(bare), "it names what was named");
}

/// What a path names, told otherwise: each segment decoded but for slashes, dots resolved, empty ones left out.
fn segments(path: &str) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for segment in path.split('?').next().unwrap_or_default().split('/') {
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
        match decoded.as_slice() {
            b"" | b"." => {}
            b".." => {
                found.pop();
            }
            _ => found.push(decoded),
        }
    }
    found
}

/// Two request heads, a zero byte between them, and a byte that chooses the rule: their keys are the same if and only
/// if they ask the same origin for the same.
pub fn key(data: &[u8]) {
    let [choice, one, other] = input::parts(data);
    let (Some(one), Some(other)) = (input::request(one), input::request(other)) else { return };
    let mut rule = Rule::everything("r", "origin");
    if choice.first().is_some_and(|b| b % 2 == 1) {
        rule.query = Query::Only(vec!["a".to_owned(), "b".to_owned()]);
    }
    let parts = [&one, &other].map(|request| {
        let key = Key::of(&rule, request, "http");
        let target = forwarded_target(&rule, request.target.path_and_query()).into_owned();
        let read: Vec<&str> = key.as_str().splitn(4, ' ').collect();
        assert_eq!((read.len(), read[0], read[3]), (4, "origin", target.as_str()), "each part stands in it");
        assert_eq!(key.uri_origin(), format!("{} {}", read[1], read[2]));
        let uri = (read[1].to_owned(), request.authority.normal(read[1]).to_owned(), target);
        (key, uri)
    });
    let [(key, uri), (other_key, other_uri)] = parts;
    assert_eq!(key == other_key, uri == other_uri);
    assert_eq!(key.hash() == other_key.hash(), key == other_key);
}

/// The cursor of a page, as it stands in a query.
pub fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(place) = text.parse::<Before>() else { return };
    assert_eq!(place.to_string(), text, "one place has one text");
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "it needs no encoding");
    assert!(text.len() <= 12 + place.rank().1.len() * 4 / 3 + 2, "it is no longer than what it says");
}
