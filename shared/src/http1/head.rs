//! Start line and fields, strictly (RFC 9112 §§2–5). Start lines and line ends are read here, since `httparse` forgives
//! too much of them; it finds names and values.

use bytes::{Buf, BytesMut};
use http::{Method, StatusCode};

use super::fields::Line;
use super::{Authority, Fields, Minor, Refusal, Target};

/// What a head may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole head, start line and empty line included; beyond it 431.
    pub head_bytes: usize,
    /// Field lines, at most 128; one more is answered 431.
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
/// Field lines that most heads stay within.
const FIELDS_USUAL: usize = 16;

/// An accepted request head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    pub target: Target,
    /// Host and port the request is for: from the target in absolute form, else from `Host`.
    pub authority: Authority,
    pub minor: Minor,
    /// Version of HTTP that the client spoke, as `Via` names it: `1.0`, `1.1` or `2.0` (RFC 9110 §7.6.3).
    pub version: &'static str,
    pub fields: Fields,
}

impl RequestHead {
    /// The same request for another path and query.
    pub fn with_path(&self, path: String) -> RequestHead {
        let target = match &self.target {
            Target::Absolute { scheme, authority, .. } => {
                Target::Absolute { scheme: scheme.clone(), authority: authority.clone(), path }
            }
            Target::Origin(_) | Target::Authority(_) | Target::Asterisk => Target::Origin(path),
        };
        RequestHead { target, ..self.clone() }
    }
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
    // A client may send one empty line after the body of its last request (RFC 9112 §2.2). It stays until the head
    // is whole: were it taken at once, every call would forgive another one.
    let empty_line = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    let window = window(buf.get(empty_line..).unwrap_or_default(), limits);
    let read = |line, ended| request_line(line, ended, limits);
    let Some(head) = whole_head(window, limits, read)? else { return Ok(None) };
    let RequestLine { method, target, minor } = head.start_line;
    let method = Method::from_bytes(method).map_err(|_| Refusal::bad("the method is not a token"))?;
    let target = Target::parse(target, &method)?;
    let (lines, length) = (field_lines(head.bytes, head.fields_at, head.fields)?, head.bytes.len());
    buf.advance(empty_line);
    let fields = Fields::new(buf.split_to(length).freeze(), lines);
    let authority = super::host::authority(&target, &fields, minor)?;
    let version = if minor == Minor::Zero { "1.0" } else { "1.1" };
    Ok(Some(RequestHead { method, target, authority, minor, version, fields }))
}

/// Takes one response head off the front of `buf`; `None`: more bytes are needed, nothing was taken.
pub fn take_response(buf: &mut BytesMut, limits: &Limits) -> Result<Option<ResponseHead>, Refusal> {
    let window = window(buf, limits);
    let Some(head) = whole_head(window, limits, status_line)? else { return Ok(None) };
    let (status, minor) = head.start_line;
    let (lines, length) = (field_lines(head.bytes, head.fields_at, head.fields)?, head.bytes.len());
    Ok(Some(ResponseHead { status, minor, fields: Fields::new(buf.split_to(length).freeze(), lines) }))
}

/// Takes a trailer section, up to and with its empty line, off the front of `buf`.
pub(super) fn take_trailers(buf: &mut BytesMut, limits: &Limits) -> Result<Option<Fields>, Refusal> {
    let window = window(buf, limits);
    let Some((length, count)) = section(window, limits)? else { return more(window, limits) };
    let lines = field_lines(window.get(..length).unwrap_or_default(), 0, count)?;
    Ok(Some(Fields::new(buf.split_to(length).freeze(), lines)))
}

const HEAD_TOO_LARGE: Refusal =
    Refusal { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why: "the head is larger than the limit" };
const TOO_MANY_FIELDS: Refusal =
    Refusal { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why: "the head has more fields than the limit" };
const TARGET_TOO_LONG: Refusal =
    Refusal { status: StatusCode::URI_TOO_LONG, why: "the request target is longer than the limit" };
const METHOD_TOO_LONG: Refusal =
    Refusal { status: StatusCode::NOT_IMPLEMENTED, why: "the method is longer than any that is implemented" };
const VERSION_NOT_SUPPORTED: Refusal =
    Refusal { status: StatusCode::HTTP_VERSION_NOT_SUPPORTED, why: "the major version is not that of HTTP/1" };
const NAME_IS_NO_TOKEN: Refusal = Refusal::bad("a field name is not a token directly before its colon");
const LF_WITHOUT_CR: Refusal = Refusal::bad("a line ends in LF without CR");

/// A token byte (RFC 9110 §5.6.2): what names and methods are made of.
pub(super) fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// A byte that may stand in a field value (RFC 9110 §5.5): visible, blank, or obs-text.
pub(super) fn is_value_byte(b: u8) -> bool {
    b == b'\t' || (b >= 0x20 && b != 0x7f)
}

/// As much of the bytes as a head may take.
fn window<'a>(bytes: &'a [u8], limits: &Limits) -> &'a [u8] {
    bytes.get(..limits.head_bytes).unwrap_or(bytes)
}

/// What to do while the end of the head is not in the window.
fn more<T>(window: &[u8], limits: &Limits) -> Result<Option<T>, Refusal> {
    if window.len() >= limits.head_bytes { Err(HEAD_TOO_LARGE) } else { Ok(None) }
}

/// A head that has come to its end.
struct WholeHead<'a, T> {
    start_line: T,
    bytes: &'a [u8],
    /// Where in `bytes` the field section starts, and how many lines it has.
    fields_at: usize,
    fields: usize,
}

/// The head at the front of `window`, its start line read by `read`; `None` before its end is there.
///
/// An unfinished head is judged by its start line, its line ends and its limits. Its fields are read only once it is
/// whole: each call reads it from its start, and one that trickles in would otherwise be parsed anew with every byte.
fn whole_head<'a, T>(
    window: &'a [u8],
    limits: &Limits,
    read: impl FnOnce(&'a [u8], bool) -> Result<Option<T>, Refusal>,
) -> Result<Option<WholeHead<'a, T>>, Refusal> {
    let line_end = memchr::memchr(b'\n', window);
    let line = window.get(..line_end.unwrap_or(window.len())).unwrap_or_default();
    let without_cr = line.strip_suffix(b"\r");
    let start_line = read(without_cr.unwrap_or(line), line_end.is_some())?;
    let (Some(start_line), Some(line_end)) = (start_line, line_end) else { return more(window, limits) };
    if without_cr.is_none() {
        return Err(LF_WITHOUT_CR);
    }
    let fields_at = line_end + 1;
    let Some((length, fields)) = section(window.get(fields_at..).unwrap_or_default(), limits)? else {
        return more(window, limits);
    };
    Ok(Some(WholeHead { start_line, bytes: window.get(..fields_at + length).unwrap_or_default(), fields_at, fields }))
}

struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a str,
    minor: Minor,
}

/// `method SP request-target SP HTTP-version` (RFC 9112 §3); `None` for the beginning of one, if `ended` is false.
///
/// Whatever is wrong is told in the order in which it comes: a line that trickles in gets the same answer.
fn request_line<'a>(line: &'a [u8], ended: bool, limits: &Limits) -> Result<Option<RequestLine<'a>>, Refusal> {
    let (method, rest) = until_space(line);
    if !method.iter().take(METHOD_BYTES_MAX).all(|&b| is_token_byte(b)) || (method.is_empty() && rest.is_some()) {
        return Err(Refusal::bad("the method is not a token"));
    }
    if method.len() > METHOD_BYTES_MAX {
        return Err(METHOD_TOO_LONG);
    }
    let (target, rest) = rest.map(until_space).unwrap_or_default();
    super::target::judge_bytes(target.get(..limits.target_bytes).unwrap_or(target))?;
    if target.len() > limits.target_bytes || (!ended && line.len() + 1 >= limits.head_bytes) {
        return Err(TARGET_TOO_LONG);
    }
    if target.is_empty() && rest.is_some() {
        return Err(Refusal::bad("the request target is empty"));
    }
    let version = rest.unwrap_or_default();
    let minor = minor(version.get(..VERSION.len()).unwrap_or(version))?;
    match (minor, std::str::from_utf8(target)) {
        (Some(minor), Ok(target)) if version.len() == VERSION.len() => {
            Ok(ended.then_some(RequestLine { method, target, minor }))
        }
        (None, _) if !ended => Ok(None),
        _ => Err(Refusal::bad("the request line is not method, target and version with one space between them")),
    }
}

/// Longest method, in bytes; longer ones are answered 501 (RFC 9112 §3). The longest registered one has 17.
const METHOD_BYTES_MAX: usize = 32;

/// What stands before the first space, and what behind it.
fn until_space(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b' ', text) {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
        None => (text, None),
    }
}

/// `HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112 §4); `None` for the beginning of one, if `ended` is
/// false. Whatever is wrong is told in the order in which it comes.
fn status_line(line: &[u8], ended: bool) -> Result<Option<(StatusCode, Minor)>, Refusal> {
    const MALFORMED: Refusal =
        Refusal::bad("the status line is not version, three digits and reason with one space between them");
    let minor = minor(line.get(..VERSION.len()).unwrap_or(line))?;
    if !begins_like(line, STATUS) {
        return Err(MALFORMED);
    }
    let digits = line.get(VERSION.len() + 1..STATUS.len()).unwrap_or_default();
    let status = StatusCode::from_bytes(digits).ok();
    if !digits.is_empty() && !status.is_some_and(|status| (100..600).contains(&status.as_u16())) {
        return Err(Refusal::bad("the status code is not between 100 and 599"));
    }
    if !begins_like(line, STATUS_LINE) {
        return Err(MALFORMED);
    }
    if !line.iter().skip(STATUS_LINE.len()).all(|&b| is_value_byte(b)) {
        return Err(Refusal::bad("the reason phrase holds a control byte"));
    }
    match (status, minor) {
        _ if !ended => Ok(None),
        (Some(status), Some(minor)) if line.len() >= STATUS_LINE.len() => Ok(Some((status, minor))),
        _ => Err(MALFORMED),
    }
}

/// A version, and a status line up to its code and up to its reason phrase; `#` is a digit.
const VERSION: &[u8] = b"HTTP/#.#";
const STATUS: &[u8] = b"HTTP/#.# ###";
const STATUS_LINE: &[u8] = b"HTTP/#.# ### ";

/// Whether `text`, as far as it goes, has the shape.
fn begins_like(text: &[u8], shape: &[u8]) -> bool {
    text.iter().zip(shape).all(|(b, shape)| if *shape == b'#' { b.is_ascii_digit() } else { b == shape })
}

/// The version, or `None` for the beginning of one. A minor version above 1 is read as 1.1 (RFC 9110 §2.5).
fn minor(version: &[u8]) -> Result<Option<Minor>, Refusal> {
    match version {
        b"HTTP/1.0" => Ok(Some(Minor::Zero)),
        _ if !begins_like(version, VERSION) => Err(Refusal::bad("the version is not HTTP/ and two digits")),
        _ if version.len() < VERSION.len() => Ok(None),
        _ if version.starts_with(b"HTTP/1.") => Ok(Some(Minor::One)),
        _ => Err(VERSION_NOT_SUPPORTED),
    }
}

/// Length of the field section at the front of `bytes`, its empty line included, and the number of its lines; `None`
/// before its end is there. A line ends in CR LF and nothing else, and none is continued.
fn section(bytes: &[u8], limits: &Limits) -> Result<Option<(usize, usize)>, Refusal> {
    let (mut line_start, mut count) = (0, 0);
    for at in memchr::memchr_iter(b'\n', bytes) {
        let line = bytes.get(line_start..at).and_then(|line| line.strip_suffix(b"\r")).ok_or(LF_WITHOUT_CR)?;
        match line.first() {
            None => return Ok(Some((at + 1, count))),
            Some(b' ' | b'\t') => return Err(Refusal::bad("a field line starts with white space (obs-fold)")),
            // A bare CR, say, which would make this the last line for others.
            Some(&b) if !is_token_byte(b) => return Err(NAME_IS_NO_TOKEN),
            Some(_) if count == limits.fields.min(FIELDS_MAX) => return Err(TOO_MANY_FIELDS),
            Some(_) => count += 1,
        }
        line_start = at + 1;
    }
    Ok(None)
}

/// Where names and values stand in `head`, whose field section starts at `fields_at`, is whole, and has `count` lines.
fn field_lines(head: &[u8], fields_at: usize, count: usize) -> Result<Vec<Line>, Refusal> {
    // The table is filled before it is used, which takes longer than reading the few lines that a head mostly has.
    if count <= FIELDS_USUAL {
        field_lines_within::<FIELDS_USUAL>(head, fields_at)
    } else {
        field_lines_within::<FIELDS_MAX>(head, fields_at)
    }
}

fn field_lines_within<const MAX: usize>(head: &[u8], fields_at: usize) -> Result<Vec<Line>, Refusal> {
    let mut found = [httparse::EMPTY_HEADER; MAX];
    let section = head.get(fields_at..).unwrap_or_default();
    let found = match httparse::parse_headers(section, &mut found) {
        Ok(httparse::Status::Complete((length, found))) if length == section.len() => found,
        Ok(_) | Err(httparse::Error::NewLine) => return Err(Refusal::bad("a line holds a bare CR")),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY_FIELDS),
        Err(httparse::Error::HeaderValue) => return Err(Refusal::bad("a field value holds a control byte")),
        Err(_) => return Err(NAME_IS_NO_TOKEN),
    };
    let span = |part: &[u8]| {
        let start = (part.as_ptr() as usize).saturating_sub(head.as_ptr() as usize);
        start..start + part.len()
    };
    // The slice of an empty value may point anywhere.
    let value = |value: &[u8]| if value.is_empty() { 0..0 } else { span(value) };
    Ok(found.iter().map(|field| Line::new(span(field.name.as_bytes()), value(field.value))).collect())
}
