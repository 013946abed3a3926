//! Request line and fields.

use super::*;

#[test]
fn parts_of_a_head_are_found() {
    let head = request(
        "PATCH /a?b=c HTTP/1.1\r\nHost: A:81\r\nX-One:  two words\t\r\nx-one:three\r\nEmpty:\r\nBlank: \t \r\n\r\n",
    )
    .unwrap()
    .unwrap();
    assert_eq!(head.method, "PATCH");
    assert_eq!(head.target, Target::Origin("/a?b=c".into()));
    assert_eq!((head.authority.as_str(), head.minor), ("a:81", Minor::One));
    let fields: Vec<_> = head.fields.iter().collect();
    let expected: [(&str, &[u8]); 5] =
        [("Host", b"A:81"), ("X-One", b"two words"), ("x-one", b"three"), ("Empty", b""), ("Blank", b"")];
    assert_eq!(fields, expected);
}

#[test]
fn a_method_is_a_token() {
    for byte in 0..=255 {
        for (before, after) in [("", ""), ("", "ET"), ("G", "T"), ("GE", ""), ("AVERYLONGBUT", "ACCEPTEDMETHOD")] {
            let bytes = around(before, byte, &format!("{after} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            let verdict = request(&bytes);
            if is_tchar(byte) {
                let method = around(before, byte, after);
                assert_eq!(verdict.unwrap().unwrap().method.as_str().as_bytes(), method, "{}", shown(&bytes));
            } else {
                assert_eq!(verdict.err(), Some(400), "{}", shown(&bytes));
            }
        }
    }
}

#[test]
fn methods_keep_their_case() {
    assert_eq!(request("get / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap().method.as_str(), "get");
}

#[test]
fn a_version_is_1_0_or_read_as_1_1() {
    const VERSION: &str = "HTTP/1.1";
    for (at, right) in VERSION.bytes().enumerate() {
        for byte in 0..=255 {
            let (before, after) = (&VERSION[..at], &VERSION[at + 1..]);
            let bytes = around(&format!("GET / {before}"), byte, &format!("{after}\r\nHost: a\r\n\r\n"));
            let expected = match byte {
                _ if byte == right => Ok(Minor::One),
                b'0' if at == 7 => Ok(Minor::Zero),
                // A higher minor version is processed as the highest that is known (RFC 9110 §2.5).
                b'0'..=b'9' if at == 7 => Ok(Minor::One),
                b'0'..=b'9' if at == 5 => Err(505),
                _ => Err(400),
            };
            let minor = request(&bytes).map(|head| head.unwrap().minor);
            assert_eq!(minor, expected, "{}", shown(&bytes));
        }
    }
}

#[test]
fn a_request_line_is_three_words_with_one_space_between_them() {
    for (line, status) in [
        ("GET / HTTP/1.1 ", 400),
        ("GET / HTTP/1.1\t", 400),
        (" GET / HTTP/1.1", 400),
        ("\tGET / HTTP/1.1", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET /\tHTTP/1.1", 400),
        ("GET\x0b/ HTTP/1.1", 400),
        ("GET\x0c/ HTTP/1.1", 400),
        ("GET\r/ HTTP/1.1", 400),
        ("GET /\rHTTP/1.1", 400),
        ("GET / HTTP/1.1\r", 400),
        ("GET / a HTTP/1.1", 400),
        ("GET / HTTP/1.1 HTTP/1.1", 400),
        ("GET /a b", 400),
        ("GET /", 400),
        ("GET / ", 400),
        ("GET ", 400),
        ("GET", 400),
        (" ", 400),
        ("/", 400),
        ("GET  HTTP/1.1", 400),
        ("GET HTTP/1.1", 400),
        ("HTTP/1.1 200 OK", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/11", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/1.", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/01.1", 400),
        ("GET / HTTP/1.1.", 400),
        ("GET / HTTP 1.1", 400),
        ("GET / HTTPS/1.1", 400),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/2.0", 505),
        ("PRI * HTTP/2.0", 505),
        ("GET / HTTP/9.9", 505),
    ] {
        let verdict = request(format!("{line}\r\nHost: a\r\n\r\n"));
        assert_eq!(verdict.err(), Some(status), "{line:?}");
    }
}

#[test]
fn a_line_ends_in_cr_lf_and_nothing_else() {
    for bytes in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\n\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(request(bytes).err(), Some(400), "{bytes:?}");
    }
}

#[test]
fn one_empty_line_may_come_before_a_request() {
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(is_taken(&request(format!("\r\n{REQUEST}"))));
    for before in ["\n", "\r", "\r\r\n", "\r\n\n", "\r\n\r", "\r\n\r\n", "\r\n\r\n\r\n", " \r\n", "\r\n ", "\0"] {
        assert_eq!(request(format!("{before}{REQUEST}")).err(), Some(400), "{before:?}");
    }
}

#[test]
fn an_empty_line_alone_is_neither_taken_nor_forgiven_twice() {
    let mut buf = BytesMut::from("\r\n");
    assert_eq!(refused(take_request(&mut buf, &Limits::default())).map(|head| head.is_none()), Ok(true));
    assert_eq!(&buf[..], b"\r\n");
    buf.extend_from_slice(b"\r\n");
    assert_eq!(refused(take_request(&mut buf, &Limits::default())).err(), Some(400));
}

/// Heads up to where a field's name stands: of a request, a response.
const STARTS: [&str; 2] = ["GET / HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 200 OK\r\n"];

fn fields_of(start: &str, bytes: &[u8]) -> Verdict<Fields> {
    if start.starts_with("HTTP") {
        response(bytes).map(|head| head.map(|head| head.fields))
    } else {
        request(bytes).map(|head| head.map(|head| head.fields))
    }
}

#[test]
fn a_field_name_is_a_token_directly_before_its_colon() {
    let long = "x".repeat(40);
    for start in STARTS {
        for byte in 0..=255 {
            for (before, after) in [("", ""), ("", "ame"), ("Na", "me"), ("Nam", ""), (&long, &long)] {
                let bytes = around(&format!("{start}{before}"), byte, &format!("{after}: v\r\n\r\n"));
                let verdict = fields_of(start, &bytes);
                let fields = verdict.as_ref().map(|fields| fields.as_ref().unwrap());
                let last = fields.map(|fields| fields.iter().last().unwrap());
                if is_tchar(byte) {
                    let name = String::from_utf8(around(before, byte, after)).unwrap();
                    assert_eq!(last, Ok((&*name, &b"v"[..])), "{}", shown(&bytes));
                } else if byte == b':' && !before.is_empty() {
                    assert_eq!(last, Ok((before, format!("{after}: v").as_bytes())), "{}", shown(&bytes));
                } else {
                    assert_eq!(last.err(), Some(&400), "{}", shown(&bytes));
                }
            }
        }
    }
}

#[test]
fn field_lines_that_are_none() {
    for start in STARTS {
        for line in
            ["X", "X ", ": v", ":", " : v", "X : v", "X\t: v", "X\0: v", " X: v", "\tX: v", "X y: v", "X\x7f: v"]
        {
            let verdict = fields_of(start, format!("{start}{line}\r\n\r\n").as_bytes());
            assert_eq!(verdict.err(), Some(400), "{start:?} {line:?}");
        }
    }
}

#[test]
fn a_field_line_is_not_continued() {
    for start in STARTS {
        for fold in ["X: a\r\n b", "X: a\r\n\tb", "X: a\r\n ", "X: a\r\n  b\r\n c", "X:\r\n a", "X: a\r\n b: c"] {
            let verdict = fields_of(start, format!("{start}{fold}\r\n\r\n").as_bytes());
            assert_eq!(verdict.err(), Some(400), "{start:?} {fold:?}");
        }
        // Between the start line and the first field (RFC 9112 §2.2).
        let first = start.replacen("\r\n", "\r\n ", 1);
        assert_eq!(fields_of(start, format!("{first}X: a\r\n\r\n").as_bytes()).err(), Some(400), "{first:?}");
    }
}

#[test]
fn a_field_value_is_text_without_controls() {
    for start in STARTS {
        for byte in 0..=255 {
            // The long ones reach into each lane of a vectorised search.
            let lengths =
                [(0, 0), (0, 1), (1, 1), (1, 0)].into_iter().chain((0..40).map(|before| (before, 40 - before)));
            for (before, after) in lengths {
                let (before, after) = ("a".repeat(before), "b".repeat(after));
                let bytes = around(&format!("{start}X: {before}"), byte, &format!("{after}\r\n\r\n"));
                let verdict = fields_of(start, &bytes);
                if is_field_text(byte) {
                    let mut value = around(&before, byte, &after);
                    let is_blank = |b: Option<&u8>| b.is_some_and(|b| b" \t".contains(b));
                    if is_blank(value.first()) {
                        value.remove(0);
                    }
                    if is_blank(value.last()) {
                        value.pop();
                    }
                    assert_eq!(verdict.unwrap().unwrap().get("x"), Some(&value[..]), "{}", shown(&bytes));
                } else {
                    assert_eq!(verdict.err(), Some(400), "{}", shown(&bytes));
                }
            }
        }
    }
}

#[test]
fn blanks_around_a_value_are_not_part_of_it() {
    for (line, value) in [
        ("X:a", "a"),
        ("X: a", "a"),
        ("X:  \t a \t ", "a"),
        ("X: a b\tc ", "a b\tc"),
        ("X:", ""),
        ("X: ", ""),
        ("X: \t \t", ""),
        ("X: :", ":"),
        ("X: , ,", ", ,"),
    ] {
        let head = request(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\nLast: z\r\n\r\n")).unwrap().unwrap();
        assert_eq!(head.fields.get("x"), Some(value.as_bytes()), "{line:?}");
        assert_eq!(head.fields.get("last"), Some(&b"z"[..]), "{line:?}");
        assert_eq!(head.fields.len(), 3, "{line:?}");
    }
}
