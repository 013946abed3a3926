//! The connection as `h2` reads and writes it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use ::h2::Reason;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::watch::Watch;
use crate::front::connection::{LINGER_BYTES, LINGER_TIMEOUT};
use crate::front::reply::WRITE_TIMEOUT;

/// Bytes that are gathered before they are written, at most.
const GATHERED_MAX: usize = 64 * 1024;
/// Room made for them at least.
const GATHERED_MIN: usize = 1024;
/// A GOAWAY without debug data (RFC 9113 §6.8): its head, the last stream, a code.
const GOAWAY_HEAD: [u8; 9] = [0, 0, 8, 7, 0, 0, 0, 0, 0];
const GOAWAY_BYTES: usize = 17;

/// A stream that gathers what is written to it, with bytes that were read from it already.
///
/// `h2` flushes after every frame. Where many requests come in one read, their answers would otherwise leave in as many
/// writes, and over TLS in as many records.
///
/// What comes is watched, so that a client that errs is told by what name (`watch`).
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
    /// Runs once everything is said and our side is closed.
    lingering: Option<Lingering>,
    watch: Watch,
    /// The client erred in a way that `h2` does not see, and was told.
    ended: bool,
}

/// What is read and thrown away so that the client gets to see the last words instead of a reset.
struct Lingering {
    left: usize,
    until: Pin<Box<Sleep>>,
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
        let (stalled, lingering, watch, ended) = (None, None, Watch::new(), false);
        (Wire { stream, read, gathered, written, expected, corked, stalled, lingering, watch, ended }, cork)
    }

    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.name_the_mistake();
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

    /// Where `h2` says goodbye with PROTOCOL_ERROR, says what RFC 9113 calls the mistake. Nothing follows a goodbye.
    fn name_the_mistake(&mut self) {
        let Some(at) = self.gathered.len().checked_sub(GOAWAY_BYTES).filter(|at| *at >= self.written) else { return };
        let Some(goaway) = self.gathered.get_mut(at..) else { return };
        if goaway.starts_with(&GOAWAY_HEAD)
            && let Some((_, code)) = goaway.split_last_chunk_mut()
            && *code == u32::from(Reason::PROTOCOL_ERROR).to_be_bytes()
        {
            *code = u32::from(self.watch.reason()).to_be_bytes();
        }
    }

    /// Ends the connection with this code.
    fn end(&mut self, reason: Reason) {
        let (last, code) = (self.watch.highest().to_be_bytes(), u32::from(reason).to_be_bytes());
        self.gather(&[&GOAWAY_HEAD[..], &last, &code].concat());
        self.ended = true;
    }

    /// Reads what was read before, and then from the stream.
    fn poll_read_raw(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let count = self.read.len().min(into.remaining());
        into.put_slice(self.read.get(..count).unwrap_or_default());
        self.read.advance(count);
        Poll::Ready(Ok(()))
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
        if !self.ended {
            // More is wanted: all that came was read.
            self.watch.settle();
            let before = into.filled().len();
            ready!(self.poll_read_raw(cx, into))?;
            let came = into.filled_mut().get_mut(before..).unwrap_or_default();
            match self.watch.look(came) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(reason) => self.end(reason),
            }
            into.set_filled(before);
        }
        ready!(self.as_mut().poll_shutdown(cx))?;
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
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
        if self.lingering.is_none() {
            ready!(self.poll_write_gathered(cx))?;
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        let Wire { stream, lingering, .. } = &mut *self;
        let until = || Lingering { left: LINGER_BYTES, until: Box::pin(sleep(LINGER_TIMEOUT)) };
        lingering.get_or_insert_with(until).poll(stream, cx).map(Ok)
    }
}

impl Lingering {
    fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        let mut thrown_away = [0; 1024];
        while self.left > 0 && self.until.as_mut().poll(cx).is_pending() {
            let mut into = ReadBuf::new(&mut thrown_away);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() => self.left = self.left.saturating_sub(into.filled().len()),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// A client that takes `room` bytes, and more as it reads.
    fn wire(room: usize) -> (Wire, Cork, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(room);
        let (wire, cork) = Wire::new(Box::new(ours), BytesMut::from("read before"));
        (wire, cork, theirs)
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first() {
        let (mut wire, _cork, mut client) = wire(100);
        client.write_all(b", read after").await.expect("room");
        drop(client);
        let mut read = String::new();
        wire.read_to_string(&mut read).await.expect("text");
        assert_eq!(read, "read before, read after");
    }

    #[tokio::test]
    async fn the_cork_holds_back_until_it_is_pulled() {
        let (mut wire, cork, mut client) = wire(100);
        cork.put_in();
        for part in ["one", "two"] {
            wire.write_all(part.as_bytes()).await.expect("it is gathered");
            wire.flush().await.expect("nothing is written");
        }
        let mut into = [0; 100];
        assert!(first_poll(client.read(&mut into)).await.is_none(), "nothing has come");
        cork.pull();
        wire.flush().await.expect("room");
        assert_eq!(client.read(&mut into).await.expect("bytes"), 6, "both in one write");
    }

    /// What a future gives at its first poll.
    async fn first_poll<F: Future>(future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_off_in_time_and_one_that_takes_a_little_is_not() {
        let (mut wire, _cork, mut client) = wire(10);
        wire.write_all(&[b'x'; 40]).await.expect("it is gathered");
        let slow = async {
            let mut into = [0; 10];
            for _ in 0..3 {
                tokio::time::sleep(WRITE_TIMEOUT - Duration::from_secs(1)).await;
                client.read_exact(&mut into).await.expect("bytes");
            }
        };
        let (flushed, ()) = tokio::join!(wire.flush(), slow);
        assert!(flushed.is_ok());
        wire.write_all(&[b'x'; 40]).await.expect("it is gathered");
        let stalled = wire.flush().await.expect_err("nobody reads");
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_client_still_sends_is_read_before_it_is_closed() {
        let (mut wire, _cork, mut client) = wire(100);
        wire.write_all(b"last words").await.expect("it is gathered");
        let closing = wire.shutdown();
        let client_side = async {
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.expect("our side is closed");
            for _ in 0..3 {
                client.write_all(&[b'x'; 100]).await.expect("somebody reads");
            }
            // It does not close its side.
            (read, client)
        };
        let (closed, (read, _client)) = tokio::join!(closing, client_side);
        assert_eq!((closed.is_ok(), read), (true, b"last words".to_vec()));
    }
}
