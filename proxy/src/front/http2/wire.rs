//! The connection as `h2` reads and writes it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::front::reply::WRITE_TIMEOUT;

/// Bytes that are gathered before they are written, at most.
const GATHERED_MAX: usize = 64 * 1024;
/// Room made for them at least.
const GATHERED_MIN: usize = 1024;

/// A stream that gathers what is written to it, with bytes that were read from it already.
///
/// `h2` flushes after every frame. Where many requests come in one read, their answers would otherwise leave in as many
/// writes, and over TLS in as many records.
pub(super) struct Wire {
    stream: Stream,
    /// Read before HTTP/2 was known to be spoken.
    read: BytesMut,
    gathered: Vec<u8>,
    /// How much of `gathered` was written.
    written: usize,
    /// How much was gathered the last time: the memory is given back in between, since most connections are idle.
    expected: usize,
    corked: Arc<AtomicBool>,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// While it is in, a flush writes nothing.
pub(super) struct Cork(Arc<AtomicBool>);

impl Cork {
    pub fn put_in(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The next flush writes what was gathered.
    pub fn pull(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Wire {
    pub fn new(stream: Stream, read: BytesMut) -> (Wire, Cork) {
        let corked = Arc::new(AtomicBool::new(false));
        let cork = Cork(Arc::clone(&corked));
        let (gathered, written, expected) = (Vec::new(), 0, GATHERED_MIN);
        (Wire { stream, read, gathered, written, expected, corked, stalled: None }, cork)
    }

    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.gathered.get(self.written..) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.written += written;
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_stalled(cx),
            }
        }
        if self.written > 0 {
            self.expected = self.written.max(GATHERED_MIN);
            (self.gathered, self.written) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// A client that takes nothing for too long is cut off.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(self.expected);
        }
        self.gathered.extend_from_slice(bytes);
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let count = self.read.len().min(into.remaining());
        into.put_slice(self.read.get(..count).unwrap_or_default());
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= GATHERED_MAX {
            ready!(self.poll_write_gathered(cx))?;
        }
        slices.iter().for_each(|slice| self.gather(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.corked.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_write_gathered(cx))?;
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.poll_stalled(cx),
            flushed => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
