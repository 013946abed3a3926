//! Bytes into content codings. What it costs is the caller's to bound: nothing here waits, or knows of requests.

use std::io::{self, Write};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::write::GzEncoder;

use crate::semantics::coding::Coding;

/// How hard to try with what is made once and kept: tens of MB a second, and near what the levels above save.
const GZIP_LEVEL: u32 = 6;
const BROTLI_QUALITY: u32 = 6;
/// Looks back no farther than the 8 MiB that the coding allows (RFC 9659).
const ZSTD_LEVEL: i32 = 9;
/// Base-2 logarithm of the bytes that Brotli looks back: 4 MiB.
const BROTLI_WINDOW: u32 = 22;
/// Bytes that Brotli hands on at a time.
const BROTLI_BUFFER: usize = 4096;

/// `body` in a coding, in memory of its own size; `None` if it would have more than `max` bytes.
pub fn compressed(coding: Coding, body: &[u8], max: usize) -> Option<Bytes> {
    let sink = Sink { bytes: Vec::new(), max };
    let sink = match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(sink, flate2::Compression::new(GZIP_LEVEL));
            encoder.write_all(body).ok()?;
            encoder.finish().ok()?
        }
        Coding::Brotli => {
            let mut encoder = CompressorWriter::new(sink, BROTLI_BUFFER, BROTLI_QUALITY, BROTLI_WINDOW);
            encoder.write_all(body).ok()?;
            // It keeps to itself whether the sink took the end.
            encoder.into_inner()
        }
        Coding::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(sink, ZSTD_LEVEL).ok()?;
            encoder.write_all(body).ok()?;
            encoder.finish().ok()?
        }
    };
    (sink.bytes.len() <= max).then(|| sink.bytes.into_boxed_slice().into())
}

/// Where what comes out goes: refuses more once it has more than `max` bytes.
struct Sink {
    bytes: Vec<u8>,
    max: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() > self.max {
            return Err(io::Error::other("it does not get smaller"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn decompressed(coding: Coding, body: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let read = match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(body).read_to_end(&mut plain),
            Coding::Brotli => brotli::Decompressor::new(body, BROTLI_BUFFER).read_to_end(&mut plain),
            Coding::Zstd => {
                zstd::stream::read::Decoder::new(body).and_then(|mut decoder| decoder.read_to_end(&mut plain))
            }
        };
        assert_eq!(read.expect("it can be read"), plain.len());
        plain
    }

    fn text(length: usize) -> Vec<u8> {
        (0..).flat_map(|number: u32| format!("{{\"number\":{number}}},").into_bytes()).take(length).collect()
    }

    #[test]
    fn what_is_compressed_is_smaller_and_the_same() {
        for length in [0, 1, 1000, 300_000] {
            let plain = text(length);
            for coding in Coding::ALL {
                let coded = compressed(coding, &plain, usize::MAX).expect("there is no limit");
                assert_eq!(decompressed(coding, &coded), plain, "{coding:?}");
                assert!(length < 1000 || coded.len() < length / 2, "{coding:?} {length} {}", coded.len());
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_given_up() {
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let noise: Vec<u8> = noise.take(300_000).collect();
        for coding in Coding::ALL {
            assert_eq!(compressed(coding, &noise, noise.len() - 1), None, "{coding:?}");
            let coded = compressed(coding, &text(5000), 4999).expect("it gets smaller");
            assert!(compressed(coding, &text(5000), coded.len()).is_some(), "{coding:?}: the limit is allowed");
            assert_eq!(compressed(coding, &text(5000), coded.len() - 1), None, "{coding:?}");
        }
    }
}
