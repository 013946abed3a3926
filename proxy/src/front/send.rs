//! Writes a buffer and the body behind it, as far as the socket takes them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Bodies up to this size, in bytes, are copied behind their head for one write; larger ones are written in place.
pub(super) const COPY_MAX: usize = 16 * 1024;

/// Writes `output` and then `body`, and takes off them what was written. Ready: all of it is on its way.
pub(super) fn poll_send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    output: &mut BytesMut,
    body: &mut Bytes,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !output.is_empty() || !body.is_empty() {
        let stream = Pin::new(&mut *stream);
        let written = match (output.is_empty(), body.is_empty()) {
            (false, true) => ready!(stream.poll_write(cx, output))?,
            (true, _) => ready!(stream.poll_write(cx, body))?,
            (false, false) => ready!(stream.poll_write_vectored(cx, &[IoSlice::new(output), IoSlice::new(body)]))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_output = written.min(output.len());
        if of_output == output.len() {
            // Keeps its room, other than to advance.
            output.clear();
        } else {
            output.advance(of_output);
        }
        body.advance(written - of_output);
    }
    Pin::new(stream).poll_flush(cx)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes at each write, and has no room before every other one.
    struct Narrow {
        taken: Vec<u8>,
        at_once: usize,
        full: bool,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.full = !self.full;
            if self.full {
                return Poll::Pending;
            }
            let length = bytes.len().min(self.at_once);
            self.taken.extend_from_slice(bytes.get(..length).unwrap_or_default());
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn nothing_is_lost_or_sent_twice_however_narrow_the_socket() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for at_once in [1, 2, 3, 5, 8, 100] {
            let mut socket = Narrow { taken: Vec::new(), at_once, full: false };
            let (mut output, mut body) = (BytesMut::from("head."), Bytes::from_static(b"the body"));
            let mut polls = 0;
            while poll_send(&mut socket, &mut output, &mut body, &mut cx).is_pending() {
                polls += 1;
                assert!(polls < 100);
            }
            assert_eq!(socket.taken, b"head.the body", "{at_once} at once");
            assert!(output.is_empty() && body.is_empty());
        }
    }
}
