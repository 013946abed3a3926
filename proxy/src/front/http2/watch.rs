//! Looks at frames on their way to `h2`, for what RFC 9113 calls each mistake (pure).
//!
//! `h2` ends the connection, or the stream, wherever it has to, but calls most mistakes PROTOCOL_ERROR, and lets two
//! pass: a connection that does not begin with SETTINGS (§3.4), and pseudo-fields in trailers (§8.1).

use ::h2::Reason;

use super::hpack::{self, Flaw};

/// Bytes before the first frame (§3.4); `h2` reads them.
const PREFACE_BYTES: usize = 24;
/// Streams that the client ended last and that are remembered: a frame for one of them is called STREAM_CLOSED, for one
/// that was ended before them PROTOCOL_ERROR.
const ENDED_MAX: usize = 32;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

const INITIAL_WINDOW_SIZE: u16 = 4;
const WINDOW_MAX: u32 = (1 << 31) - 1;

pub(super) struct Watch {
    preface_left: usize,
    /// The head of the frame that is being read, as far as it came.
    head: [u8; 9],
    head_bytes: usize,
    /// Bytes of its payload that are still to come.
    left: usize,
    /// The payload so far, of the kinds that are looked into.
    payload: Vec<u8>,
    is_first: bool,
    /// The highest stream that the client opened.
    highest: u32,
    ended: [u32; ENDED_MAX],
    ended_next: usize,
    /// The field block that is not at its end yet: its bytes so far, and whether it is that of trailers which end their
    /// stream; `h2` knows what to do with others.
    block: Vec<u8>,
    is_trailers: bool,
    /// Blocks that came whole in what was looked at last.
    blocks: Vec<Vec<u8>>,
    /// What the first mistake in that is called.
    mistake: Option<Reason>,
}

/// One frame's head (§4.1).
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn of([a, b, c, kind, flags, id @ ..]: [u8; 9]) -> Head {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Head { length, kind, flags, stream: u32::from_be_bytes(id) & WINDOW_MAX }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Watch {
    pub fn new() -> Watch {
        Watch {
            preface_left: PREFACE_BYTES,
            head: [0; 9],
            head_bytes: 0,
            left: 0,
            payload: Vec::new(),
            is_first: true,
            highest: 0,
            ended: [0; ENDED_MAX],
            ended_next: 0,
            block: Vec::new(),
            is_trailers: false,
            blocks: Vec::new(),
            mistake: None,
        }
    }

    /// What was looked at has been read, and nothing was wrong with it.
    pub fn settle(&mut self) {
        self.blocks = Vec::new();
        self.mistake = None;
    }

    /// The highest stream that the client opened.
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// Looks at the next bytes. `Err`: the connection ends here, with this code, and `h2` would not see why.
    ///
    /// Trailers with a pseudo-field lose their END_STREAM, which is as wrong and which `h2` answers as it should.
    pub fn look(&mut self, bytes: &mut [u8]) -> Result<(), Reason> {
        let mut at = self.preface_left.min(bytes.len());
        self.preface_left -= at;
        // Where the flags of the last HEADERS stand, if they came with these bytes.
        let mut flags_at = None;
        while at < bytes.len() {
            if self.head_bytes < self.head.len() {
                let Some(byte) = bytes.get(at) else { break };
                if self.head_bytes == 4 && self.head().kind == HEADERS {
                    flags_at = Some(at);
                }
                if let Some(place) = self.head.get_mut(self.head_bytes) {
                    *place = *byte;
                }
                (self.head_bytes, at) = (self.head_bytes + 1, at + 1);
                if self.head_bytes < self.head.len() {
                    continue;
                }
                self.begin()?;
            } else {
                let end = at.saturating_add(self.left).min(bytes.len());
                let part = bytes.get(at..end).unwrap_or_default();
                if matches!(self.head(), Head { kind: HEADERS | CONTINUATION | SETTINGS, .. }) {
                    self.payload.extend_from_slice(part);
                }
                (self.left, at) = (self.left - part.len(), end);
            }
            if self.left == 0 && !self.end() {
                let flags = flags_at.and_then(|at| bytes.get_mut(at)).ok_or(Reason::PROTOCOL_ERROR)?;
                *flags &= !END_STREAM;
            }
        }
        Ok(())
    }

    /// What `h2` should have said, if it ended the connection for what was looked at last.
    pub fn reason(&self) -> Reason {
        let broken = || self.blocks.iter().any(|block| hpack::flaw(block) == Some(Flaw::Compression));
        match self.mistake {
            Some(reason) => reason,
            None if broken() => Reason::COMPRESSION_ERROR,
            None => Reason::PROTOCOL_ERROR,
        }
    }

    fn head(&self) -> Head {
        Head::of(self.head)
    }

    /// The head of a frame is there.
    fn begin(&mut self) -> Result<(), Reason> {
        let head = self.head();
        self.left = head.length;
        if std::mem::take(&mut self.is_first) && (head.kind != SETTINGS || head.has(ACK)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if let Some(reason) = self.mistake_of(head) {
            self.mistake.get_or_insert(reason);
        }
        if head.kind == HEADERS {
            let is_open = head.stream <= self.highest && !self.ended.contains(&head.stream);
            self.is_trailers = is_open && head.has(END_STREAM);
            self.highest = self.highest.max(head.stream);
        }
        if (matches!(head.kind, DATA | HEADERS) && head.has(END_STREAM)) || head.kind == RST_STREAM {
            if let Some(place) = self.ended.get_mut(self.ended_next) {
                *place = head.stream;
            }
            self.ended_next = (self.ended_next + 1) % ENDED_MAX;
        }
        Ok(())
    }

    /// What is wrong with a frame by its head alone. Frames that are too long are told by `h2` as they should be.
    fn mistake_of(&self, head: Head) -> Option<Reason> {
        let Head { length, kind, stream, .. } = head;
        let of_a_stream = matches!(kind, DATA | HEADERS | PRIORITY | RST_STREAM | CONTINUATION);
        let of_the_connection = matches!(kind, SETTINGS | PING | GOAWAY);
        if kind == PUSH_PROMISE || (of_a_stream && stream == 0) || (of_the_connection && stream != 0) {
            return Some(Reason::PROTOCOL_ERROR);
        }
        // §4.2: too small for what must stand in it, or not as long as it must be.
        let pad = usize::from(head.has(PADDED));
        let is_sized = match kind {
            DATA => length >= pad,
            HEADERS => length >= pad + if head.has(WITH_PRIORITY) { 5 } else { 0 },
            PRIORITY => length == 5,
            RST_STREAM | WINDOW_UPDATE => length == 4,
            SETTINGS if head.has(ACK) => length == 0,
            SETTINGS => length % 6 == 0,
            PING => length == 8,
            GOAWAY => length >= 8,
            _ => true,
        };
        if !is_sized {
            return Some(Reason::FRAME_SIZE_ERROR);
        }
        // §5.1: after END_STREAM or RST_STREAM, nothing more is sent.
        let is_closed = matches!(kind, DATA | HEADERS) && self.ended.contains(&stream);
        is_closed.then_some(Reason::STREAM_CLOSED)
    }

    /// A frame is whole. `false`: it has a pseudo-field where none may be.
    fn end(&mut self) -> bool {
        let head = self.head();
        self.head_bytes = 0;
        let payload = std::mem::take(&mut self.payload);
        match head.kind {
            SETTINGS if !head.has(ACK) => {
                let is_too_large = |setting: &[u8]| match *setting {
                    [a, b, v, w, x, y] => {
                        let (id, value) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([v, w, x, y]));
                        id == INITIAL_WINDOW_SIZE && value > WINDOW_MAX
                    }
                    _ => false,
                };
                if payload.chunks_exact(6).any(is_too_large) {
                    self.mistake.get_or_insert(Reason::FLOW_CONTROL_ERROR);
                }
                true
            }
            HEADERS => {
                let fragment = fragment(head, &payload);
                if fragment.is_none() {
                    self.mistake.get_or_insert(Reason::PROTOCOL_ERROR);
                }
                self.block = fragment.unwrap_or_default().to_vec();
                self.end_block(head)
            }
            CONTINUATION => {
                self.block.extend_from_slice(&payload);
                self.end_block(head)
            }
            _ => true,
        }
    }

    fn end_block(&mut self, head: Head) -> bool {
        if !head.has(END_HEADERS) {
            return true;
        }
        let block = std::mem::take(&mut self.block);
        let is_clean = !self.is_trailers || !hpack::has_pseudo_field(&block);
        self.blocks.push(block);
        is_clean
    }
}

/// The part of a field block that stands in a HEADERS frame (§6.2); `None`: the padding is longer than what it pads.
fn fragment(head: Head, payload: &[u8]) -> Option<&[u8]> {
    let (padding, rest) = match payload.split_first() {
        Some((padding, rest)) if head.has(PADDED) => (usize::from(*padding), rest),
        _ => (0, payload),
    };
    let rest = if head.has(WITH_PRIORITY) { rest.get(5..).unwrap_or_default() } else { rest };
    rest.get(..rest.len().checked_sub(padding)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn opened(frames: &[Vec<u8>]) -> Vec<u8> {
        [PREFACE, &frame(SETTINGS, 0, 0, b""), &frames.concat()].concat()
    }

    /// What the mistake is called, in whatever pieces the bytes come.
    fn called(bytes: &[u8]) -> Result<Reason, Reason> {
        let mut found = Vec::new();
        for size in [1, 7, bytes.len()] {
            let mut watch = Watch::new();
            let looked = bytes.chunks(size).try_for_each(|piece| watch.look(&mut piece.to_vec()));
            found.push(looked.map(|()| watch.reason()));
        }
        assert!(found.iter().all(|other| *other == found[0]), "{found:?}");
        found[0]
    }

    #[test]
    fn each_mistake_has_its_name() {
        let head = |stream, flags| frame(HEADERS, flags | END_HEADERS, stream, &[0x82]);
        let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        for (frames, expected) in [
            (vec![head(1, END_STREAM)], Reason::PROTOCOL_ERROR),
            (vec![frame(PING, 0, 0, &[0; 7])], Reason::FRAME_SIZE_ERROR),
            (vec![frame(PING, 0, 1, &[0; 7])], Reason::PROTOCOL_ERROR),
            (vec![frame(SETTINGS, 0, 0, &[0; 5])], Reason::FRAME_SIZE_ERROR),
            (vec![frame(SETTINGS, ACK, 0, &[0; 6])], Reason::FRAME_SIZE_ERROR),
            (vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], Reason::FRAME_SIZE_ERROR),
            (vec![frame(PRIORITY, 0, 1, &[0; 4])], Reason::FRAME_SIZE_ERROR),
            (vec![head(1, 0), frame(RST_STREAM, 0, 1, &[0; 3])], Reason::FRAME_SIZE_ERROR),
            (vec![frame(GOAWAY, 0, 0, &[0; 7])], Reason::FRAME_SIZE_ERROR),
            (vec![frame(HEADERS, PADDED, 1, &[])], Reason::FRAME_SIZE_ERROR),
            (vec![frame(HEADERS, WITH_PRIORITY, 1, &[0; 4])], Reason::FRAME_SIZE_ERROR),
            (vec![frame(HEADERS, PADDED | END_HEADERS, 1, &[9, 0x80])], Reason::PROTOCOL_ERROR),
            (vec![frame(PUSH_PROMISE, 0, 1, &[0; 4])], Reason::PROTOCOL_ERROR),
            (vec![frame(SETTINGS, 0, 0, &setting(4, 1 << 31))], Reason::FLOW_CONTROL_ERROR),
            (vec![frame(SETTINGS, 0, 0, &setting(4, WINDOW_MAX))], Reason::PROTOCOL_ERROR),
            (vec![frame(SETTINGS, 0, 0, &setting(2, 2))], Reason::PROTOCOL_ERROR),
            (vec![head(1, END_STREAM), frame(DATA, 0, 1, b"x")], Reason::STREAM_CLOSED),
            (vec![head(1, END_STREAM), head(1, END_STREAM)], Reason::STREAM_CLOSED),
            (vec![head(1, 0), frame(RST_STREAM, 0, 1, &[0; 4]), head(1, 0)], Reason::STREAM_CLOSED),
            (vec![head(5, 0), head(3, 0)], Reason::PROTOCOL_ERROR),
            (vec![frame(HEADERS, END_HEADERS, 1, &[0x80])], Reason::COMPRESSION_ERROR),
            (vec![frame(HEADERS, END_HEADERS | PADDED, 1, &[2, 0x80, 0, 0])], Reason::COMPRESSION_ERROR),
            (vec![frame(HEADERS, END_HEADERS | PADDED, 1, &[2, 0x82, 0x80, 0x80])], Reason::PROTOCOL_ERROR),
            (vec![frame(HEADERS, 0, 1, &[0x82]), frame(CONTINUATION, 4, 1, &[0x80])], Reason::COMPRESSION_ERROR),
            (vec![frame(0x16, 0xff, 9, b"unknown")], Reason::PROTOCOL_ERROR),
        ] {
            assert_eq!(called(&opened(&frames)), Ok(expected), "{frames:02x?}");
        }
    }

    #[test]
    fn a_connection_begins_with_settings() {
        for first in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, b"")] {
            assert_eq!(called(&[PREFACE, &first].concat()), Err(Reason::PROTOCOL_ERROR));
        }
    }

    #[test]
    fn what_was_read_is_forgotten() {
        let mut watch = Watch::new();
        let mut bytes = opened(&[frame(HEADERS, END_HEADERS, 1, &[0x80]), frame(PING, 0, 0, b"")]);
        watch.look(&mut bytes).expect("h2 sees what is wrong");
        watch.settle();
        assert_eq!(watch.reason(), Reason::PROTOCOL_ERROR);
    }

    #[test]
    fn trailers_with_a_pseudo_field_do_not_end_their_stream() {
        let body = frame(HEADERS, END_HEADERS, 1, &[0x83]);
        let trailers = |block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
        for (block, flags) in [(&[0x84][..], END_HEADERS), (&[0x8f], END_HEADERS | END_STREAM)] {
            let mut bytes = opened(&[body.clone(), trailers(block)]);
            Watch::new().look(&mut bytes).expect("h2 sees what is wrong");
            assert_eq!(bytes[bytes.len() - 6], flags, "{block:02x?}");
        }
        let in_two = [frame(HEADERS, END_STREAM, 1, &[0x8f]), frame(CONTINUATION, END_HEADERS, 1, &[0x84])].concat();
        let mut bytes = opened(&[body.clone(), in_two]);
        Watch::new().look(&mut bytes).expect("h2 sees what is wrong");
        assert_eq!(bytes[bytes.len() - 16], 0, "the flags of HEADERS");
        // Where the head of the frame was read before, nothing is left but to end the connection.
        let mut watch = Watch::new();
        let bytes = opened(&[body, trailers(&[0x84])]);
        let (before, last) = bytes.split_at(bytes.len() - 1);
        watch.look(&mut before.to_vec()).expect("nothing is known yet");
        assert_eq!(watch.look(&mut last.to_vec()), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(watch.highest(), 1);
    }
    proptest::proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_panic(frames: Vec<(u8, u8, u8, Vec<u8>)>, size in 1_usize..40) {
            let frames: Vec<Vec<u8>> = frames
                .iter()
                .map(|(kind, flags, stream, payload)| frame(kind % 11, *flags, u32::from(stream % 4), payload))
                .collect();
            let (bytes, mut watch) = (opened(&frames), Watch::new());
            if bytes.chunks(size).try_for_each(|piece| watch.look(&mut piece.to_vec())).is_ok() {
                let _ = watch.reason();
            }
        }
    }
}
