//! Messages in pieces: what is made of them depends on their bytes alone.

use http::Method;
use proptest::prelude::*;

use super::body::cut;
use super::*;

/// Takes a head from bytes that come in these pieces. Returns what was made of it and all that was not taken.
fn in_pieces<T>(
    pieces: &[&[u8]],
    take: fn(&mut BytesMut, &Limits) -> Result<Option<T>, Refusal>,
) -> (Verdict<T>, Vec<u8>) {
    let mut buf = BytesMut::new();
    let mut verdict = Ok(None);
    for piece in pieces {
        buf.extend_from_slice(piece);
        if matches!(verdict, Ok(None)) {
            let before = buf.clone();
            verdict = refused(take(&mut buf, &Limits::default()));
            assert!(!matches!(verdict, Ok(None)) || buf == before, "nothing is taken before the head is whole");
        }
    }
    (verdict, buf.to_vec())
}

/// What can be seen of a head, to be compared.
fn seen<T: std::fmt::Debug>((verdict, rest): (Verdict<T>, Vec<u8>)) -> (Result<Option<String>, u16>, Vec<u8>) {
    let rest = if verdict.is_ok() { rest } else { Vec::new() };
    (verdict.map(|head| head.map(|head| format!("{head:?}"))), rest)
}

fn assert_the_same_in_pieces<T: std::fmt::Debug>(
    bytes: &[u8],
    take: fn(&mut BytesMut, &Limits) -> Result<Option<T>, Refusal>,
) {
    let expected = seen(in_pieces(&[bytes], take));
    let one_by_one: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(seen(in_pieces(&one_by_one, take)), expected, "{} one by one", shown(bytes));
    for at in 0..=bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(seen(in_pieces(&[first, second], take)), expected, "{} cut at {at}", shown(bytes));
    }
}

const REQUESTS: [&str; 8] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "POST /a?b=c HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nEmpty:\r\nX:  y \r\n\r\n",
    "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "M-SEARCH /\u{7e} HTTP/1.1\r\nHost: [::1]:80\r\nX: \u{e9}\r\n\r\n",
];

const RESPONSES: [&str; 4] = [
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.0 404 \r\nX: y\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 200 caf\u{e9} au lait\r\nEmpty:\r\nX:  y \r\n\r\n",
];

#[test]
fn a_head_in_pieces_is_the_same_head() {
    for next in ["", "GET /next HTTP/1.1\r\nHost: n\r\n\r\n", "\r\n", "HTTP/1.1 200 OK\r\n\r\n", "\0"] {
        for head in REQUESTS {
            let bytes = format!("{head}{next}");
            assert_the_same_in_pieces(bytes.as_bytes(), take_request);
            assert_eq!(in_pieces(&[bytes.as_bytes()], take_request).1, next.as_bytes(), "{bytes:?}");
        }
        for head in RESPONSES {
            let bytes = format!("{head}{next}");
            assert_the_same_in_pieces(bytes.as_bytes(), take_response);
            assert_eq!(in_pieces(&[bytes.as_bytes()], take_response).1, next.as_bytes(), "{bytes:?}");
        }
    }
}

#[test]
fn a_wrong_head_in_pieces_is_as_wrong() {
    for head in [
        "\n",
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/2.0 \r\n\r\n",
        "GET / FTP/2.0\r\nHost: a\r\n\r\n",
        "GET /# HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "THISMETHODISLONGERTHANANYTHATTHEREIS /\0 HTTP/1.1\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        assert_the_same_in_pieces(head.as_bytes(), take_request);
        assert!(in_pieces(&[head.as_bytes()], take_request).0.is_err(), "{head:?}");
    }
    for head in [
        "\r\n",
        "HTTP/1.1 200\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 99 OK\r\n\r\n",
        "HTTP/1.1 600 \r\n\r\n",
        "HTTP/1.1 200 \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        assert_the_same_in_pieces(head.as_bytes(), take_response);
        assert!(in_pieces(&[head.as_bytes()], take_response).0.is_err(), "{head:?}");
    }
}

#[test]
fn the_beginning_of_a_head_is_no_error() {
    for head in REQUESTS {
        for at in 0..head.len() {
            assert!(matches!(request(&head.as_bytes()[..at]), Ok(None)), "{:?} cut at {at}", head);
        }
    }
    for head in RESPONSES {
        for at in 0..head.len() {
            assert!(matches!(response(&head.as_bytes()[..at]), Ok(None)), "{:?} cut at {at}", head);
        }
    }
}

#[test]
fn what_no_head_begins_with_is_refused_at_once() {
    for bytes in [
        "\n",
        "\rG",
        "\r\n\n",
        " ",
        "\u{16}\u{3}\u{1}",
        "G\0",
        "GET\n",
        "GET  ",
        "GET /\0",
        "GET / X",
        "GET / HTTP/2.0",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1\rx",
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\r\n ",
        "GET / HTTP/1.1\r\nHost: a\n",
    ] {
        // White space alone is not yet a line that is continued.
        let expected = !bytes.ends_with("\r\n ");
        assert_eq!(request(bytes).is_err(), expected, "{bytes:?}");
    }
    for bytes in ["\r\n", "\n", "h", "HTTP/1.1 x", "HTTP/1.1 6", "HTTP/1.1 200x", "HTTP/1.1 200 OK\n", "HTTP/3"] {
        let expected = bytes != "HTTP/1.1 6" && bytes != "HTTP/3";
        assert_eq!(response(bytes).is_err(), expected, "{bytes:?}");
    }
}

/// Requests that follow each other on one connection, with the bodies they have.
const PIPELINE: &str = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
    POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 28\r\n\r\nGET /no HTTP/1.1\r\nHost: a\r\n\r\
    POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;x=\"y\"\r\n0\r\n\r\n\r\n0\r\nT: t\r\n\r\n\
    \r\nPUT /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\
    DELETE /5 HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn pipelined_requests_are_told_apart_however_they_are_cut() {
    let expected = [
        ("GET", "/1", ""),
        ("POST", "/2", "GET /no HTTP/1.1\r\nHost: a\r\n\r"),
        ("POST", "/3", "abc0\r\n\r\n"),
        ("PUT", "/4", ""),
        ("DELETE", "/5", ""),
    ];
    let bytes = PIPELINE.as_bytes();
    let cuts = (0..=bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]).chain([bytes.chunks(1).collect()]);
    for pieces in cuts {
        let messages = messages(&pieces);
        let found = messages.iter().map(|(head, body)| {
            (head.method.as_str(), head.target.path_and_query(), std::str::from_utf8(body).unwrap())
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}

/// The requests, with their bodies, that come in these pieces.
fn messages(pieces: &[&[u8]]) -> Vec<(RequestHead, Vec<u8>)> {
    let mut buf = BytesMut::new();
    let mut found = Vec::new();
    let mut open: Option<(RequestHead, BodyReader, Vec<u8>)> = None;
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            let (head, mut reader, mut body) = match open.take() {
                Some(open) => open,
                None => match take_request(&mut buf, &Limits::default()).unwrap() {
                    Some(head) => {
                        let framing = request_framing(&head.fields, head.minor).unwrap();
                        (head, BodyReader::new(framing), Vec::new())
                    }
                    None => break,
                },
            };
            match reader.step(&mut buf).unwrap() {
                Step::End { .. } => found.push((head, body)),
                Step::Data(data) => {
                    body.extend_from_slice(&data);
                    open = Some((head, reader, body));
                }
                Step::NeedMore => {
                    open = Some((head, reader, body));
                    break;
                }
            }
        }
    }
    assert!(open.is_none() && buf.is_empty(), "all of it is read");
    found
}

#[test]
fn responses_follow_each_other() {
    let bytes = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 304 \r\n\r\n";
    let mut buf = BytesMut::from(bytes);
    let mut found = Vec::new();
    while let Some(head) = take_response(&mut buf, &Limits::default()).unwrap() {
        let framing = response_framing(&Method::GET, head.status, &head.fields, head.minor).unwrap();
        let mut reader = BodyReader::new(framing);
        while let Step::Data(_) = reader.step(&mut buf).unwrap() {}
        found.push(head.status.as_u16());
    }
    assert_eq!((&*found, buf.len()), (&[103, 200, 304][..], 0));
}

/// Bytes as they may come for a head, right or not.
fn head_like() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        8 => prop::sample::select(vec![
            "GET ", "/", "/a?b ", " HTTP/1.1\r\n", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 ", "204", "\r\n",
            "\r", "\n", " ", ":", "Host: a\r\n", "X: y\r\n", "X", "GET / HTTP/1.1\r\nHost: a\r\n", "\t", "http://a", "\r\n\r\n",
            "CONNECT a:1", "OPTIONS *", "#", "GET / HTTP/1.1\r\n",
        ]).prop_map(|text| text.as_bytes().to_owned()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
        1 => (prop::sample::select(vec!["x", "X:\r\n", "/"]), 0..200usize).prop_map(|(text, count)| text.repeat(count).into_bytes()),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (request(&bytes).is_ok(), response(&bytes).is_ok());
    }

    #[test]
    fn any_limits_are_kept_without_panic(
        bytes in head_like(),
        head_bytes in 0..200usize,
        fields in 0..5usize,
        target_bytes in 0..50usize,
    ) {
        let limits = Limits { head_bytes, fields, target_bytes };
        if let Ok(Some(head)) = take_request(&mut BytesMut::from(&*bytes), &limits) {
            prop_assert!(head.fields.len() <= fields);
            prop_assert!(head.target.path_and_query().len() <= target_bytes.max(1));
        }
        if let Ok(Some(head)) = take_response(&mut BytesMut::from(&*bytes), &limits) {
            prop_assert!(head.fields.len() <= fields);
        }
    }

    #[test]
    fn the_way_a_head_is_cut_changes_nothing(
        bytes in head_like(),
        lengths in prop::collection::vec(0..30usize, 0..20),
    ) {
        let pieces = cut(&bytes, &lengths);
        prop_assert_eq!(seen(in_pieces(&pieces, take_request)), seen(in_pieces(&[&bytes], take_request)));
        prop_assert_eq!(seen(in_pieces(&pieces, take_response)), seen(in_pieces(&[&bytes], take_response)));
    }
}
