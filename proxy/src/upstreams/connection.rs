//! One connection to a server: bytes out, bytes in, each within its time.

use std::fmt::Debug;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use millpond_shared::http1::{Limits, ResponseHead, take_response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::OriginError;
use super::buffers::{self, BUFFER_BYTES};
use super::exchange::Inbound;
use super::timer::{Deadline, Elapsed, Timer};
use crate::rules;

const RESPONSE_LIMITS: Limits = Limits { head_bytes: 64 * 1024, fields: 128, target_bytes: 0 };

/// What a connection goes over: a TCP socket, or whatever encrypts on top of one.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin + Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + Debug> Transport for T {}

#[derive(Debug)]
pub(super) struct Connection {
    pub stream: Box<dyn Transport>,
    /// What was read and not yet used. Without memory while there is nothing.
    pub buf: BytesMut,
    /// Longest that the server may stay silent: before its head, between pieces of its body, while it takes a request.
    pub patience: Duration,
    timer: Timer,
}

impl Connection {
    pub fn new(stream: impl Transport + 'static) -> Connection {
        let (buf, timer) = (BytesMut::new(), Timer::default());
        Connection { stream: Box::new(stream), buf, patience: rules::TIMEOUT, timer }
    }

    /// Writes all of `bytes`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), OriginError> {
        let Connection { stream, timer, patience, .. } = self;
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
        let result = timer.wait(&mut Deadline::within(*patience), all).await;
        result.unwrap_or(Err(OriginError::Timeout))
    }

    /// The first head that is not 1xx; the others are the client's to hear.
    pub async fn final_head(
        &mut self,
        client: &mut Option<&mut (dyn Inbound + '_)>,
    ) -> Result<ResponseHead, OriginError> {
        // In all: an origin that drips bytes does not keep its waiters for ever.
        let mut deadline = Deadline::within(self.patience);
        loop {
            // Before the first read there is nothing to look at.
            while !self.buf.is_empty()
                && let Some(head) = head_in(&mut self.buf)?
            {
                if !head.status.is_informational() {
                    return Ok(head);
                }
                if let Some(client) = client {
                    client.interim(&head).await;
                }
            }
            if self.fill_by(&mut deadline).await? == 0 {
                let cut = !self.buf.is_empty();
                return Err(if cut { OriginError::Malformed("it ends within its head") } else { OriginError::Closed });
            }
        }
    }

    /// Reads some bytes into `buf`; 0 at the end.
    pub async fn fill(&mut self) -> Result<usize, OriginError> {
        self.fill_by(&mut Deadline::within(self.patience)).await
    }

    async fn fill_by(&mut self, deadline: &mut Deadline) -> Result<usize, OriginError> {
        let Connection { stream, buf, timer, .. } = self;
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

/// Takes a head off the buffer, a 1xx or the final one. `Upgrade` is never forwarded, so nobody may switch protocols.
pub(super) fn head_in(buf: &mut BytesMut) -> Result<Option<ResponseHead>, OriginError> {
    match take_response(buf, &RESPONSE_LIMITS) {
        Err(refusal) => Err(OriginError::Malformed(refusal.why)),
        Ok(Some(head)) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
            Err(OriginError::Malformed("it switches protocols unasked"))
        }
        Ok(head) => Ok(head),
    }
}
