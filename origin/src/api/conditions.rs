//! Conditional requests on documents: `If-None-Match` and `If-Modified-Since` (RFC 9110 §13.1) (pure).

use http::{HeaderMap, header};

/// Whether the client has this representation already: 304 instead of 200. `If-None-Match` decides alone where it is
/// given.
pub fn not_modified(request: &HeaderMap, etag: &str, last_modified: &str) -> bool {
    let mut tags = request.get_all(header::IF_NONE_MATCH).iter().peekable();
    if tags.peek().is_some() {
        return tags.any(|list| lists(list.as_bytes(), etag));
    }
    let mut dates = request.get_all(header::IF_MODIFIED_SINCE).iter();
    match (dates.next().and_then(|date| date.to_str().ok()), dates.next()) {
        (Some(since), None) => {
            let times = (httpdate::parse_http_date(since), httpdate::parse_http_date(last_modified));
            matches!(times, (Ok(since), Ok(last_modified)) if last_modified <= since)
        }
        // A recipient must ignore it if it is no date (§13.1.3); two of them are none.
        _ => false,
    }
}

/// Whether the list is `*` or has a tag that equals `etag` by weak comparison. What stands behind a mistake is not
/// read: an answer in full is always right.
fn lists(list: &[u8], etag: &str) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        rest = rest.trim_ascii_start();
        if let Some(behind) = rest.strip_prefix(b",") {
            rest = behind;
            continue;
        }
        let Some(tag) = rest.strip_prefix(b"W/").unwrap_or(rest).strip_prefix(b"\"") else { return false };
        let Some(length) = tag.iter().position(|byte| *byte == b'"') else { return false };
        let (opaque, behind) = tag.split_at(length);
        if Some(opaque) == etag.as_bytes().strip_prefix(b"\"").and_then(|etag| etag.strip_suffix(b"\"")) {
            return true;
        }
        rest = behind.get(1..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"1-7-abc\"";
    const LAST_MODIFIED: &str = "Sat, 12 Sep 2015 00:46:58 GMT";

    fn judged(fields: &[(&'static str, &str)]) -> bool {
        let fields = fields.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).expect("a value"))
        });
        not_modified(&fields.collect(), ETAG, LAST_MODIFIED)
    }

    #[test]
    fn tags_compare_weakly_in_lists_of_any_form() {
        for matching in [
            "\"1-7-abc\"",
            "W/\"1-7-abc\"",
            "*",
            " * ",
            "\"x\", \"1-7-abc\"",
            "\"x\",W/\"1-7-abc\",\"y\"",
            ",, \"a,b\" ,\"1-7-abc\"",
            "\"x\"\"1-7-abc\"",
        ] {
            assert!(judged(&[("if-none-match", matching)]), "{matching}");
        }
        for other in ["", "\"x\"", "1-7-abc", "\"1-7-abc", "w/\"1-7-abc\"", "\"x\", *", "\"1-7-abcd\"", "\"1-7-ab\""] {
            assert!(!judged(&[("if-none-match", other)]), "{other}");
        }
        assert!(judged(&[("if-none-match", "\"x\""), ("if-none-match", ETAG)]));
    }

    #[test]
    fn dates_count_only_alone() {
        assert!(judged(&[("if-modified-since", LAST_MODIFIED)]));
        assert!(judged(&[("if-modified-since", "Sat, 12 Sep 2015 00:46:59 GMT")]));
        assert!(!judged(&[("if-modified-since", "Sat, 12 Sep 2015 00:46:57 GMT")]));
        assert!(!judged(&[("if-modified-since", "tomorrow")]));
        assert!(!judged(&[("if-modified-since", LAST_MODIFIED), ("if-modified-since", LAST_MODIFIED)]));
        assert!(!judged(&[("if-modified-since", LAST_MODIFIED), ("if-none-match", "\"x\"")]));
        assert!(judged(&[("if-modified-since", "tomorrow"), ("if-none-match", ETAG)]));
        assert!(!judged(&[]));
    }
}
