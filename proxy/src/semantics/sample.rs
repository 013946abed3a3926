//! Heads for the tests of this module, written as one would write them on the wire.

use bytes::BytesMut;
use http::StatusCode;
use millpond_shared::http1::{Fields, Limits, Minor, RequestHead, ResponseHead, take_request};

/// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 §5.6.7.
pub const NOW: u64 = 784_111_777;

/// Fields from lines of `Name: value`; blank lines and indentation are left out.
pub fn fields(lines: &str) -> Fields {
    lines
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| line.split_once(':').map(|(name, value)| (name, value.trim())).expect("Name: value"))
        .collect()
}

pub fn response(status: u16, lines: &str) -> ResponseHead {
    ResponseHead { status: StatusCode::from_u16(status).expect("a status"), minor: Minor::One, fields: fields(lines) }
}

/// A parsed `HTTP/1.1` request for `example.com`: `request("GET /a", "Accept: b")`.
pub fn request(line: &str, lines: &str) -> RequestHead {
    let mut text = format!("{line} HTTP/1.1\r\nHost: example.com\r\n");
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    let mut bytes = BytesMut::from(text.as_bytes());
    take_request(&mut bytes, &Limits::default()).expect("a valid head").expect("a whole head")
}
