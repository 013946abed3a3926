//! The body reader: bytes of the connection in, bytes of the body out (RFC 9112 §§6.3, 7.1). Strict about chunks.

use bytes::{Buf, Bytes, BytesMut};

use super::{Fields, Framing, Limits, Refusal};

/// How far chunk-size lines may outweigh the data, in bytes over the whole body. Each chunk is allowed
/// `OVERHEAD_PER_CHUNK` and as many bytes as it has data.
const OVERHEAD_MAX: u64 = 16 * 1024;
const OVERHEAD_PER_CHUNK: u64 = 16;
/// Most a trailer section may cost.
const TRAILER_LIMITS: Limits = Limits { head_bytes: 8 * 1024, fields: 64, target_bytes: 0 };

/// Reads one body.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    /// Bytes of chunk-size lines beyond what their chunks are allowed.
    overhead: u64,
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
        BodyReader { state, overhead: 0 }
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
                State::ChunkSize => {
                    let Some((size, line_bytes)) = super::chunk::size(buf)? else { return Ok(Step::NeedMore) };
                    let allowed = OVERHEAD_PER_CHUNK.saturating_add(size);
                    self.overhead = (self.overhead + line_bytes as u64).saturating_sub(allowed);
                    if self.overhead > OVERHEAD_MAX {
                        return Err(Refusal::bad("the chunk extensions are larger than the limit"));
                    }
                    buf.advance(line_bytes);
                    self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
                }
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
