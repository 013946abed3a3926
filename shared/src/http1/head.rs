//! Start line and fields, strictly (RFC 9112 §§2–5). `httparse` finds the parts; this file refuses what it forgives.

use bytes::{Buf, BytesMut};
use http::{Method, StatusCode};

use super::{Authority, Fields, Minor, Refusal, Target};

/// What a head may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole head, start line included; beyond it 431.
    pub head_bytes: usize,
    /// Field lines; one more is answered 431.
    pub fields: usize,
    /// Bytes of the request target; beyond it 414 (RFC 9110 §4.1 asks for at least 8,000).
    pub target_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { head_bytes: 32 * 1024, fields: FIELDS_MAX, target_bytes: 8 * 1024 }
    }
}

const FIELDS_MAX: usize = 128;

/// An accepted request head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    pub target: Target,
    /// Host and port the request is for: from the target in absolute form, else from `Host`.
    pub authority: Authority,
    pub minor: Minor,
    pub fields: Fields,
}

/// An accepted response head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub minor: Minor,
    pub fields: Fields,
}

/// Takes one request head off the front of `buf`; `None`: more bytes are needed, nothing was taken.
pub fn take_request(buf: &mut BytesMut, limits: &Limits) -> Result<Option<RequestHead>, Refusal> {
    // A client may send one empty line after the body of its last request (RFC 9112 §2.2).
    if buf.starts_with(b"\r\n") {
        buf.advance(2);
    }
    if buf.first().is_some_and(|&b| b == b'\r' || b == b'\n') && buf.len() > 1 {
        return Err(Refusal::bad("an empty line stands before the request line"));
    }
    let window = window(buf, limits);
    let mut lines = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(lines.get_mut(..limits.fields.min(FIELDS_MAX)).unwrap_or_default());
    let length = match parsed.parse(window) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return unfinished_request(window, limits).map(|()| None),
        Err(error) => return Err(refusal(error)),
    };
    strict_line_ends(window, length)?;

    let target_text = parsed.path.unwrap_or("");
    if target_text.len() > limits.target_bytes {
        return Err(TARGET_TOO_LONG);
    }
    let method = Method::from_bytes(parsed.method.unwrap_or("").as_bytes())
        .map_err(|_| Refusal::bad("the method is not a token"))?;
    let minor = minor(parsed.version)?;
    let target = Target::parse(target_text, &method)?;
    let ranges = ranges(window, parsed.headers);
    let fields = Fields::from_ranges(buf.split_to(length).freeze(), ranges.into_iter());
    let authority = super::host::authority(&target, &fields, minor)?;
    Ok(Some(RequestHead { method, target, authority, minor, fields }))
}

/// Takes one response head off the front of `buf`; `None`: more bytes are needed, nothing was taken.
pub fn take_response(buf: &mut BytesMut, limits: &Limits) -> Result<Option<ResponseHead>, Refusal> {
    let window = window(buf, limits);
    let mut lines = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(lines.get_mut(..limits.fields.min(FIELDS_MAX)).unwrap_or_default());
    let length = match parsed.parse(window) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if window.len() >= limits.head_bytes => return Err(HEAD_TOO_LARGE),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal(error)),
    };
    strict_line_ends(window, length)?;
    let status = parsed
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(Refusal::bad("the status code is not between 100 and 999"))?;
    let minor = minor(parsed.version)?;
    let ranges = ranges(window, parsed.headers);
    let fields = Fields::from_ranges(buf.split_to(length).freeze(), ranges.into_iter());
    Ok(Some(ResponseHead { status, minor, fields }))
}

/// Takes a trailer section, up to and with its empty line, off the front of `buf`.
pub(super) fn take_trailers(buf: &mut BytesMut, limits: &Limits) -> Result<Option<Fields>, Refusal> {
    let window = window(buf, limits);
    let mut lines = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let parsed = httparse::parse_headers(window, &mut lines);
    let (length, headers) = match parsed {
        Ok(httparse::Status::Complete(found)) => found,
        Ok(httparse::Status::Partial) if window.len() >= limits.head_bytes => return Err(HEAD_TOO_LARGE),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal(error)),
    };
    strict_line_ends(window, length)?;
    let ranges = ranges(window, headers);
    Ok(Some(Fields::from_ranges(buf.split_to(length).freeze(), ranges.into_iter())))
}

const HEAD_TOO_LARGE: Refusal =
    Refusal { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why: "the head is larger than the limit" };
const TARGET_TOO_LONG: Refusal =
    Refusal { status: StatusCode::URI_TOO_LONG, why: "the request target is longer than the limit" };

/// A token byte (RFC 9110 §5.6.2): what names and methods are made of.
pub(super) fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// A byte that may stand in a field value (RFC 9110 §5.5): visible, blank, or obs-text.
pub(super) fn is_value_byte(b: u8) -> bool {
    b == b'\t' || (b >= 0x20 && b != 0x7f)
}

/// As much of the buffer as a head may take.
fn window<'a>(buf: &'a BytesMut, limits: &Limits) -> &'a [u8] {
    buf.get(..limits.head_bytes).unwrap_or(buf)
}

fn unfinished_request(window: &[u8], limits: &Limits) -> Result<(), Refusal> {
    let line_end = memchr::memchr(b'\n', window);
    let line = window.get(..line_end.unwrap_or(window.len())).unwrap_or(window);
    let target_too_long = line.len() > limits.target_bytes + METHOD_AND_VERSION_BYTES;
    match (target_too_long, window.len() >= limits.head_bytes) {
        (true, _) => Err(TARGET_TOO_LONG),
        (false, true) => Err(HEAD_TOO_LARGE),
        (false, false) => Ok(()),
    }
}

/// Room for the longest method anyone uses, two spaces and `HTTP/1.1`.
const METHOD_AND_VERSION_BYTES: usize = 64;

fn refusal(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal {
            status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            why: "the head has more fields than the limit",
        },
        httparse::Error::Version => {
            Refusal { status: StatusCode::HTTP_VERSION_NOT_SUPPORTED, why: "the version is not HTTP/1.0 or HTTP/1.1" }
        }
        httparse::Error::HeaderName => Refusal::bad("a field name is not a token directly before its colon"),
        httparse::Error::HeaderValue => Refusal::bad("a field value holds a control byte"),
        httparse::Error::NewLine => Refusal::bad("a line does not end in CR LF"),
        httparse::Error::Status => Refusal::bad("the status line is malformed"),
        httparse::Error::Token => Refusal::bad("the request line is malformed"),
    }
}

/// `httparse` takes a bare LF for a line end, and a bare CR or a NUL in places; a line ends in CR LF and nothing else.
fn strict_line_ends(window: &[u8], length: usize) -> Result<(), Refusal> {
    let head = window.get(..length).unwrap_or(window);
    let mut previous_end = 0;
    for at in memchr::memchr_iter(b'\n', head) {
        let line = head.get(previous_end..at).unwrap_or(&[]);
        let Some((&b'\r', line)) = line.split_last() else {
            return Err(Refusal::bad("a line ends in LF without CR"));
        };
        if memchr::memchr2(b'\r', 0, line).is_some() {
            return Err(Refusal::bad("a line holds a bare CR or a NUL"));
        }
        if line.first().is_some_and(|&b| b == b' ' || b == b'\t') {
            return Err(Refusal::bad("a field line starts with white space (obs-fold)"));
        }
        previous_end = at + 1;
    }
    Ok(())
}

fn minor(version: Option<u8>) -> Result<Minor, Refusal> {
    match version {
        Some(0) => Ok(Minor::Zero),
        Some(1) => Ok(Minor::One),
        _ => Err(refusal(httparse::Error::Version)),
    }
}

type Span = std::ops::Range<usize>;

/// Where in `window` each name and value stands.
fn ranges(window: &[u8], headers: &[httparse::Header<'_>]) -> Vec<(Span, Span)> {
    let base = window.as_ptr() as usize;
    let span = |part: &[u8]| {
        let start = (part.as_ptr() as usize).saturating_sub(base);
        start..start + part.len()
    };
    // An empty value's slice may point anywhere.
    let value = |value: &[u8]| if value.is_empty() { 0..0 } else { span(value) };
    headers.iter().map(|header| (span(header.name.as_bytes()), value(header.value))).collect()
}
