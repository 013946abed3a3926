//! One connection to a server: bytes out, bytes in, each within its time.

use std::fmt::Debug;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use millpond_shared::http1::{Limits, ResponseHead, take_response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::OriginError;
use super::buffers::{self, BUFFER_BYTES};
use super::timer::{Deadline, Elapsed, Timer};

/// Longest that an origin may stay silent, before its head and between pieces of its body; then 504, or a cut body.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
const RESPONSE_LIMITS: Limits = Limits { head_bytes: 64 * 1024, fields: 128, target_bytes: 0 };

/// What a connection goes over: a TCP socket, or whatever encrypts on top of one.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin + Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + Debug> Transport for T {}

#[derive(Debug)]
pub(super) struct Connection {
    pub stream: Box<dyn Transport>,
    /// What was read and not yet used. Without memory while there is nothing.
    pub buf: BytesMut,
    timer: Timer,
}

impl Connection {
    pub fn new(stream: impl Transport + 'static) -> Connection {
        Connection { stream: Box::new(stream), buf: BytesMut::new(), timer: Timer::default() }
    }

    /// Writes all of `bytes`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), OriginError> {
        let Connection { stream, timer, .. } = self;
        let mut written = 0;
        let all = |context: &mut Context<'_>| {
            while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
                match ready!(Pin::new(&mut *stream).poll_write(context, rest)) {
                    Ok(count @ 1..) => written += count,
                    Ok(0) | Err(_) => return Poll::Ready(Err(OriginError::Closed)),
                }
            }
            Pin::new(&mut *stream).poll_flush(context).map_err(|_| OriginError::Closed)
        };
        let result = timer.wait(&mut Deadline::within(SILENCE_TIMEOUT), all).await;
        result.unwrap_or(Err(OriginError::Timeout))
    }

    /// The first head that is not 1xx.
    pub async fn final_head(&mut self) -> Result<ResponseHead, OriginError> {
        // In all: an origin that drips bytes does not keep its waiters for ever.
        let mut deadline = Deadline::within(SILENCE_TIMEOUT);
        loop {
            // Before the first read there is nothing to look at.
            if !self.buf.is_empty()
                && let Some(head) = final_in(&mut self.buf)?
            {
                return Ok(head);
            }
            if self.fill_by(&mut deadline).await? == 0 {
                let cut = !self.buf.is_empty();
                return Err(if cut { OriginError::Malformed("it ends within its head") } else { OriginError::Closed });
            }
        }
    }

    /// Reads some bytes into `buf`; 0 at the end.
    pub async fn fill(&mut self) -> Result<usize, OriginError> {
        self.fill_by(&mut Deadline::within(SILENCE_TIMEOUT)).await
    }

    async fn fill_by(&mut self, deadline: &mut Deadline) -> Result<usize, OriginError> {
        let Connection { stream, buf, timer } = self;
        let read = |context: &mut Context<'_>| {
            if !buf.is_empty() {
                buf.reserve(BUFFER_BYTES);
            } else if !buf.try_reclaim(BUFFER_BYTES) {
                *buf = buffers::take();
            }
            let read = pin!(stream.read_buf(buf)).poll(context);
            if buf.is_empty() {
                // It waits, or was closed.
                buffers::give_back(std::mem::take(buf));
            }
            read
        };
        match timer.wait(deadline, read).await {
            Err(Elapsed) => Err(OriginError::Timeout),
            // A reset is no end: what came before it may be short.
            Ok(Err(_)) => Err(OriginError::Closed),
            Ok(Ok(read)) => Ok(read),
        }
    }

    /// Whether nothing came from the server: neither a byte, which nobody asked for, nor the end, nor an error.
    ///
    /// Costs no system call as long as the runtime knows of nothing; a close that it has not seen yet shows when the
    /// next request gets no answer.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        let read = pin!(tokio::task::unconstrained(std::future::poll_fn(|context| {
            Pin::new(&mut self.stream).poll_read(context, &mut byte)
        })));
        read.poll(&mut context).is_pending()
    }
}

/// Takes heads off the buffer up to the first that is not 1xx.
pub(super) fn final_in(buf: &mut BytesMut) -> Result<Option<ResponseHead>, OriginError> {
    loop {
        match take_response(buf, &RESPONSE_LIMITS) {
            Err(refusal) => return Err(OriginError::Malformed(refusal.why)),
            Ok(None) => return Ok(None),
            Ok(Some(head)) if head.status.as_u16() == 101 => {
                return Err(OriginError::Malformed("it switches protocols unasked"));
            }
            Ok(Some(head)) if head.status.is_informational() => {}
            Ok(Some(head)) => return Ok(Some(head)),
        }
    }
}
