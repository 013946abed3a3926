//! The body reader: bytes of the connection in, bytes of the body out (RFC 9112 §§6.3, 7.1). Strict about chunks.

use bytes::{Buf, Bytes, BytesMut};

use super::{Fields, Framing, Limits, Refusal};

/// Longest chunk-size line, extensions included, in bytes.
const CHUNK_LINE_MAX: usize = 256;
/// Most a trailer section may cost.
const TRAILER_LIMITS: Limits = Limits { head_bytes: 8 * 1024, fields: 64, target_bytes: 0 };

/// Reads one body.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
}

#[derive(Debug)]
enum State {
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// What the reader found at the front of the buffer.
#[derive(Debug)]
pub enum Step {
    /// Some bytes of the body, never empty.
    Data(Bytes),
    /// Nothing without more bytes from the connection.
    NeedMore,
    /// The body is complete; what is left in the buffer belongs to the next message.
    End { trailers: Option<Fields> },
}

impl BodyReader {
    pub fn new(framing: Framing) -> BodyReader {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        BodyReader { state }
    }

    /// Whether the body is known to have ended.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes the next piece off the front of `buf`.
    pub fn step(&mut self, buf: &mut BytesMut) -> Result<Step, Refusal> {
        loop {
            match &mut self.state {
                State::Done => return Ok(Step::End { trailers: None }),
                State::UntilClose => return Ok(data_or_more(buf, u64::MAX).0),
                State::Length(left) => {
                    let (step, taken) = data_or_more(buf, *left);
                    *left -= taken;
                    if *left == 0 {
                        self.state = State::Done;
                    }
                    return Ok(step);
                }
                State::ChunkSize => match chunk_size(buf)? {
                    None => return Ok(Step::NeedMore),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::ChunkData(size),
                },
                State::ChunkData(left) => {
                    let (step, taken) = data_or_more(buf, *left);
                    *left -= taken;
                    if *left == 0 {
                        self.state = State::ChunkEnd;
                    }
                    return Ok(step);
                }
                State::ChunkEnd => {
                    if !b"\r\n".starts_with(buf.get(..2).unwrap_or(buf)) {
                        return Err(Refusal::bad("a chunk is not followed by CR LF"));
                    }
                    if buf.len() < 2 {
                        return Ok(Step::NeedMore);
                    }
                    buf.advance(2);
                    self.state = State::ChunkSize;
                }
                State::Trailers => {
                    let Some(trailers) = super::head::take_trailers(buf, &TRAILER_LIMITS)? else {
                        return Ok(Step::NeedMore);
                    };
                    self.state = State::Done;
                    return Ok(Step::End { trailers: (!trailers.is_empty()).then_some(trailers) });
                }
            }
        }
    }

    /// The connection ended: was that the end of the body?
    pub fn end_of_stream(&mut self) -> Result<(), Refusal> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(Refusal::bad("the connection ended before the body did")),
        }
    }
}

fn data_or_more(buf: &mut BytesMut, left: u64) -> (Step, u64) {
    if buf.is_empty() {
        return (Step::NeedMore, 0);
    }
    let take = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    (Step::Data(buf.split_to(take).freeze()), take as u64)
}

/// `1*HEXDIG [ chunk-ext ] CRLF`, no blanks before the extension, no bare CR or LF anywhere.
fn chunk_size(buf: &mut BytesMut) -> Result<Option<u64>, Refusal> {
    let window = buf.get(..CHUNK_LINE_MAX).unwrap_or(buf);
    let line_end = memchr::memchr(b'\n', window);
    let line = window.get(..line_end.unwrap_or(window.len())).unwrap_or(window);
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 && !line.is_empty() || digits > 15 {
        return Err(Refusal::bad("a chunk size is not a hexadecimal number"));
    }
    let Some(line_end) = line_end else {
        return if window.len() >= CHUNK_LINE_MAX {
            Err(Refusal::bad("a chunk-size line is longer than 256 bytes"))
        } else {
            Ok(None)
        };
    };
    let extension = match line.get(digits..).and_then(|rest| rest.split_last()) {
        Some((&b'\r', extension)) => extension,
        _ => return Err(Refusal::bad("a chunk-size line does not end in CR LF")),
    };
    let extension_is_valid = extension.is_empty()
        || (extension.first() == Some(&b';') && extension.iter().all(|&b| super::head::is_value_byte(b)));
    if digits == 0 || !extension_is_valid {
        return Err(Refusal::bad("a chunk-size line is malformed"));
    }
    let hex = |b: &u8| u64::from((*b as char).to_digit(16).unwrap_or(0));
    let size = line.iter().take(digits).fold(0u64, |size, digit| size << 4 | hex(digit));
    buf.advance(line_end + 1);
    Ok(Some(size))
}
