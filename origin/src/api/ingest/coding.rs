//! Content codings of request bodies: gzip (RFC 1952) and zstd (RFC 8878), undone within bounds (pure).

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

use crate::http::NoRoom;

/// How many times its own size a body may become, beyond [`GIVEN_FREE`]; what grows more is answered 413. Ordinary JSON
/// stays below 50.
const RATIO_MAX: u64 = 250;
/// What any body may become beyond that, in bytes.
const GIVEN_FREE: u64 = 1 << 20;
/// Largest window of a zstd frame, as a power of two: 8 MiB, which RFC 8878 §3.1.1.1.2 recommends decoders to take.
const WINDOW_LOG_MAX: u32 = 23;
/// How much is undone in one step.
const STEP_BYTES: usize = 4 << 10;
/// What one step of zstd may give.
const GIVEN_BYTES: usize = 64 << 10;

/// A content coding that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// Why a body can't be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDecoded {
    /// It is not what its coding says, or ends too early.
    Broken(&'static str),
    /// It becomes more than is allowed.
    TooLarge,
    /// It becomes more than there is memory for now.
    NoRoom(NoRoom),
}

impl Coding {
    /// By the value of `Content-Encoding`; `None`: it is not understood here.
    pub fn of(text: &str) -> Option<Coding> {
        let is = |name: &str| text.eq_ignore_ascii_case(name);
        match text.trim() {
            "" => Some(Coding::Identity),
            _ if is("identity") => Some(Coding::Identity),
            _ if is("gzip") || is("x-gzip") => Some(Coding::Gzip),
            _ if is("zstd") => Some(Coding::Zstd),
            _ => None,
        }
    }

    /// Undoes a whole body. `may_be` judges, again and again, what it has become so far, in bytes.
    pub fn decode(
        self,
        body: Bytes,
        mut may_be: impl FnMut(u64) -> Result<(), NotDecoded>,
    ) -> Result<Bytes, NotDecoded> {
        if self == Coding::Identity {
            return Ok(body);
        }
        let mut decoder = Decoder::new(self)?;
        let mut whole = Vec::new();
        for step in body.chunks(STEP_BYTES) {
            whole.append(&mut decoder.push(step)?);
            may_be(whole.len() as u64)?;
        }
        whole.append(&mut decoder.end()?);
        may_be(whole.len() as u64)?;
        Ok(Bytes::from(whole))
    }
}

/// Undoes a body as it arrives.
pub struct Decoder {
    kind: Kind,
    /// Bytes that may yet come out.
    room: u64,
}

enum Kind {
    Identity,
    Gzip(Box<MultiGzDecoder<Sink>>),
    Zstd { decoder: Box<ZstdDecoder<'static>>, in_frame: bool },
}

const BROKEN: NotDecoded = NotDecoded::Broken("is not what its Content-Encoding says");
const CUT: NotDecoded = NotDecoded::Broken("ends before what its Content-Encoding says");

impl Decoder {
    pub fn new(coding: Coding) -> Result<Decoder, NotDecoded> {
        let kind = match coding {
            Coding::Identity => Kind::Identity,
            Coding::Gzip => Kind::Gzip(Box::new(MultiGzDecoder::new(Sink::default()))),
            Coding::Zstd => {
                let mut decoder = ZstdDecoder::new().map_err(|_| BROKEN)?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(|_| BROKEN)?;
                Kind::Zstd { decoder: Box::new(decoder), in_frame: false }
            }
        };
        Ok(Decoder { kind, room: GIVEN_FREE })
    }

    /// What comes out of the next bytes, which are at most some ten thousand.
    pub fn push(&mut self, input: &[u8]) -> Result<Vec<u8>, NotDecoded> {
        self.room = self.room.saturating_add((input.len() as u64).saturating_mul(RATIO_MAX));
        let given = match &mut self.kind {
            Kind::Identity => return Ok(input.to_vec()),
            Kind::Gzip(decoder) => {
                decoder.get_mut().room = usize::try_from(self.room).unwrap_or(usize::MAX);
                let written = decoder.write_all(input);
                let sink = decoder.get_mut();
                match written {
                    Ok(()) => std::mem::take(&mut sink.given),
                    Err(_) if sink.full => return Err(NotDecoded::TooLarge),
                    Err(_) => return Err(BROKEN),
                }
            }
            Kind::Zstd { decoder, in_frame } => unzstd(decoder, in_frame, input, self.room)?,
        };
        self.room = self.room.saturating_sub(given.len() as u64);
        Ok(given)
    }

    /// The rest of it. An error if the body was cut.
    pub fn end(self) -> Result<Vec<u8>, NotDecoded> {
        match self.kind {
            Kind::Identity => Ok(Vec::new()),
            Kind::Gzip(mut decoder) => {
                decoder.get_mut().room = usize::try_from(self.room).unwrap_or(usize::MAX);
                let ended = decoder.try_finish();
                let sink = decoder.get_mut();
                match ended {
                    Ok(()) => Ok(std::mem::take(&mut sink.given)),
                    Err(_) if sink.full => Err(NotDecoded::TooLarge),
                    Err(_) => Err(CUT),
                }
            }
            Kind::Zstd { in_frame: true, .. } => Err(CUT),
            Kind::Zstd { .. } => Ok(Vec::new()),
        }
    }
}

fn unzstd(
    decoder: &mut ZstdDecoder<'static>,
    in_frame: &mut bool,
    mut input: &[u8],
    room: u64,
) -> Result<Vec<u8>, NotDecoded> {
    let mut given = Vec::new();
    let mut step = vec![0; GIVEN_BYTES];
    loop {
        let status = decoder.run_on_buffers(input, &mut step).map_err(|_| BROKEN)?;
        given.extend_from_slice(step.get(..status.bytes_written).unwrap_or_default());
        if given.len() as u64 > room {
            return Err(NotDecoded::TooLarge);
        }
        input = input.get(status.bytes_read..).unwrap_or_default();
        if status.bytes_read > 0 || status.bytes_written > 0 {
            *in_frame = status.remaining > 0;
        }
        // A full buffer may have more behind it, although all of the input is in.
        if input.is_empty() && status.bytes_written < GIVEN_BYTES {
            return Ok(given);
        }
    }
}

/// Where gzip puts what comes out, as much as there is room for.
#[derive(Default)]
struct Sink {
    given: Vec<u8>,
    room: usize,
    full: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.given.len() + bytes.len() > self.room {
            self.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.given.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd_of(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).unwrap()
    }

    fn at_most(max: usize) -> impl FnMut(u64) -> Result<(), NotDecoded> {
        move |bytes| if bytes > max as u64 { Err(NotDecoded::TooLarge) } else { Ok(()) }
    }

    type Encode = fn(&[u8]) -> Vec<u8>;

    const CODINGS: [(Coding, Encode); 2] = [(Coding::Gzip, gzip), (Coding::Zstd, zstd_of)];

    fn pushed(coding: Coding, bytes: &[u8], step: usize) -> Result<Vec<u8>, NotDecoded> {
        let mut decoder = Decoder::new(coding)?;
        let mut whole = Vec::new();
        for step in bytes.chunks(step) {
            whole.extend(decoder.push(step)?);
        }
        whole.extend(decoder.end()?);
        Ok(whole)
    }

    #[test]
    fn names() {
        for (text, coding) in [
            ("", Some(Coding::Identity)),
            ("Identity", Some(Coding::Identity)),
            ("GZIP", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("zstd", Some(Coding::Zstd)),
            ("br", None),
            ("gzip, zstd", None),
        ] {
            assert_eq!(Coding::of(text), coding, "{text}");
        }
    }

    #[test]
    fn bodies_come_back_however_they_are_cut() {
        let text: Vec<u8> =
            (0..60_000u32).flat_map(|n| format!("{{\"n\":{}}}\n", n * 7919 % 4093).into_bytes()).collect();
        for (coding, encode) in CODINGS {
            let encoded = encode(&text);
            for step in [1, 7, 1000, STEP_BYTES] {
                assert_eq!(pushed(coding, &encoded, step).as_deref(), Ok(text.as_slice()), "{coding:?} {step}");
            }
            let twice = [encoded.as_slice(), &encode(b"more")].concat();
            let both = [text.as_slice(), b"more"].concat();
            assert_eq!(pushed(coding, &twice, 512), Ok(both), "{coding:?}: a body may have several members");
            assert_eq!(coding.decode(encoded.clone().into(), at_most(text.len())), Ok(Bytes::from(text.clone())));
            assert_eq!(coding.decode(encoded.into(), at_most(1000)), Err(NotDecoded::TooLarge));
        }
    }

    #[test]
    fn what_is_cut_or_broken_is_told() {
        for (coding, encode) in CODINGS {
            let encoded = encode(b"some text, some text, some text");
            for cut in 1..encoded.len() {
                let cut = pushed(coding, &encoded[..cut], 5);
                assert!(matches!(cut, Err(NotDecoded::Broken(_))), "{coding:?}: {cut:?}");
            }
            let mut broken = encoded.clone();
            broken[0] ^= 0xff;
            assert!(matches!(pushed(coding, &broken, 5), Err(NotDecoded::Broken(_))), "{coding:?}");
        }
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let bomb = vec![0; 64 << 20];
        for (coding, encode) in CODINGS {
            let encoded = encode(&bomb);
            assert!(encoded.len() < 100_000, "{coding:?}");
            assert_eq!(pushed(coding, &encoded, STEP_BYTES), Err(NotDecoded::TooLarge), "{coding:?}");
            assert_eq!(coding.decode(encoded.into(), at_most(usize::MAX)), Err(NotDecoded::TooLarge), "{coding:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes: Vec<u8>, zstd: bool) {
            let coding = if zstd { Coding::Zstd } else { Coding::Gzip };
            let _ = pushed(coding, &bytes, 16);
        }
    }
}
