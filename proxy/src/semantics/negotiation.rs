//! One text for all values of a negotiation field that mean the same (RFC 9111 §4.1 lets a cache take them for equal).
//!
//! In `Accept`, `Accept-Charset`, `Accept-Encoding` and `Accept-Language` (RFC 9110 §12.5) what is listed is compared
//! without regard to case, preference is told by weights and not by order, and a missing weight is 1.

/// The field's value in that text. `None`: it is not one of those fields, or its value is not as their grammar has it.
pub(super) fn normal<'a>(name: &str, members: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    if !is_known(name) {
        return None;
    }
    let has_parameters = name.eq_ignore_ascii_case("accept");
    // A list may have empty members, which mean nothing (RFC 9110 §5.6.1).
    let members = members.filter(|member| !member.is_empty());
    let mut ranges: Vec<String> = members.map(|member| range(member, has_parameters)).collect::<Option<_>>()?;
    ranges.sort_unstable();
    Some(ranges.join(", ").into_bytes())
}

fn is_known(name: &str) -> bool {
    let known = ["accept", "accept-charset", "accept-encoding", "accept-language"];
    known.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// `GZip ; q=0.50` → `gzip;q=0.5`. Values of parameters keep their case: whether it counts depends on the media type.
fn range(member: &[u8], has_parameters: bool) -> Option<String> {
    let text = std::str::from_utf8(member).ok().filter(|text| !text.contains(['"', '\\']))?;
    let mut parts = text.split(';').map(|part| part.trim_matches([' ', '\t']));
    let mut range = parts.next().filter(|value| !value.is_empty())?.to_ascii_lowercase();
    for part in parts {
        let (name, value) = part.split_once('=')?;
        if name.eq_ignore_ascii_case("q") {
            let weight = thousandths(value)?;
            if weight < 1000 {
                // As it may be sent: a refresh asks with this text.
                let decimals = format!("0.{weight:03}");
                range.push_str(&format!(";q={}", decimals.trim_end_matches('0').trim_end_matches('.')));
            }
        } else if has_parameters {
            range.push_str(&format!(";{}={value}", name.to_ascii_lowercase()));
        } else {
            return None;
        }
    }
    Some(range)
}

/// `qvalue`: at most three digits behind the point (RFC 9110 §12.4.2).
pub(super) fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let whole: u16 = matches!(whole, "0" | "1").then(|| whole.parse().ok())??;
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = part.bytes().chain(*b"000").take(3);
    let part = digits.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Some(whole * 1000 + part).filter(|weight| *weight <= 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: &str) -> Option<String> {
        let members = value.as_bytes().split(|b| *b == b',').map(|member| member.trim_ascii());
        normal(name, members).map(|text| String::from_utf8(text).expect("it was text"))
    }

    #[test]
    fn what_means_the_same_is_the_same() {
        for (name, expected, values) in [
            ("Accept-Encoding", "br, gzip", &["br, gzip", "gzip,br", "GZip ,, BR", "gzip;q=1, br; q=1.000"][..]),
            ("accept-encoding", "*;q=0, br;q=0.5, gzip", &["gzip, br;q=0.5, *;q=0", "*;Q=0.0,br ;\tq=0.50,gzip;q=1."]),
            ("Accept-Language", "de;q=0.8, en-gb", &["en-GB, de;q=0.8", "DE;q=0.8, en-gb"]),
            (
                "Accept",
                "*/*;q=0.1, text/html;level=A",
                &["text/html;Level=A, */*;q=0.1", "*/*;q=0.1,TEXT/HTML ; level=A"],
            ),
            ("Accept-Charset", "utf-8", &["UTF-8"]),
            ("Accept-Language", "", &["", ","]),
        ] {
            for value in values {
                assert_eq!(of(name, value).as_deref(), Some(expected), "{name}: {value}");
            }
        }
        for value in ["a;q=0.001, b;q=0.01, c;q=0.1, d;q=0.12", "a;q=0"] {
            assert_eq!(of("Accept-Encoding", value).as_deref(), Some(value), "the text can be sent and read again");
        }
        assert_ne!(of("Accept", "a/b;c=D"), of("Accept", "a/b;c=d"), "the case of a parameter's value may count");
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is() {
        for (name, value) in [
            ("Foo", "a, b"),
            ("Cookie", "a=1"),
            ("Accept-Encoding", "gzip;q=2"),
            ("Accept-Encoding", "gzip;q=1.001"),
            ("Accept-Encoding", "gzip;q=0.1234"),
            ("Accept-Encoding", "gzip;q=x"),
            ("Accept-Encoding", "gzip;level=9"),
            ("Accept-Encoding", "gzip;"),
            ("Accept-Encoding", ";q=1"),
            ("Accept", "a/b;c=\"d\""),
        ] {
            assert_eq!(of(name, value), None, "{name}: {value}");
        }
    }
}
