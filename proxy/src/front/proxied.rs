//! The PROXY head of a connection from a balancer, before TLS or HTTP is spoken on it.

use std::net::SocketAddr;
use std::time::Duration;

use pingora_core::protocols::Stream;
use pingora_core::protocols::l4::stream::Stream as TcpStream;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::connection::Around;
use super::deadline::Waits;
use crate::observe::ConnectionRefused;
use crate::proxy_protocol::{self, Malformed, Told};

/// How much is read at a time, in bytes: enough for all heads but those with many additions.
const READ_BYTES: usize = 512;

/// The connection behind the head, and its client's address. `peer`: the balancer's. `None`: it is to be closed.
pub(super) async fn introduced(
    around: &Around,
    stream: Stream,
    peer: SocketAddr,
) -> Option<(Stream, Option<SocketAddr>)> {
    let mut stream = stream.into_any().downcast::<TcpStream>().ok()?;
    let limit = Duration::from_millis(Waits::Head.limit());
    let read = tokio::select! {
        read = timeout(limit, read_head(&mut *stream)) => read,
        () = around.drain.wait() => return None,
    };
    let problem = match read.unwrap_or(Err(Unread::Malformed(TOO_SLOW))) {
        Ok((told, behind)) => {
            stream.rewind(&behind);
            let client = match told {
                Told::Nothing => Some(peer),
                Told::Address(address) => Some(address),
                Told::Unix => None,
            };
            return Some((stream, client));
        }
        // It only wanted to know whether somebody listens.
        Err(Unread::Nothing) => return None,
        Err(Unread::Malformed(problem)) => problem,
    };
    around.observer.connection_refused(ConnectionRefused::ProxyProtocol);
    tracing::warn!(%peer, %problem, "a connection without a good PROXY head was closed");
    None
}

const TOO_SLOW: Malformed = Malformed("it took longer than 10 seconds");
const CUT: Malformed = Malformed("the connection ended within it");

/// Why there is no head.
enum Unread {
    /// Nothing at all was sent.
    Nothing,
    Malformed(Malformed),
}

/// What the head tells, and the bytes that were read behind it.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Told, Vec<u8>), Unread> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    loop {
        if let Some((told, length)) = proxy_protocol::head(&bytes).map_err(Unread::Malformed)? {
            return Ok((told, bytes.split_off(length)));
        }
        bytes.reserve(READ_BYTES);
        match stream.read_buf(&mut bytes).await {
            Ok(1..) => {}
            Ok(0) | Err(_) if bytes.is_empty() => return Err(Unread::Nothing),
            Ok(0) | Err(_) => return Err(Unread::Malformed(CUT)),
        }
    }
}
