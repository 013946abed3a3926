//! Answers on their way to the client.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{HeaderMap, Method, Response, StatusCode, header};
use millpond_shared::http1::{self, Minor, RequestHead};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::connection::{Connection, READ_BYTES};
use super::end::End;

impl Connection {
    pub(super) async fn write_full(
        &mut self,
        method: &Method,
        response: &Response<Bytes>,
        stays: bool,
    ) -> Result<(), End> {
        let mut out = BytesMut::with_capacity(256 + response.body().len());
        put_head(&mut out, response.status(), response.headers(), stays);
        let bodiless = bodiless(response.status());
        if !bodiless {
            let length = match response.headers().get(header::CONTENT_LENGTH) {
                Some(length) if *method == Method::HEAD && response.body().is_empty() => length.to_str().ok(),
                _ => None,
            };
            let length = length.and_then(|length| length.parse().ok()).unwrap_or(response.body().len() as u64);
            http1::put_field_number(&mut out, "content-length", length);
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless && *method != Method::HEAD {
            out.extend_from_slice(response.body());
        }
        self.write(&out).await
    }

    pub(super) async fn write_stream(
        &mut self,
        head: &RequestHead,
        parts: http::response::Parts,
        mut pieces: BoxStream<'static, Bytes>,
        stays: bool,
    ) -> Result<(), End> {
        let chunked = head.minor == Minor::One;
        let mut out = BytesMut::new();
        put_head(&mut out, parts.status, &parts.headers, stays);
        if chunked {
            http1::put_field(&mut out, "transfer-encoding", "chunked");
        }
        out.extend_from_slice(b"\r\n");
        self.write(&out).await?;
        if head.method == Method::HEAD || bodiless(parts.status) {
            return Ok(());
        }
        while let Some(piece) = self.next_piece(&mut pieces).await? {
            out.clear();
            if chunked {
                http1::put_chunk(&mut out, &piece);
            } else {
                out.extend_from_slice(&piece);
            }
            self.write(&out).await?;
        }
        if chunked { self.write(http1::LAST_CHUNK).await } else { Ok(()) }
    }

    /// The next piece of a streamed answer. Ends the connection when the client leaves or the server shuts down: a
    /// stream that was cut must not look complete.
    async fn next_piece(&mut self, pieces: &mut BoxStream<'static, Bytes>) -> Result<Option<Bytes>, End> {
        loop {
            // A client that sends its next request meanwhile is not read beyond a buffer of it.
            let reads = self.buf.len() < READ_BYTES;
            let (stream, buf, shutdown) = (&mut self.stream, &mut self.buf, &mut self.shutdown);
            if reads {
                buf.reserve(READ_BYTES);
            }
            tokio::select! {
                piece = pieces.next() => return Ok(piece),
                read = stream.read_buf(buf), if reads => match read {
                    Ok(1..) => {}
                    _ => return Err(End::Closed),
                },
                _ = shutdown.wait_for(|down| *down) => return Err(End::Closed),
            }
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        match timeout(self.shared.limits.write_time, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Closed),
        }
    }

    /// Reads on for a moment after the last answer: closing with unread bytes would reset the connection, and the
    /// client might never see why.
    pub(super) async fn linger(&mut self) {
        let _ = self.stream.shutdown().await;
        let mut left = LINGER_BYTES;
        let drained = async {
            let mut rest = [0; 4096];
            while left > 0 {
                match self.stream.read(&mut rest).await {
                    Ok(read @ 1..) => left = left.saturating_sub(read),
                    _ => break,
                }
            }
        };
        let _ = timeout(LINGER_TIME, drained).await;
    }
}

/// The bytes of an answer after which the connection is closed.
pub(super) fn encode_last(response: &Response<Bytes>) -> BytesMut {
    let mut out = BytesMut::new();
    put_head(&mut out, response.status(), response.headers(), false);
    http1::put_field_number(&mut out, "content-length", response.body().len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(response.body());
    out
}

/// Most that is read and thrown away after a refusal.
const LINGER_BYTES: usize = 16 << 20;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Status line and fields, without those that are the connection's business, and without the empty line.
fn put_head(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap, stays: bool) {
    http1::put_status_line(out, status);
    for (name, value) in headers {
        if ![header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH].contains(name) {
            http1::put_field(out, name.as_str(), value.as_bytes());
        }
    }
    if !stays {
        http1::put_field(out, "connection", "close");
    }
}

fn bodiless(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}
