//! Fields: looked up, built, written and read back.

use http::StatusCode;
use proptest::prelude::*;

use super::*;

#[test]
fn lists_are_joined_and_trimmed() {
    let response = [&b"HTTP/1.1 200 OK\r\nX: a, b\t,,\r\nY: c\r\nx:\r\nX:d\r\nX: \xe9, e\r\n\r\n"[..]].concat();
    let fields = response_fields(&response);
    assert_eq!(fields.list("x").collect::<Vec<_>>(), ["a", "b", "d", "e"], "one bad member hides no other");
    assert_eq!(fields.list("z").count(), 0);
}

#[test]
fn lookups() {
    let fields = response_fields(b"HTTP/1.1 200 OK\r\nA: 1\r\nb:\r\nB: 2\r\nC: \xff\r\n\r\n");
    assert_eq!(fields.get("a"), Some(&b"1"[..]));
    assert_eq!(fields.get("B"), Some(&b""[..]));
    assert_eq!(fields.get_all("b").collect::<Vec<_>>(), [&b""[..], b"2"]);
    assert_eq!((fields.get_str("a"), fields.get_str("c"), fields.get("d")), (Some("1"), None, None));
    assert_eq!((fields.contains("C"), fields.contains("D"), fields.contains("")), (true, false, false));
    assert_eq!((fields.len(), fields.is_empty(), Fields::default().is_empty()), (4, false, true));
}

#[test]
fn fields_stay_what_they_were_when_the_buffer_goes_on() {
    let mut buf = BytesMut::from("HTTP/1.1 200 OK\r\nEmpty:\r\nA: 1\r\n\r\n");
    let fields = take_response(&mut buf, &Limits::default()).unwrap().unwrap().fields;
    buf.extend_from_slice(&[b'z'; 1000]);
    assert_eq!(fields.iter().collect::<Vec<_>>(), [("Empty", &b""[..]), ("A", b"1")]);
}

#[test]
fn what_may_not_be_written_is_left_out() {
    for (name, value, expected) in [
        ("X", "a\r\nY: b", Some(("X", "aY: b"))),
        ("X", "\0a\u{7f}", Some(("X", "a"))),
        ("X", " \ta b\t ", Some(("X", "a b"))),
        ("X", "\r \n a \0 ", Some(("X", "a"))),
        ("X", " ", Some(("X", ""))),
        ("X: y\r\nZ", "a", Some(("XyZ", "a"))),
        ("", "a", None),
        (": ", "a", None),
        ("\u{e9}", "a", None),
    ] {
        let mut builder = FieldsBuilder::new();
        let fields = builder.push("First", "1").push(name, value).push("Last", "9").build();
        let expected = [Some(("First", "1")), expected, Some(("Last", "9"))].into_iter().flatten();
        let expected: Vec<_> = expected.map(|(name, value)| (name, value.as_bytes())).collect();
        assert_eq!(fields.iter().collect::<Vec<_>>(), expected, "{name:?}: {value:?}");
    }
}

#[test]
fn a_builder_starts_anew() {
    let mut builder = FieldsBuilder::new();
    builder.push("A", "1").build();
    assert_eq!(builder.push("B", "2").build().iter().collect::<Vec<_>>(), [("B", &b"2"[..])]);
}

#[test]
fn each_status_is_written_so_that_it_reads_back() {
    for status in 100..600 {
        let status = StatusCode::from_u16(status).unwrap();
        let mut out = BytesMut::new();
        put_status_line(&mut out, status);
        out.extend_from_slice(b"\r\n");
        assert_eq!(response(&out).unwrap().unwrap().status, status);
    }
}

#[test]
fn numbers_are_written_in_decimal() {
    let mut out = BytesMut::new();
    for number in [0, 42, u64::MAX] {
        put_field_number(&mut out, "Content-Length", number);
    }
    assert_eq!(out, "Content-Length: 0\r\nContent-Length: 42\r\nContent-Length: 18446744073709551615\r\n");
}

fn response_fields(bytes: &[u8]) -> Fields {
    response(bytes).unwrap().unwrap().fields
}

proptest! {
    #[test]
    fn a_written_head_reads_back(
        method in "[A-Z]{1,32}",
        target in "/[!-\"$-\\[\\]-~]{0,40}",
        pairs in prop::collection::vec(("[ -~é]{0,12}", prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        next in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        prop_assume!(method != "CONNECT");
        let mut builder = FieldsBuilder::new();
        builder.push("Host", "a");
        pairs.iter().for_each(|(name, value)| {
            builder.push(name, value);
        });
        let fields = builder.build();
        let mut out = BytesMut::new();
        put_request_line(&mut out, &method, &target);
        fields.iter().for_each(|(name, value)| put_field(&mut out, name, value));
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&next);
        let head = take_request(&mut out, &Limits::default()).unwrap().unwrap();
        prop_assert_eq!(head.method.as_str(), &method);
        prop_assert_eq!(head.target.path_and_query(), &target);
        prop_assert!(head.fields.iter().eq(fields.iter()));
        prop_assert_eq!(&out[..], &next[..]);
    }
}
