//! From bytes to the things that targets take.

use bytes::BytesMut;
use millpond_shared::http1::{Fields, Limits, RequestHead, ResponseHead, take_request, take_response};

/// The parts of an input, a zero byte between them; empty ones where there are too few.
pub fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |b| *b == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// A field for each line, all called `name`.
pub fn lines(name: &str, data: &[u8]) -> Fields {
    data.split(|b| *b == b'\n').map(|line| (name, line)).collect()
}

/// A field for each line of `Name: value`; lines without a colon are left out.
pub fn fields(data: &[u8]) -> Fields {
    let line = |line: &'_ [u8]| {
        let colon = line.iter().position(|b| *b == b':')?;
        Some((String::from_utf8_lossy(&line[..colon]).into_owned(), line[colon + 1..].to_vec()))
    };
    let found: Vec<(String, Vec<u8>)> = data.split(|b| *b == b'\n').filter_map(line).collect();
    found.iter().map(|(name, value)| (name.as_str(), value)).collect()
}

/// A whole request head at the front.
pub fn request(data: &[u8]) -> Option<RequestHead> {
    take_request(&mut BytesMut::from(data), &Limits::default()).ok().flatten()
}

/// A whole response head at the front.
pub fn response(data: &[u8]) -> Option<ResponseHead> {
    take_response(&mut BytesMut::from(data), &Limits::default()).ok().flatten()
}

/// Names and values, in their order.
pub fn pairs(fields: &Fields) -> Vec<(&str, &[u8])> {
    fields.iter().collect()
}
