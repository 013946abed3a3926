//! The normal form of a path: one spelling for all that name the same resource (RFC 3986 §6.2.2), so that what is
//! matched by rules, what is stored under a key and what an origin is asked are the same thing.
//!
//! - A percent-encoded unreserved character is decoded; the hex digits of the others are written in upper case.
//! - `.` and `..` segments are resolved, also where they were percent-encoded; nothing climbs above the root.
//! - Empty segments are left out: `//` is `/`.
//! - `%2F` stays apart from `/`, and `%5C` from `\`. The query stays as it is.

use std::borrow::Cow;

use super::Refusal;

/// A `%` that no two hex digits follow.
const BROKEN: Refusal = Refusal::bad("the path holds a % without two hex digits behind it: write it as %25");

/// The normal form of a path with its query; borrowed if that is what it is already.
pub fn normal(path_and_query: &str) -> Result<Cow<'_, str>, Refusal> {
    let (path, query) = match memchr::memchr(b'?', path_and_query.as_bytes()) {
        Some(at) => path_and_query.split_at(at),
        None => (path_and_query, ""),
    };
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path_and_query));
    }
    let mut normal = without_dots(&decoded(path)?);
    normal.push_str(query);
    Ok(Cow::Owned(normal))
}

/// Whether nothing in the path could be written otherwise. May say no where the answer is yes.
fn is_normal(path: &[u8]) -> bool {
    let suspicious = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.'] | [b'%', _]);
    !path.windows(2).any(suspicious) && path.last() != Some(&b'%')
}

/// With unreserved characters decoded and hex digits in upper case.
fn decoded(path: &str) -> Result<String, Refusal> {
    let mut pieces = path.split('%');
    let mut text = String::with_capacity(path.len());
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit())).ok_or(BROKEN)?;
        let byte = u8::from_str_radix(digits, 16).map_err(|_| BROKEN)?;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push_str(&digits.to_ascii_uppercase());
        }
        text.push_str(piece.get(2..).unwrap_or_default());
    }
    Ok(text)
}

/// RFC 3986 §5.2.4, with empty segments left out.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut is_folder = true;
    for segment in path.split('/') {
        is_folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut text = String::with_capacity(path.len());
    for segment in &kept {
        text.push('/');
        text.push_str(segment);
    }
    if is_folder {
        text.push('/');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_spelling_for_one_resource() {
        for (written, expected) in [
            ("/", "/"),
            ("/a/b?c=//../%7e", "/a/b?c=//../%7e"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/../../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/...", "/a/..."),
            ("/a/.well-known", "/a/.well-known"),
            ("//a///b//", "/a/b/"),
            ("/%7Euser/%41%2d", "/~user/A-"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2F..%2fb", "/a%2F..%2Fb"),
            ("/a%5c..", "/a%5C.."),
            ("/%25%32%65", "/%252e"),
            ("/a%3fb?x", "/a%3Fb?x"),
            ("/caf%c3%a9", "/caf%C3%A9"),
        ] {
            assert_eq!(normal(written).as_deref(), Ok(expected), "{written}");
        }
        for broken in ["/%", "/a%2", "/%zz", "/%2g", "/a/%u0041"] {
            assert!(normal(broken).is_err(), "{broken}");
        }
        assert!(matches!(normal("/users/u1.json?page=2"), Ok(Cow::Borrowed(_))), "most paths cost nothing");
    }

    proptest! {
        /// Normalising twice changes nothing, no dot segment or empty one is left, and `%2F` is never taken for `/`.
        #[test]
        fn it_is_stable_and_holds_no_other_spelling(path in "(/|\\.|%2[eEfF]|%4[1-5]|%c3|a|\\?|~){0,24}") {
            let path = format!("/{path}");
            let once = normal(&path).expect("whole escapes").into_owned();
            let twice = normal(&once).expect("whole escapes");
            prop_assert_eq!(twice.as_ref(), once.as_str());
            let bare = once.split('?').next().unwrap_or_default();
            prop_assert!(bare.starts_with('/') && !bare.contains("//"));
            prop_assert!(bare.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert!(!bare.contains("%41") && !bare.contains("%c3") && !bare.contains("%2f"));
        }
    }
}
