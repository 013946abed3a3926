//! The HTTP/1 codec: what is accepted means the same to a second parser, however it comes in pieces, and can be written
//! and read again.

use bytes::BytesMut;
use http::{Method, StatusCode};
use millpond_proxy::proxy_protocol;
use millpond_proxy::semantics::hop;
use millpond_shared::http1::{
    BodyReader, Fields, Framing, LAST_CHUNK, Limits, Minor, Refusal, RequestHead, Step, Target, put_chunk, put_field,
    put_request_line, put_status_line, request_framing, response_framing, take_request, take_response,
};

use super::input::pairs;

/// Prefixes of one input that are tried, at most.
const CUTS_MAX: usize = 32;
/// More fields than our parser takes.
const FIELDS_MAX: usize = 200;

pub fn request_head(data: &[u8]) {
    let take = |buf: &mut BytesMut| take_request(buf, &Limits::default());
    let mut buf = BytesMut::from(data);
    let taken = take(&mut buf);
    holds_for_every_cut(data, &taken, buf.len(), take, |head| (head.method.clone(), head.target.clone()));
    let Ok(Some(head)) = taken else { return };

    let bytes = &data[..data.len() - buf.len()];
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let mut theirs = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut second = httparse::Request::new(&mut theirs);
    // Its versions are 1.0 and 1.1 alone.
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    if line.ends_with(b" HTTP/1.0\r") || line.ends_with(b" HTTP/1.1\r") {
        assert_eq!(second.parse(bytes), Ok(httparse::Status::Complete(bytes.len())));
        assert_eq!(second.method, Some(head.method.as_str()));
        assert_eq!(second.version, Some(u8::from(head.minor == Minor::One)));
        same_fields(&head.fields, second.headers);
    }
    framing_is_unmistakable(&head.fields, request_framing(&head.fields, head.minor));
    hop_by_hop_fields_end_here(&head.fields);
    written_and_read_again(&head);
}

fn written_and_read_again(head: &RequestHead) {
    let target = match &head.target {
        Target::Origin(path) => path.clone(),
        Target::Absolute { scheme, authority, path } => {
            let path = if path == "*" { "" } else { path };
            format!("{scheme}://{}{path}", authority.as_str())
        }
        Target::Authority(authority) => authority.as_str().to_owned(),
        Target::Asterisk => "*".to_owned(),
    };
    if head.minor == Minor::Zero {
        return;
    }
    let mut out = BytesMut::new();
    put_request_line(&mut out, head.method.as_str(), &target);
    head.fields.iter().for_each(|(name, value)| put_field(&mut out, name, value));
    out.extend_from_slice(b"\r\n");
    // Blanks that were left out between name and value make it longer than it was, and maybe too long.
    let limits = Limits { head_bytes: 64 * 1024, ..Limits::default() };
    let again = take_request(&mut out, &limits).expect("valid").expect("whole");
    assert_eq!((&again.method, &again.target, &again.authority), (&head.method, &head.target, &head.authority));
    assert_eq!(pairs(&again.fields), pairs(&head.fields));
}

pub fn response_head(data: &[u8]) {
    let take = |buf: &mut BytesMut| take_response(buf, &Limits::default());
    let mut buf = BytesMut::from(data);
    let taken = take(&mut buf);
    holds_for_every_cut(data, &taken, buf.len(), take, |head| (head.status, head.minor));
    let Ok(Some(head)) = taken else { return };

    let bytes = &data[..data.len() - buf.len()];
    let mut theirs = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut second = httparse::Response::new(&mut theirs);
    if bytes.starts_with(b"HTTP/1.0") || bytes.starts_with(b"HTTP/1.1") {
        assert_eq!(second.parse(bytes), Ok(httparse::Status::Complete(bytes.len())));
        assert_eq!(second.code, Some(head.status.as_u16()));
        same_fields(&head.fields, second.headers);
    }
    for method in [Method::GET, Method::HEAD] {
        let framing = response_framing(&method, head.status, &head.fields, head.minor);
        let bodiless = method == Method::HEAD || [204, 304].contains(&head.status.as_u16());
        assert!(!bodiless || matches!(framing, Ok(Framing::None) | Err(_)));
        framing_is_unmistakable(&head.fields, framing.map(|framing| if bodiless { Framing::None } else { framing }));
    }
    hop_by_hop_fields_end_here(&head.fields);

    let mut out = BytesMut::new();
    put_status_line(&mut out, head.status);
    head.fields.iter().for_each(|(name, value)| put_field(&mut out, name, value));
    out.extend_from_slice(b"\r\n");
    let limits = Limits { head_bytes: 64 * 1024, ..Limits::default() };
    let again = take_response(&mut out, &limits).expect("valid").expect("whole");
    assert_eq!((again.status, pairs(&again.fields)), (head.status, pairs(&head.fields)));
}

/// A head that comes in pieces is judged as the whole would be: nothing is taken before it is whole, a refusal stays
/// what it is, and what follows the head changes nothing. `left`: bytes behind the head.
fn holds_for_every_cut<T, P: PartialEq + std::fmt::Debug>(
    data: &[u8],
    whole: &Result<Option<T>, Refusal>,
    left: usize,
    take: impl Fn(&mut BytesMut) -> Result<Option<T>, Refusal>,
    gist: impl Fn(&T) -> P,
) {
    let step = data.len() / CUTS_MAX + 1;
    for cut in (0..data.len()).step_by(step).chain(data.len().checked_sub(left + 1)) {
        let mut buf = BytesMut::from(&data[..cut]);
        match (take(&mut buf), whole) {
            (Ok(None), _) => assert_eq!(buf, data[..cut], "nothing is taken of a part"),
            (Err(early), Err(late)) => assert_eq!(early, *late, "cut at {cut}"),
            (Ok(Some(early)), Ok(Some(late))) => {
                assert!(cut >= data.len() - left);
                assert_eq!(gist(&early), gist(late));
            }
            (Err(early), _) => panic!("cut at {cut}, it is refused: {early}"),
            (Ok(Some(_)), _) => panic!("cut at {cut}, it is accepted"),
        }
    }
    match whole {
        Ok(None) => assert_eq!(left, data.len()),
        Ok(Some(_)) => assert!(data[..data.len() - left].ends_with(b"\r\n\r\n")),
        Err(refusal) => {
            assert!(refusal.status.is_client_error() || [501, 505].contains(&refusal.status.as_u16()));
            let more = [data, b"\r\n\r\n"].concat();
            assert_eq!(take(&mut BytesMut::from(&more[..])).map(|_| ()), Err(*refusal));
        }
    }
}

fn same_fields(ours: &Fields, theirs: &[httparse::Header<'_>]) {
    let theirs: Vec<(&str, &[u8])> = theirs.iter().map(|field| (field.name, field.value)).collect();
    assert_eq!(pairs(ours), theirs);
}

/// One way to tell where the body ends, or none; never two.
fn framing_is_unmistakable(fields: &Fields, framing: Result<Framing, Refusal>) {
    let count = |name| fields.get_all(name).count();
    let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
    match framing {
        Ok(Framing::Length(length)) => {
            assert_eq!((lengths, codings), (1, 0));
            let text = fields.get_str("content-length").expect("digits");
            assert_eq!(text.parse(), Ok(length));
        }
        Ok(Framing::Chunked) => assert_eq!((lengths, codings), (0, 1)),
        Ok(Framing::UntilClose) => assert_eq!((lengths, codings), (0, 0)),
        Ok(Framing::None) => assert!(lengths + codings < 2),
        Err(refusal) => assert!(refusal.status == StatusCode::NOT_IMPLEMENTED || refusal.status.is_client_error()),
    }
}

fn hop_by_hop_fields_end_here(fields: &Fields) {
    let kept: Fields = hop::end_to_end(fields).collect();
    for name in ["connection", "te", "trailer", "transfer-encoding", "upgrade", "keep-alive"] {
        assert!(!kept.contains(name), "{name}");
    }
    let options: Vec<&str> = fields.list("connection").filter(|option| !option.contains('"')).collect();
    for (name, _) in kept.iter() {
        let named = options.iter().any(|option| option.eq_ignore_ascii_case(name));
        assert!(!named || ["host", "content-length"].contains(&name.to_ascii_lowercase().as_str()), "{name}");
    }
}

/// The head that a balancer puts before HTTP: judged alike in whatever pieces it comes, and never too long.
pub fn proxy_head(data: &[u8]) {
    let whole = proxy_protocol::head(data);
    for cut in 0..data.len().min(proxy_protocol::HEAD_MAX) {
        match (proxy_protocol::head(&data[..cut]), whole) {
            (Ok(None), _) => {}
            (early, late) => assert_eq!(early, late, "cut at {cut}"),
        }
    }
    match whole {
        Ok(Some((_, length))) => assert!(length <= data.len() && length <= proxy_protocol::HEAD_MAX),
        Ok(None) => assert!(data.len() < proxy_protocol::HEAD_MAX),
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
}

/// What one reading of a body comes to.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    body: Vec<u8>,
    trailers: Option<String>,
    /// Bytes behind the body; `None`: it is not at its end.
    left: Option<usize>,
    refused: Option<Refusal>,
}

/// The first byte chooses the framing, the second how the rest comes in pieces.
pub fn body(data: &[u8]) {
    let [kind, pieces, wire @ ..] = data else { return };
    let framing = match kind % 4 {
        0 | 1 => Framing::Chunked,
        2 => Framing::Length(u64::from(*kind)),
        _ => Framing::UntilClose,
    };
    let whole = read(framing, wire, wire.len().max(1));
    for piece in [1, usize::from(*pieces) + 1] {
        let mut in_pieces = read(framing, wire, piece);
        // Of what is refused in the end, what came before may be known later or earlier.
        if whole.refused.is_some() {
            assert!(whole.body.starts_with(&in_pieces.body) || in_pieces.body.starts_with(&whole.body));
            in_pieces.body.clone_from(&whole.body);
        }
        assert_eq!(in_pieces, whole, "in pieces of {piece}");
    }
    if framing == Framing::Chunked && whole.left.is_some() {
        chunks_mean_the_same_to_others(wire, &whole, usize::from(*pieces) + 1);
    }
}

fn read(framing: Framing, wire: &[u8], piece: usize) -> Read {
    let (mut reader, mut buf) = (BodyReader::new(framing), BytesMut::new());
    let mut read = Read { body: Vec::new(), trailers: None, left: None, refused: None };
    let mut pieces = wire.chunks(piece);
    let mut came = 0;
    loop {
        match reader.step(&mut buf) {
            Ok(Step::Data(data)) => {
                assert!(!data.is_empty());
                read.body.extend_from_slice(&data);
            }
            Ok(Step::NeedMore) => match pieces.next() {
                Some(piece) => {
                    buf.extend_from_slice(piece);
                    came += piece.len();
                }
                None => {
                    let ended = reader.end_of_stream();
                    assert_eq!(ended.is_ok(), framing == Framing::UntilClose);
                    read.left = ended.is_ok().then_some(0);
                    return read;
                }
            },
            Ok(Step::End { trailers }) => {
                assert!(reader.is_done());
                read.trailers = trailers.map(|fields| format!("{fields:?}"));
                read.left = Some(buf.len() + wire.len() - came);
                return read;
            }
            Err(refusal) => {
                read.refused = Some(refusal);
                return read;
            }
        }
    }
}

/// A reader that forgives what ours refuses finds the same data, and so do we once it is written anew.
fn chunks_mean_the_same_to_others(wire: &[u8], ours: &Read, chunk: usize) {
    let (mut rest, mut body) = (wire, Vec::new());
    loop {
        let line_end = rest.iter().position(|b| *b == b'\n').expect("a line");
        let digits = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let digits = std::str::from_utf8(&rest[..digits]).expect("digits");
        let size = usize::from_str_radix(digits, 16).expect("a size");
        rest = &rest[line_end + 1..];
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[..size]);
        rest = rest[size..].strip_prefix(b"\r\n").expect("CR LF");
    }
    assert_eq!(ours.body, body);

    let mut out = BytesMut::new();
    body.chunks(chunk).for_each(|chunk| put_chunk(&mut out, chunk));
    out.extend_from_slice(LAST_CHUNK);
    let again = read(Framing::Chunked, &out, out.len());
    assert_eq!((again.body, again.left), (body, Some(0)));
}
