//! Host, and Host against the target.

use super::*;

fn authority(bytes: impl AsRef<[u8]>) -> Result<String, u16> {
    request(bytes).map(|head| head.unwrap().authority.as_str().to_owned())
}

fn host(value: &str) -> Result<String, u16> {
    authority(format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n"))
}

/// unreserved and sub-delims (RFC 3986 §§2.2, 2.3) without the comma that joins two Host lines. Percent-encoding,
/// which a registered name may hold too, is refused: no name that is in use holds any.
fn is_host_text(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
}

#[test]
fn a_host_is_a_name() {
    for byte in 0..=255 {
        for (before, after) in [("", ""), ("", "bc"), ("a", "c"), ("ab", "")] {
            let bytes = around(&format!("GET / HTTP/1.1\r\nHost: {before}"), byte, &format!("{after}\r\n\r\n"));
            let verdict = authority(&bytes);
            let is_edge = before.is_empty() || after.is_empty();
            if is_host_text(byte) {
                let name = String::from_utf8(around(before, byte, after)).unwrap().to_ascii_lowercase();
                assert_eq!(verdict, Ok(name), "{}", shown(&bytes));
            } else if matches!(byte, b' ' | b'\t') && is_edge && before.len() + after.len() > 0 {
                assert_eq!(verdict, Ok(format!("{before}{after}")), "{}", shown(&bytes));
            } else {
                assert_eq!(verdict, Err(400), "{}", shown(&bytes));
            }
        }
    }
}

#[test]
fn hosts_that_are_valid() {
    for (value, expected) in [
        ("a", "a"),
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org."),
        ("a:0", "a:0"),
        ("a:65535", "a:65535"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::]", "[::]"),
        ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
        ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ] {
        assert_eq!(host(value), Ok(expected.to_owned()), "{value}");
    }
}

#[test]
fn hosts_that_are_not() {
    let name_too_long = "a".repeat(254);
    for value in [
        // RFC 9112 §3.2 has it empty if the target has no authority; an http target always has one.
        "",
        ":",
        ":80",
        // An empty port is valid by RFC 3986 §3.2.3; nobody sends one.
        "a:",
        "a:-1",
        "a:+80",
        "a: 80",
        "a :80",
        "a:8 0",
        "a:0x50",
        "a:65536",
        "a:99999",
        "a:000080",
        "a:18446744073709551696",
        "a:80:80",
        "a:http",
        "u@a",
        "u:p@a",
        "@a",
        "a@",
        "a,b",
        "a, a",
        "a b",
        "a/",
        "a/b",
        "a?b",
        "a#b",
        "http://a",
        "a\\b",
        "a%41",
        "a%00",
        "\"a\"",
        "<a>",
        "ä.example",
        "::1",
        "[]",
        "[::1",
        "::1]",
        "[::1]]",
        "[[::1]]",
        "[::1]a",
        "[::1]:",
        "[::1]:a",
        "[::1%25eth0]",
        "[1.2.3.4]",
        "[v1.a]",
        "a[::1]",
        &name_too_long,
    ] {
        assert_eq!(host(value), Err(400), "{value:?}");
    }
}

#[test]
fn host_comes_once() {
    for (lines, expected) in [
        ("", Err(400)),
        ("X: a\r\n", Err(400)),
        ("Host: a\r\n", Ok("a")),
        ("HOST:a\r\n", Ok("a")),
        ("Host: a\r\nHost: a\r\n", Err(400)),
        ("Host: a\r\nhost: b\r\n", Err(400)),
        ("Host: a\r\nX: y\r\nhOsT:\r\n", Err(400)),
        ("Host:\r\nHost: a\r\n", Err(400)),
        ("Host : a\r\n", Err(400)),
        (" Host: a\r\n", Err(400)),
        ("Host: a\r\n b\r\n", Err(400)),
    ] {
        for target in ["/", "http://a/"] {
            let verdict = authority(format!("GET {target} HTTP/1.1\r\n{lines}\r\n"));
            assert_eq!(verdict, expected.map(str::to_owned), "{target} {lines:?}");
        }
    }
}

#[test]
fn http_1_0_may_leave_host_out_but_not_get_it_wrong() {
    for (target, lines, expected) in [
        ("/", "", Ok("")),
        ("/", "Host: a\r\n", Ok("a")),
        ("http://a/", "", Ok("a")),
        ("/", "Host:\r\n", Err(400)),
        ("/", "Host: u@a\r\n", Err(400)),
        ("/", "Host: a\r\nHost: a\r\n", Err(400)),
        ("http://a/", "Host: b\r\n", Err(400)),
    ] {
        let verdict = authority(format!("GET {target} HTTP/1.0\r\n{lines}\r\n"));
        assert_eq!(verdict, expected.map(str::to_owned), "{target} {lines:?}");
    }
}

/// RFC 9112 §3.2.2 has a Host that differs from the target's authority ignored. Whoever sends two names has the next
/// reader choose the other one: it is refused.
#[test]
fn an_absolute_target_and_host_name_the_same() {
    for (target, host, expected) in [
        ("http://a/", "a", Ok("a")),
        ("http://A/", "a", Ok("a")),
        ("http://a/", "A", Ok("a")),
        ("http://a:8080/", "a:8080", Ok("a:8080")),
        // The scheme's own port may be left out (RFC 9110 §4.2.3).
        ("http://a:80/", "a", Ok("a:80")),
        ("http://a/", "a:80", Ok("a")),
        ("https://a/", "a:443", Ok("a")),
        ("https://a:443/", "a", Ok("a:443")),
        ("http://a:443/", "a", Err(400)),
        ("https://a:80/", "a", Err(400)),
        ("http://a/", "b", Err(400)),
        ("http://a/", "a.", Err(400)),
        ("http://a/", "a:81", Err(400)),
        ("http://a:81/", "a", Err(400)),
        ("http://a/", "", Err(400)),
        ("http://a/", "u@a", Err(400)),
    ] {
        let verdict = authority(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(verdict, expected.map(str::to_owned), "{target} {host:?}");
    }
}

#[test]
fn connect_and_host_name_the_same() {
    for (target, host, expected) in [
        // The examples of RFC 9110 §9.3.6.
        ("server.example.com:80", "server.example.com", Ok("server.example.com:80")),
        ("server.example.com:443", "server.example.com:443", Ok("server.example.com:443")),
        ("[::1]:443", "[::1]", Ok("[::1]:443")),
        ("a:80", "b", Err(400)),
        ("a:80", "a:81", Err(400)),
        ("a:80", "", Err(400)),
    ] {
        let verdict = authority(format!("CONNECT {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(verdict, expected.map(str::to_owned), "{target} {host:?}");
    }
}
