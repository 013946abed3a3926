//! HTTP dates as seconds since the Unix epoch (RFC 9110 §5.6.7), read without regard to case as RFC 9111 §4.2 asks of
//! caches. A zone other than GMT, and everything else outside the three formats, is no date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 9999-12-31 23:59:59, the last second that four digits of a year can express.
const LAST: u64 = 253_402_300_799;
/// No longer text is a date; the longest is `Wednesday, 06-Nov-94 08:49:37 GMT`.
const LENGTH_MAX: usize = 40;

/// Reads any of the three formats. Dates before 1970 are no dates. A two-digit year from 70 is in the 1900s.
pub fn parse(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= LENGTH_MAX)?;
    let time = httpdate::parse_http_date(text).or_else(|_| httpdate::parse_http_date(&usual_case(text))).ok()?;
    seconds(time)
}

/// The preferred format, IMF-fixdate.
pub fn format(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST)))
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// `THU, 18 aug 2050 02:01:18 gmt` → `Thu, 18 Aug 2050 02:01:18 GMT`
fn usual_case(text: &str) -> String {
    let mut in_word = false;
    let mut usual: String = text
        .chars()
        .map(|c| {
            let c = if in_word { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
            in_word = c.is_ascii_alphabetic();
            c
        })
        .collect();
    if let Some(start) = usual.strip_suffix("Gmt").map(str::len) {
        usual.replace_range(start.., "GMT");
    }
    usual
}

#[cfg(test)]
mod tests {
    use super::super::sample::NOW;
    use super::*;

    #[test]
    fn the_three_formats_in_any_case() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "SUN, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 NOV 1994 08:49:37 GMT",
            "sun, 06 nov 1994 08:49:37 gMT",
            "sunDAY, 06-nov-94 08:49:37 gmt",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(NOW), "{text}");
        }
        assert_eq!(format(NOW), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn everything_else_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "foo",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18 +0000",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Mon, 18 Aug 2050 02:01:18 GMT",
            "Thu, 31 Dec 1969 23:59:59 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(&[0xff; 29]), None);
    }

    #[test]
    fn no_number_of_seconds_is_too_large_to_write() {
        assert_eq!(format(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
