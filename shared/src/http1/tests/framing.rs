//! Where a body ends.

use http::{Method, StatusCode};

use super::*;

fn fields(lines: &str) -> Fields {
    response(format!("HTTP/1.1 200 OK\r\n{lines}\r\n")).unwrap().unwrap().fields
}

/// Framing of a request, and of a response to a GET, with these fields.
fn both(lines: &str, minor: Minor) -> [Result<Framing, u16>; 2] {
    let fields = fields(lines);
    [refused(request_framing(&fields, minor)), refused(response_framing(&Method::GET, StatusCode::OK, &fields, minor))]
}

#[test]
fn without_fields_a_request_has_no_body_and_a_response_ends_with_its_connection() {
    for minor in [Minor::Zero, Minor::One] {
        assert_eq!(both("", minor), [Ok(Framing::None), Ok(Framing::UntilClose)]);
        assert_eq!(both("TE: chunked\r\nContent-Type: 5\r\n", minor), [Ok(Framing::None), Ok(Framing::UntilClose)]);
    }
}

#[test]
fn content_length_is_digits() {
    for (value, length) in [
        ("0", Some(0)),
        ("1", Some(1)),
        ("42", Some(42)),
        ("00042", Some(42)),
        (" 42\t", Some(42)),
        ("999999999999999999", Some(999_999_999_999_999_999)),
        // Beyond what is counted in: not wrong, but not to be read either (RFC 9110 §8.6).
        ("1000000000000000000", None),
        ("9223372036854775808", None),
        ("18446744073709551615", None),
        ("18446744073709551616", None),
        ("18446744073709551658", None),
        ("99999999999999999999999999999999", None),
        ("0000000000000000042", None),
        ("", None),
        ("+42", None),
        ("-42", None),
        ("-0", None),
        ("4 2", None),
        ("4\t2", None),
        ("42 x", None),
        ("0x2a", None),
        ("2a", None),
        ("4_2", None),
        ("4.2", None),
        ("42.0", None),
        ("4e1", None),
        ("42;", None),
        ("\"42\"", None),
        ("(42)", None),
        // A list of equal values may be read as one (RFC 9112 §6.3); it is not.
        ("42, 42", None),
        ("42,42", None),
        ("42,", None),
        (",42", None),
        ("42, 43", None),
        ("٤٢", None),
        ("\u{ff14}\u{ff12}", None),
    ] {
        let expected = length.map(Framing::Length).ok_or(400);
        assert_eq!(both(&format!("Content-Length: {value}\r\n"), Minor::One), [expected; 2], "{value:?}");
        assert_eq!(both(&format!("content-LENGTH: {value}\r\n"), Minor::Zero), [expected; 2], "{value:?}");
    }
}

#[test]
fn every_byte_in_a_content_length() {
    for byte in (0..=255).filter(|byte| is_field_text(*byte)) {
        for (before, after) in [("", ""), ("", "1"), ("1", "1"), ("1", "")] {
            let line =
                around(&format!("HTTP/1.1 200 OK\r\nContent-Length: {before}"), byte, &format!("{after}\r\n\r\n"));
            let fields = response(&line).unwrap().unwrap().fields;
            let digits = String::from_utf8_lossy(&around(before, byte, after)).trim_matches([' ', '\t']).to_owned();
            let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
            let expected = if is_number { Ok(Framing::Length(digits.parse().unwrap())) } else { Err(400) };
            assert_eq!(refused(request_framing(&fields, Minor::One)), expected, "{}", shown(&line));
        }
    }
}

#[test]
fn content_length_comes_once() {
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\n",
        "Content-Length: 5\r\nContent-Length:\r\n",
        "Content-Length:\r\nContent-Length: 5\r\n",
    ] {
        assert_eq!(both(lines, Minor::One), [Err(400); 2], "{lines:?}");
    }
}

#[test]
fn transfer_encoding_is_chunked() {
    for (lines, expected) in [
        ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
        ("transfer-encoding:CHUNKED\r\n", Ok(Framing::Chunked)),
        ("TRANSFER-ENCODING: \t Chunked \t\r\n", Ok(Framing::Chunked)),
        // Well delimited, but in a coding that is not understood (RFC 9112 §6.1).
        ("Transfer-Encoding: gzip, chunked\r\n", Err(501)),
        ("Transfer-Encoding: GZIP,Chunked\r\n", Err(501)),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(501)),
        ("Transfer-Encoding: x-gzip, deflate, compress, chunked\r\n", Err(501)),
        ("Transfer-Encoding: br, chunked\r\n", Err(501)),
        ("Transfer-Encoding: identity, chunked\r\n", Err(501)),
        ("Transfer-Encoding: xchunked, chunked\r\n", Err(501)),
        // Chunked is not the last (§6.3), or there is more than one.
        ("Transfer-Encoding: gzip\r\n", Err(400)),
        ("Transfer-Encoding: chunked, gzip\r\n", Err(400)),
        ("Transfer-Encoding: chunked, identity\r\n", Err(400)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", Err(400)),
        ("Transfer-Encoding: identity\r\n", Err(400)),
        ("Transfer-Encoding: chunked, chunked\r\n", Err(400)),
        ("Transfer-Encoding: gzip, chunked, chunked\r\n", Err(400)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(400)),
        // Parameters are an error (§7.1).
        ("Transfer-Encoding: chunked;q=1\r\n", Err(400)),
        ("Transfer-Encoding: chunked; a=b\r\n", Err(400)),
        ("Transfer-Encoding: gzip;a=b, chunked\r\n", Err(400)),
        // Disguises. Empty members are allowed in a list (RFC 9110 §5.6.1), but nobody sends them here in good faith.
        ("Transfer-Encoding:\r\n", Err(400)),
        ("Transfer-Encoding: ,\r\n", Err(400)),
        ("Transfer-Encoding: chunked,\r\n", Err(400)),
        ("Transfer-Encoding: ,chunked\r\n", Err(400)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", Err(400)),
        ("Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", Err(400)),
        ("Transfer-Encoding: xchunked\r\n", Err(400)),
        ("Transfer-Encoding: chunkedx\r\n", Err(400)),
        ("Transfer-Encoding: chunked foo\r\n", Err(400)),
        ("Transfer-Encoding: x chunked\r\n", Err(400)),
        ("Transfer-Encoding: gz ip, chunked\r\n", Err(400)),
        ("Transfer-Encoding: chunke\r\n", Err(400)),
        ("Transfer-Encoding: \"chunked\"\r\n", Err(400)),
        ("Transfer-Encoding: 'chunked'\r\n", Err(400)),
        ("Transfer-Encoding: chunk\u{e9}d\r\n", Err(400)),
        ("Transfer-Encoding: \u{a0}chunked\r\n", Err(400)),
        ("Transfer-Encoding: \u{212a}chunked\r\n", Err(400)),
        // U+212A and U+017F fold to ASCII letters where Unicode rules are used.
        ("Transfer-Encoding: chun\u{212a}ed\r\n", Err(400)),
    ] {
        assert_eq!(both(lines, Minor::One), [expected; 2], "{lines:?}");
    }
}

#[test]
fn every_byte_beside_chunked() {
    for byte in (0..=255).filter(|byte| is_field_text(*byte)) {
        for (before, after) in [("", "chunked"), ("chu", "nked"), ("chunked", "")] {
            let line =
                around(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {before}"), byte, &format!("{after}\r\n\r\n"));
            let fields = response(&line).unwrap().unwrap().fields;
            let is_blank = matches!(byte, b' ' | b'\t') && (before.is_empty() || after.is_empty());
            let expected = if is_blank { Ok(Framing::Chunked) } else { Err(400) };
            assert_eq!(refused(request_framing(&fields, Minor::One)), expected, "{}", shown(&line));
        }
    }
}

#[test]
fn both_length_and_coding_are_refused() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "transfer-encoding: chunked\r\nX: y\r\ncontent-length: 5\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        "Transfer-Encoding:\r\nContent-Length: 5\r\n",
    ] {
        for minor in [Minor::Zero, Minor::One] {
            assert_eq!(both(lines, minor), [Err(400); 2], "{lines:?}");
        }
    }
}

/// RFC 9112 §6.1: its framing is faulty.
#[test]
fn http_1_0_has_no_transfer_encoding() {
    assert_eq!(both("Transfer-Encoding: chunked\r\n", Minor::Zero), [Err(400); 2]);
}

#[test]
fn some_responses_have_no_body_whatever_they_say() {
    for lines in ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        for (method, status, expected) in [
            (Method::HEAD, 200, Framing::None),
            (Method::HEAD, 404, Framing::None),
            (Method::GET, 100, Framing::None),
            (Method::GET, 103, Framing::None),
            (Method::GET, 199, Framing::None),
            (Method::GET, 204, Framing::None),
            (Method::GET, 304, Framing::None),
            (Method::POST, 204, Framing::None),
            // A tunnel (RFC 9112 §6.3).
            (Method::CONNECT, 200, Framing::UntilClose),
            (Method::CONNECT, 299, Framing::UntilClose),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let framing = refused(response_framing(&method, status, &fields(lines), Minor::One));
            assert_eq!(framing, Ok(expected), "{method} {status} {lines:?}");
        }
    }
    for (method, status) in [(Method::GET, 205), (Method::GET, 206), (Method::CONNECT, 407), (Method::POST, 200)] {
        let status = StatusCode::from_u16(status).unwrap();
        let framing = refused(response_framing(&method, status, &fields("Content-Length: 5\r\n"), Minor::One));
        assert_eq!(framing, Ok(Framing::Length(5)), "{method} {status}");
    }
}

/// Such an origin can't be trusted with its next message either.
#[test]
fn a_response_without_body_is_not_excused_from_wrong_framing() {
    for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
        let status = StatusCode::from_u16(status).unwrap();
        for lines in ["Content-Length: -1\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"] {
            let framing = refused(response_framing(&method, status, &fields(lines), Minor::One));
            assert_eq!(framing, Err(400), "{method} {status} {lines:?}");
        }
    }
}
