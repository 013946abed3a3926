//! The body reader.

use proptest::prelude::*;

use super::*;

/// What a reader made of some bytes.
#[derive(Debug, PartialEq)]
pub(super) struct Read {
    pub data: Vec<u8>,
    /// Trailers at the end of the body; the status it is refused with; `None` if it has not ended.
    pub outcome: Verdict<Vec<(String, Vec<u8>)>>,
    /// What was not taken.
    pub rest: Vec<u8>,
}

/// Reads a body that comes in these pieces.
pub(super) fn read(framing: Framing, pieces: &[&[u8]]) -> Read {
    let mut reader = BodyReader::new(framing);
    let mut buf = BytesMut::new();
    let mut data = Vec::new();
    let mut outcome = Ok(None);
    // A body that is none ends before anything comes.
    for piece in std::iter::once(&b""[..]).chain(pieces.iter().copied()) {
        buf.extend_from_slice(piece);
        while outcome == Ok(None) {
            match reader.step(&mut buf) {
                Ok(Step::Data(piece)) => {
                    assert!(!piece.is_empty(), "a piece of data is never empty");
                    data.extend_from_slice(&piece);
                }
                Ok(Step::NeedMore) => break,
                Ok(Step::End { trailers }) => {
                    assert!(reader.is_done());
                    let trailers = trailers.unwrap_or_default();
                    outcome = Ok(Some(trailers.iter().map(|(name, value)| (name.into(), value.into())).collect()));
                }
                Err(refusal) => outcome = Err(refusal.status.as_u16()),
            }
        }
    }
    Read { data, outcome, rest: buf.to_vec() }
}

fn one_by_one(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.chunks(1).collect()
}

#[test]
fn a_body_ends_where_its_framing_says() {
    for (framing, bytes, data, rest) in [
        (Framing::None, "", "", ""),
        (Framing::None, "GET /", "", "GET /"),
        (Framing::Length(0), "GET /", "", "GET /"),
        (Framing::Length(5), "hello", "hello", ""),
        (Framing::Length(5), "hello\r\nGET /", "hello", "\r\nGET /"),
        (Framing::Chunked, "0\r\n\r\n", "", ""),
        (Framing::Chunked, "000\r\n\r\nGET /", "", "GET /"),
        (Framing::Chunked, "5\r\nhello\r\n0\r\n\r\n\r\n", "hello", "\r\n"),
        (Framing::Chunked, "2\r\nhe\r\n3;a=b\r\nllo\r\n0;c\r\nX: y\r\n\r\nGET /", "hello", "GET /"),
        (Framing::Chunked, "c\r\n0\r\n\r\nGET / H\r\n0\r\n\r\n", "0\r\n\r\nGET / H", ""),
    ] {
        for pieces in [vec![bytes.as_bytes()], one_by_one(bytes.as_bytes())] {
            let found = read(framing, &pieces);
            assert!(found.outcome.is_ok_and(|end| end.is_some()), "{bytes:?}");
            assert_eq!((&*found.data, &*found.rest), (data.as_bytes(), rest.as_bytes()), "{bytes:?}");
        }
    }
}

#[test]
fn a_body_that_was_cut_has_not_ended() {
    for (framing, bytes) in
        [(Framing::Length(5), "hello"), (Framing::Chunked, "2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\nZ:\r\n\r\n")]
    {
        for cut in 0..bytes.len() {
            let mut reader = BodyReader::new(framing);
            let mut buf = BytesMut::from(&bytes.as_bytes()[..cut]);
            loop {
                match reader.step(&mut buf) {
                    Ok(Step::Data(_)) => {}
                    Ok(Step::NeedMore) => break,
                    other => panic!("{:?} makes {other:?}", &bytes[..cut]),
                }
            }
            assert!(!reader.is_done());
            assert_eq!(refused(reader.end_of_stream()), Err(400), "{:?}", &bytes[..cut]);
        }
    }
}

#[test]
fn the_end_of_the_connection_ends_only_what_it_delimits() {
    let mut reader = BodyReader::new(Framing::UntilClose);
    let mut buf = BytesMut::from("0\r\n\r\n");
    assert!(matches!(reader.step(&mut buf), Ok(Step::Data(data)) if data == "0\r\n\r\n"));
    assert!(matches!(reader.step(&mut buf), Ok(Step::NeedMore)));
    assert!(!reader.is_done());
    assert!(reader.end_of_stream().is_ok());
    assert!(reader.is_done());
    for framing in [Framing::None, Framing::Length(0)] {
        assert!(BodyReader::new(framing).end_of_stream().is_ok(), "{framing:?}");
    }
    for framing in [Framing::Length(1), Framing::Chunked] {
        assert!(BodyReader::new(framing).end_of_stream().is_err(), "{framing:?}");
    }
}

#[test]
fn an_ended_body_stays_ended() {
    let mut reader = BodyReader::new(Framing::Chunked);
    let mut buf = BytesMut::from("0\r\n\r\n1\r\na\r\n");
    for _ in 0..3 {
        assert!(matches!(reader.step(&mut buf), Ok(Step::End { trailers: None })));
    }
    assert_eq!(&buf[..], b"1\r\na\r\n");
}

#[test]
fn a_refused_body_stays_refused() {
    for bytes in ["x\r\n", "5\r\nhelloxx", "0\r\n X: y\r\n\r\n"] {
        let mut reader = BodyReader::new(Framing::Chunked);
        let mut buf = BytesMut::from(bytes);
        while let Ok(Step::Data(_)) = reader.step(&mut buf) {}
        for _ in 0..3 {
            assert_eq!(refused(reader.step(&mut buf).map(|_| ())), Err(400), "{bytes:?}");
        }
        assert!(reader.end_of_stream().is_err(), "{bytes:?}");
    }
}

#[test]
fn trailers_are_fields() {
    for (trailers, expected) in [
        ("", Ok(vec![])),
        ("X: y\r\n", Ok(vec![("X", "y")])),
        ("X:  y \r\nX:\r\nZ: :\r\n", Ok(vec![("X", "y"), ("X", ""), ("Z", ":")])),
        ("X\r\n", Err(400)),
        (": y\r\n", Err(400)),
        ("X : y\r\n", Err(400)),
        (" X: y\r\n", Err(400)),
        ("X: y\r\n z\r\n", Err(400)),
        ("X: y\n", Err(400)),
        ("\n", Err(400)),
        ("X: y\rz\r\n", Err(400)),
        ("\rX: y\r\n", Err(400)),
        ("X: \0\r\n", Err(400)),
        ("X\0: y\r\n", Err(400)),
        ("GET / HTTP/1.1\r\n", Err(400)),
    ] {
        let bytes = format!("0\r\n{trailers}\r\n");
        let expected = expected.map(|fields| {
            Some(fields.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_owned())).collect())
        });
        for pieces in [vec![bytes.as_bytes()], one_by_one(bytes.as_bytes())] {
            assert_eq!(read(Framing::Chunked, &pieces).outcome, expected, "{trailers:?}");
        }
    }
}

#[test]
fn trailers_are_limited() {
    let verdict = |trailers: &str| {
        let bytes = format!("0\r\n{trailers}\r\n");
        let [all_at_once, one_by_one] = [vec![bytes.as_bytes()], one_by_one(bytes.as_bytes())]
            .map(|pieces| read(Framing::Chunked, &pieces).outcome.map(|end| end.map(|fields| fields.len())));
        assert_eq!(all_at_once, one_by_one);
        all_at_once
    };
    assert_eq!(verdict(&"X: y\r\n".repeat(64)), Ok(Some(64)));
    assert_eq!(verdict(&"X: y\r\n".repeat(65)), Err(431));
    let of_bytes = |count: usize| format!("X: {}\r\n", "v".repeat(count - "X: \r\n\r\n".len()));
    assert_eq!(verdict(&of_bytes(8 * 1024)), Ok(Some(1)));
    assert_eq!(verdict(&of_bytes(8 * 1024 + 1)), Err(431));
}

/// Cuts `bytes` at these places, as far as it has them.
pub(super) fn cut<'a>(mut bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, rest) = bytes.split_at((*length).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}

/// Bytes as they may come for a chunked body, right or not.
fn chunked_like() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        6 => (0..20usize).prop_map(|size| format!("{size:x}\r\n{}\r\n", "d".repeat(size)).into_bytes()),
        2 => prop::sample::select(vec![
            "0", "5", "\r\n", "\r", "\n", ";", ";a", "=", "\"", "\\", " ", "X: y", ":", "0\r\n\r\n", "fffffffffffffff", "5\r\nab",
        ]).prop_map(|text| text.as_bytes().to_owned()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), length in any::<u64>()) {
        for framing in [Framing::None, Framing::Length(length), Framing::Chunked, Framing::UntilClose] {
            read(framing, &[&bytes]);
        }
    }

    #[test]
    fn the_way_a_chunked_body_is_cut_changes_nothing(
        bytes in chunked_like(),
        lengths in prop::collection::vec(0..30usize, 0..20),
    ) {
        let mut expected = read(Framing::Chunked, &[&bytes]);
        let mut found = read(Framing::Chunked, &cut(&bytes, &lengths));
        // What is left of a body that is refused, or not yet read, is nobody's.
        if !is_taken(&expected.outcome) {
            (expected.rest, found.rest) = Default::default();
        }
        prop_assert_eq!(expected, found);
    }

    #[test]
    fn what_is_written_in_chunks_reads_back(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..8),
        next in prop::collection::vec(any::<u8>(), 0..50),
        lengths in prop::collection::vec(0..400usize, 0..20),
    ) {
        let mut written = BytesMut::new();
        pieces.iter().for_each(|piece| put_chunk(&mut written, piece));
        written.extend_from_slice(LAST_CHUNK);
        written.extend_from_slice(&next);
        let found = read(Framing::Chunked, &cut(&written, &lengths));
        prop_assert_eq!(found, Read { data: pieces.concat(), outcome: Ok(Some(vec![])), rest: next });
    }

    #[test]
    fn a_length_is_never_read_over(
        length in 0..500usize,
        bytes in prop::collection::vec(any::<u8>(), 0..500),
        lengths in prop::collection::vec(0..100usize, 0..10),
    ) {
        let found = read(Framing::Length(length as u64), &cut(&bytes, &lengths));
        let (data, rest) = bytes.split_at(length.min(bytes.len()));
        prop_assert_eq!((&*found.data, &*found.rest), (data, rest));
        prop_assert_eq!(is_taken(&found.outcome), data.len() == length);
    }
}
