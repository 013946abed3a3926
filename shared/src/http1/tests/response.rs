//! The status line.

use super::*;

fn status(line: impl AsRef<[u8]>) -> Result<u16, u16> {
    response([line.as_ref(), b"\r\nX: y\r\n\r\n"].concat()).map(|head| head.unwrap().status.as_u16())
}

#[test]
fn status_lines() {
    for (line, expected) in [
        ("HTTP/1.1 200 OK", Some(200)),
        ("HTTP/1.0 200 OK", Some(200)),
        ("HTTP/1.2 200 OK", Some(200)),
        ("HTTP/1.1 100 Continue", Some(100)),
        ("HTTP/1.1 599 ", Some(599)),
        ("HTTP/1.1 200 ", Some(200)),
        ("HTTP/1.1 200  two  spaces ", Some(200)),
        ("HTTP/1.1 404 Not\tFound: \"why\"", Some(404)),
        // "A server MUST send the space ... even when the reason-phrase is absent" (RFC 9112 §4).
        ("HTTP/1.1 200", None),
        ("HTTP/1.1 20", None),
        ("HTTP/1.1 2000 OK", None),
        ("HTTP/1.1 20 OK", None),
        ("HTTP/1.1 2 OK", None),
        ("HTTP/1.1 0200 OK", None),
        ("HTTP/1.1 +20 OK", None),
        ("HTTP/1.1 -20 OK", None),
        ("HTTP/1.1 2x0 OK", None),
        ("HTTP/1.1 200OK", None),
        ("HTTP/1.1 200\tOK", None),
        ("HTTP/1.1\t200 OK", None),
        ("HTTP/1.1  200 OK", None),
        (" HTTP/1.1 200 OK", None),
        ("HTTP/1.1 OK", None),
        ("HTTP/1.1 ", None),
        ("HTTP/1.1", None),
        ("", None),
        // "Values outside the range 100..599 are invalid" (RFC 9110 §15).
        ("HTTP/1.1 000 OK", None),
        ("HTTP/1.1 099 OK", None),
        ("HTTP/1.1 600 OK", None),
        ("HTTP/1.1 999 OK", None),
        ("http/1.1 200 OK", None),
        ("HTTP/2.0 200 OK", None),
        ("HTTP/2 200 OK", None),
        ("HTTP/0.9 200 OK", None),
        ("HTTP/1.10 200 OK", None),
        ("ICY 200 OK", None),
        ("GET / HTTP/1.1", None),
        ("<html>", None),
    ] {
        assert_eq!(status(line).ok(), expected, "{line:?}");
    }
}

#[test]
fn every_byte_in_a_status_line() {
    const LINE: &str = "HTTP/1.1 234 OK";
    for (at, right) in LINE.bytes().enumerate() {
        for byte in 0..=255 {
            let line = around(&LINE[..at], byte, &LINE[at + 1..]);
            let is_right = match at {
                // A higher minor version is processed as 1.1 (RFC 9110 §2.5).
                7 => byte.is_ascii_digit(),
                9 => matches!(byte, b'1'..=b'5'),
                10 | 11 => byte.is_ascii_digit(),
                0..13 => byte == right,
                _ => is_field_text(byte),
            };
            assert_eq!(status(&line).is_ok(), is_right, "{}", shown(&line));
        }
    }
}

#[test]
fn nothing_comes_before_a_status_line() {
    for before in ["\r\n", "\n", "\r", "\r\n\r\n", " ", "\0", "\u{feff}", "0\r\n\r\n"] {
        assert_eq!(response(format!("{before}HTTP/1.1 200 OK\r\n\r\n")).err(), Some(400), "{before:?}");
    }
}

#[test]
fn lines_of_a_response_end_in_cr_lf() {
    for bytes in [
        "HTTP/1.1 200 OK\n\r\n",
        "HTTP/1.1 200 OK\r\n\n",
        "HTTP/1.1 200 OK\r\r\n\r\n",
        "HTTP/1.1 200 \rOK\r\n\r\n",
        "HTTP/1.1 200\r OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\rX: a\r\n\r\n",
    ] {
        assert_eq!(response(bytes).err(), Some(400), "{bytes:?}");
    }
}

#[test]
fn a_response_may_have_no_fields() {
    let head = response("HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
    assert_eq!((head.status.as_u16(), head.minor, head.fields.len()), (204, Minor::One, 0));
}
