//! The request target.

use super::*;

fn target(method: &str, target: &str, host: &str) -> Result<Target, u16> {
    request(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).map(|head| head.unwrap().target)
}

/// What may stand in a target: VCHAR, and no fragment. RFC 3986 leaves out `"<>\^`{|}` and, but for IPv6, `[]` as well;
/// browsers send some of them in queries, and nobody cuts a target at them.
fn is_target_text(byte: u8) -> bool {
    (0x21..=0x7e).contains(&byte) && byte != b'#'
}

#[test]
fn a_target_is_visible_ascii_without_fragment() {
    let long = "p".repeat(70);
    for byte in 0..=255 {
        for (before, after) in
            [("/", ""), ("/a", "b"), ("/a", ""), ("/a?", ""), ("/a?b=", "&c"), ("/", &long), ("/a?", &long)]
        {
            for origin in ["", "http://a"] {
                let bytes =
                    around(&format!("GET {origin}{before}"), byte, &format!("{after} HTTP/1.1\r\nHost: a\r\n\r\n"));
                let verdict = request(&bytes).map(|head| head.unwrap().target.path_and_query().as_bytes().to_owned());
                // Some servers take a backslash for a slash.
                let is_slash_elsewhere = byte == b'\\' && !before.contains('?');
                if is_target_text(byte) && !is_slash_elsewhere {
                    assert_eq!(verdict, Ok(around(before, byte, after)), "{}", shown(&bytes));
                } else {
                    assert_eq!(verdict, Err(400), "{}", shown(&bytes));
                }
            }
        }
    }
}

#[test]
fn text_beyond_ascii_is_refused_whatever_its_encoding() {
    for bytes in [&b"/\xc3\xa4"[..], b"/\xe4", b"/\xff\xfe", b"/?q=\xf0\x9f\x98\x80", b"/\xc0\xaf"] {
        let bytes = [b"GET ", bytes, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(request(&bytes).err(), Some(400), "{}", shown(&bytes));
    }
}

#[test]
fn origin_form() {
    for path in
        ["/", "//", "/?", "/a/../b", "/a%2fb", "/%00", "/a?b?c", "//a:b@c/", "/http://x/", "/*", "/a;b,c:d@e!$&'()*+="]
    {
        assert_eq!(target("GET", path, "a"), Ok(Target::Origin(path.into())), "{path}");
    }
}

#[test]
fn absolute_form() {
    for (text, scheme, authority, path) in [
        ("http://a", "http", "a", "/"),
        ("http://a/", "http", "a", "/"),
        ("http://a?q", "http", "a", "/?q"),
        ("http://a/b?c", "http", "a", "/b?c"),
        ("HTTP://A/B", "http", "a", "/B"),
        ("https://a:8443/", "https", "a:8443", "/"),
        ("http://a/b://c", "http", "a", "/b://c"),
        ("http://a/?u=c@d", "http", "a", "/?u=c@d"),
        ("http://[::1]:80/", "http", "[::1]:80", "/"),
    ] {
        let expected = Target::Absolute {
            scheme: scheme.into(),
            authority: Authority::parse(authority).unwrap(),
            path: path.into(),
        };
        assert_eq!(target("GET", text, authority), Ok(expected), "{text}");
    }
}

/// RFC 9112 §3.2.4.
#[test]
fn options_of_an_authority_is_for_the_server_as_a_whole() {
    for (method, text, path) in [
        ("OPTIONS", "http://a", "*"),
        ("OPTIONS", "http://a:80", "*"),
        ("OPTIONS", "http://a/", "/"),
        ("OPTIONS", "http://a?q", "/?q"),
        ("GET", "http://a", "/"),
    ] {
        let target = target(method, text, "a").expect(text);
        assert_eq!(target.path_and_query(), path, "{method} {text}");
    }
}

#[test]
fn asterisk_and_authority_form() {
    assert_eq!(target("OPTIONS", "*", "a"), Ok(Target::Asterisk));
    for text in ["a:80", "a:65535", "127.0.0.1:443", "[::1]:443", "A:80"] {
        assert_eq!(target("CONNECT", text, text), Ok(Target::Authority(Authority::parse(text).unwrap())), "{text}");
    }
}

#[test]
fn targets_that_are_none() {
    for (method, text) in [
        ("GET", "a"),
        ("GET", "a/b"),
        ("GET", "a:80"),
        ("GET", "?a"),
        ("GET", "*"),
        ("GET", "**"),
        ("GET", "\\a"),
        ("GET", "/\\a"),
        ("GET", "/a\\..\\b?c"),
        ("GET", "http://a/b\\c"),
        ("GET", "%2fa"),
        ("GET", "http:"),
        ("GET", "http:/a"),
        ("GET", "http:a"),
        ("GET", "://a"),
        ("GET", "//a#"),
        ("GET", "/#"),
        ("GET", "/a#b"),
        ("GET", "http://a/#b"),
        ("GET", "http://a#b"),
        ("GET", "http://"),
        ("GET", "http:///a"),
        ("GET", "http://?a"),
        ("GET", "http://:80/"),
        ("GET", "http://u@a/"),
        ("GET", "http://u:p@a/"),
        ("GET", "http://@a/"),
        ("GET", "http://a:b/"),
        ("GET", "http://a:65536/"),
        ("GET", "http://a:-1/"),
        ("GET", "http://a b/"),
        ("GET", "http://a\\b/"),
        ("GET", "http://a%00/"),
        ("GET", "http://[::1/"),
        ("GET", "http://[::g]/"),
        ("GET", "http://a[b]/"),
        ("GET", "ftp://a/"),
        ("GET", "file:///a"),
        ("GET", "javascript://a/"),
        ("GET", "urn:a:b"),
        ("OPTIONS", "**"),
        ("OPTIONS", "*/"),
        ("options", "*"),
        ("CONNECT", "/"),
        ("CONNECT", "*"),
        ("CONNECT", "a"),
        ("CONNECT", "a:"),
        ("CONNECT", "a:0"),
        ("CONNECT", "a:65536"),
        ("CONNECT", ":80"),
        ("CONNECT", "u@a:80"),
        ("CONNECT", "a:80/"),
        ("CONNECT", "http://a:80"),
        ("CONNECT", "http://a:80/"),
    ] {
        // The Host of some other request: what is wrong is the target.
        assert_eq!(target(method, text, "a").err(), Some(400), "{method} {text}");
    }
}
