//! Conditions in both directions, and what a 304 confirms and replaces.

use super::super::sample::fields;
use super::*;

const LM: &str = "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT";
const LM_850: &str = "Last-Modified: Sunday, 06-Nov-94 08:00:00 GMT";
const LM_LATER: &str = "Last-Modified: Sun, 06 Nov 1994 08:00:01 GMT";

fn lines(fields: &Fields) -> Vec<String> {
    fields.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
}

#[test]
fn conditions_for_the_origin() {
    let since = "If-Modified-Since: Sun, 06 Nov 1994 08:00:00 GMT";
    for (stored, expected) in [
        (String::new(), &[][..]),
        (format!("ETag: \"a\"\n{LM}"), &["If-None-Match: \"a\"", since]),
        ("ETag: W/\"a,b\"".to_owned(), &["If-None-Match: W/\"a,b\""]),
        ("ETag: unquoted".to_owned(), &["If-None-Match: unquoted"]),
        (LM.to_owned(), &[since]),
        ("ETag:\nLast-Modified: yesterday".to_owned(), &[]),
    ] {
        let stored = fields(&stored);
        let validators = Validators::of(&stored);
        let mut request = FieldsBuilder::new();
        put_conditions(&validators, &mut request);
        assert_eq!(lines(&request.build()), expected, "{stored:?}");
        assert_eq!(validators.any(), !expected.is_empty(), "{stored:?}");
    }
    assert!(is_condition("If-None-Match") && is_condition("if-range") && !is_condition("Range"));
}

#[test]
fn a_client_may_have_any_form() {
    use Coding::{Brotli, Gzip};
    let stored = fields(&format!("ETag: \"a\"\n{LM}"));
    for (request, next, expected) in [
        ("If-None-Match: \"a\"", None, Some(None)),
        ("If-None-Match: \"a\"", Some(Gzip), Some(None)),
        ("If-None-Match: \"a-gzip\"", None, Some(Some(Gzip))),
        ("If-None-Match: W/\"a-br\"", Some(Gzip), Some(Some(Brotli))),
        ("If-None-Match: \"a-br\", \"a-gzip\"", Some(Gzip), Some(Some(Gzip))),
        ("If-None-Match: \"a-gzip\", \"a\"", Some(Brotli), Some(None)),
        ("If-None-Match: \"b\", \"b-gzip\"", Some(Gzip), None),
        ("If-None-Match: \"a-deflate\"", Some(Gzip), None),
        ("If-None-Match: \"a-\", \"a-gzip-gzip\"", Some(Gzip), None),
        ("If-None-Match: *", Some(Gzip), Some(Some(Gzip))),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:00:00 GMT", Some(Gzip), Some(Some(Gzip))),
        ("If-Modified-Since: Sun, 06 Nov 1994 07:00:00 GMT", Some(Gzip), None),
        ("", Some(Gzip), None),
    ] {
        let request = fields(request);
        let found = not_modified_in(&request, StatusCode::OK, stored.iter(), next);
        assert_eq!(found, expected, "{request:?} {next:?}");
        assert_eq!(not_modified_in(&request, StatusCode::NOT_FOUND, stored.iter(), next), None);
    }
    let weak = fields("ETag: W/\"a\"");
    let request = fields("If-None-Match: W/\"a-gzip\"");
    assert_eq!(not_modified_in(&request, StatusCode::OK, weak.iter(), None), Some(Some(Gzip)));
    assert_eq!(not_modified_in(&request, StatusCode::OK, fields("").iter(), None), None);
}

#[test]
fn a_clients_conditions() {
    let since = |time| format!("If-Modified-Since: Sun, 06 Nov 1994 {time} GMT");
    for (request, stored, expected) in [
        ("If-None-Match: \"a\"", "ETag: \"a\"", true),
        ("If-None-Match: W/\"a\"", "ETag: \"a\"", true),
        ("If-None-Match: \"a\"", "ETag: W/\"a\"", true),
        ("If-None-Match: \"a\", \"b\", \"c\"", "ETag: \"c\"", true),
        ("If-None-Match: \"a\"\nIf-None-Match: \"b\"", "ETag: \"b\"", true),
        ("If-None-Match: \"x,y\"", "ETag: \"x,y\"", true),
        ("If-None-Match: \"x,y\"", "ETag: \"y\"", false),
        ("If-None-Match: a", "ETag: \"a\"", false),
        ("If-None-Match: \"a\"", "ETag: \"b\"", false),
        ("If-None-Match: \"a\"", "", false),
        ("If-None-Match:", "", false),
        ("If-None-Match: *", "", true),
        ("If-None-Match: *, \"b\"", "ETag: \"a\"", false),
        // If-None-Match decides alone.
        (&format!("If-None-Match: \"b\"\n{}", since("09:00:00")), &format!("ETag: \"a\"\n{LM}"), false),
        (&format!("If-None-Match: \"a\"\n{}", since("07:00:00")), &format!("ETag: \"a\"\n{LM}"), true),
        (&since("08:00:00"), LM, true),
        (&since("08:00:01"), LM, true),
        (&since("07:59:59"), LM, false),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:00:00 GMT", LM, true),
        (&since("08:00:00"), "Date: Sun, 06 Nov 1994 08:00:00 GMT", true),
        (&since("08:00:00"), "Date: Sun, 06 Nov 1994 08:00:01 GMT", false),
        (&since("08:00:00"), "", false),
        (&since("09:00:00"), "Last-Modified: x\nDate: Sun, 06 Nov 1994 08:00:00 GMT", false),
        ("If-Modified-Since: yesterday", LM, false),
        (&format!("{}\n{}", since("09:00:00"), since("09:00:00")), LM, false),
        ("", LM, false),
    ] {
        let (request, stored) = (fields(request), fields(stored));
        assert_eq!(not_modified(&request, StatusCode::OK, stored.iter()), expected, "{request:?} {stored:?}");
        for status in [StatusCode::NOT_FOUND, StatusCode::NO_CONTENT, StatusCode::MOVED_PERMANENTLY] {
            assert!(!not_modified(&request, status, stored.iter()), "{status} is sent as it is");
        }
    }
}

#[test]
fn which_304_confirms() {
    let both = |etag: &str, date: &str| format!("ETag: {etag}\n{date}");
    for (stored, not_modified, expected) in [
        ("ETag: \"a\"", "ETag: \"a\"", true),
        ("ETag: \"a\"", "ETag: \"b\"", false),
        ("ETag: W/\"a\"", "ETag: \"a\"", false),
        (LM, "ETag: \"a\"", false),
        (LM, &both("\"a\"", LM), false),
        (&both("\"a\"", LM), &both("\"a\"", LM_LATER), true),
        ("ETag: W/\"a\"", "ETag: W/\"a\"", true),
        ("ETag: \"a\"", "ETag: W/\"a\"", true),
        ("ETag: W/\"a\"", "ETag: W/\"b\"", false),
        (LM, "ETag: W/\"a\"", false),
        (&both("W/\"a\"", LM), &both("W/\"a\"", LM_LATER), false),
        (&both("W/\"a\"", LM), &both("W/\"b\"", LM), false),
        ("ETag: W/\"a\"", &both("W/\"a\"", LM), true),
        (LM, LM, true),
        (LM, LM_850, true),
        (LM, LM_LATER, false),
        (&both("\"a\"", LM), LM, true),
        ("ETag: \"a\"", LM, false),
        ("", "", true),
        ("ETag: \"a\"", "Date: Sun, 06 Nov 1994 08:49:37 GMT", true),
        (LM, "", true),
    ] {
        assert_eq!(confirms(&fields(stored), &fields(not_modified)), expected, "{stored} / {not_modified}");
    }
}

#[test]
fn which_head_confirms() {
    let both = format!("ETag: \"a\"\n{LM}");
    for (stored, head, expected) in [
        ("", "", true),
        (&both, "", true),
        (&both, "ETag: \"a\"", true),
        (&both, "ETag: W/\"a\"", false),
        (&both, "ETag: \"b\"", false),
        (&both, LM_850, true),
        (&both, &format!("ETag: \"a\"\n{LM_LATER}"), false),
        ("", "ETag: \"a\"", false),
        ("", LM, false),
        (&both, "Content-Length: 5", true),
        (&both, "Content-Length: 005", true),
        (&both, "Content-Length: 6", false),
        (&both, "Content-Length: 5\nContent-Length: 6", false),
        (&both, "Content-Length: x", false),
        (&both, "ETag: \"b\"\nContent-Length: 5", false),
    ] {
        assert_eq!(head_confirms(&fields(stored), 5, &fields(head)), expected, "{stored} / {head}");
    }
}

#[test]
fn a_304_replaces_fields_and_leaves_the_body_its_own() {
    let stored = fields(
        "Date: Sun, 06 Nov 1994 08:00:00 GMT
         Age: 500
         Content-Type: text/plain
         Content-Length: 5
         Content-Encoding: gzip
         X-Kept: 1
         Link: </a>
         Link: </b>
         Cache-Control: max-age=1",
    );
    let from = fields(
        "Date: Sun, 06 Nov 1994 08:49:37 GMT
         content-type: text/html
         Content-Length: 0
         Content-Encoding: br
         Content-Range: bytes 0-1/2
         Content-Foo: 2
         link: </c>
         CACHE-CONTROL: max-age=9
         Connection: X-Kept, close
         X-Kept: 2
         Keep-Alive: 5",
    );
    assert_eq!(
        lines(&updated(&stored, &from)),
        [
            "Content-Length: 5",
            "Content-Encoding: gzip",
            "X-Kept: 1",
            "Date: Sun, 06 Nov 1994 08:49:37 GMT",
            "content-type: text/html",
            "Content-Foo: 2",
            "link: </c>",
            "CACHE-CONTROL: max-age=9",
        ]
    );
    let bare = updated(&stored, &fields("ETag: \"a\""));
    assert!(!bare.contains("age") && !bare.contains("date") && bare.get_all("link").count() == 2);
}
