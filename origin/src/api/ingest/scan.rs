//! One look over the bytes of an element that was accepted as JSON: what its readers could stumble over (pure).

use std::slice::Iter;

use memchr::memchr2;

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Levels of brackets and braces.
    pub nesting: usize,
    /// Whether it holds a number or an escape that is good by its grammar, and yet may stand for nothing: only reading
    /// it tells. (`1e999` is out of range, `\ud800` is half a character.)
    pub doubtful: bool,
}

/// Digits from which a number without exponent may be out of range.
const NUMBER_LONG: usize = 300;

pub fn scan(text: &str) -> Scan {
    let (mut depth, mut scan, mut number) = (0usize, Scan::default(), 0usize);
    let mut bytes = text.as_bytes().iter();
    while let Some(byte) = bytes.next() {
        number = if byte.is_ascii_digit() { number + 1 } else { number };
        match byte {
            b'"' => scan.doubtful |= skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                scan.nesting = scan.nesting.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            // Of `true` and `false` too, which costs a reading, not a mistake.
            b'e' | b'E' if number > 0 => scan.doubtful = true,
            b'0'..=b'9' => scan.doubtful |= number > NUMBER_LONG,
            _ => number = 0,
        }
    }
    scan
}

/// Goes behind the closing quote; whether half a character may be in between.
fn skip_string(bytes: &mut Iter<'_, u8>) -> bool {
    let mut doubtful = false;
    while let Some(b'\\') = quote_or_backslash(bytes) {
        doubtful |= bytes.next() == Some(&b'u') && matches!(bytes.as_slice().first(), Some(b'd' | b'D'));
    }
    doubtful
}

/// Most strings are names and end within so many bytes: what searches long ones takes longer to begin.
const SHORT: usize = 8;

/// Goes behind the next quote or backslash, which it returns, or to the end.
fn quote_or_backslash(bytes: &mut Iter<'_, u8>) -> Option<u8> {
    for _ in 0..SHORT {
        if let byte @ (b'"' | b'\\') = bytes.next()? {
            return Some(*byte);
        }
    }
    let rest = bytes.as_slice();
    bytes.nth(memchr2(b'"', b'\\', rest).unwrap_or(rest.len())).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted_outside_strings() {
        assert_eq!(scan(r#"{"a":"[[[{\"[[\\","b":[{}]}"#), Scan { nesting: 3, doubtful: false });
        assert_eq!(scan("7").nesting, 0);
    }

    #[test]
    fn strings_of_any_length_are_passed_over() {
        for bytes in 0..3 * SHORT {
            let brackets = "[".repeat(bytes);
            assert_eq!(scan(&format!(r#"{{"{brackets}":[],"a":[]}}"#)), Scan { nesting: 2, doubtful: false });
            assert_eq!(scan(&format!(r#"{{"{brackets}\"[[[\\":[]}}"#)), Scan { nesting: 2, doubtful: false });
            assert_eq!(scan(&format!(r#"{{"{brackets}\ud83d[[":[]}}"#)), Scan { nesting: 2, doubtful: true });
            assert_eq!(scan(&format!(r#"["{brackets}"#)), Scan { nesting: 1, doubtful: false }, "it has no end");
        }
    }

    #[test]
    fn what_only_reading_can_tell_is_doubtful() {
        let long = format!("[{}]", "9".repeat(400));
        for (text, doubtful) in [
            (r#"{"e":"1e999","n":-12.5}"#, false),
            (r#"{"e":1e9}"#, true),
            (r#"[1E-9]"#, true),
            (r#"{"a":"\u00e4 \n \\ud800"}"#, false),
            (r#"{"a":"\ud83d\ude00"}"#, true),
            (r#"{"a":"\uD800"}"#, true),
            (long.as_str(), true),
            (r#"{"a":[true,false,null]}"#, false),
        ] {
            assert_eq!(scan(text).doubtful, doubtful, "{text}");
        }
    }

    proptest::proptest! {
        /// Whatever has the grammar of JSON, is not too deep and not doubtful, can be read.
        #[test]
        fn what_is_not_doubtful_can_be_read(text in r#"(\[|\{"a":|"(\\u[dD][8-9a-f0]{3}|\\u00e4|\\\\|x){0,2}"|-?[1-9]{1,3}(\.5)?([eE][+-]?[0-9]{1,3})?|,|\]|\}){1,8}"#) {
            let grammatical = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            if grammatical && !scan(&text).doubtful {
                proptest::prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
            }
        }
    }
}
