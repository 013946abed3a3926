//! The TLS handshake with a client.

use std::time::Duration;

use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::Stream;
use pingora_core::protocols::l4::stream::Stream as TcpStream;
use tokio::time::timeout;

use super::connection::Drain;
use crate::tls::Tls;

/// How long a handshake may take; then the connection is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The stream with TLS on it. `None`: the client erred, was too slow, or the proxy drains.
///
/// Not pingora's own handshake, which waits for a minute, logs every scanner as an error, and takes no settings for
/// tickets.
pub(super) async fn handshake(tls: &Tls, stream: Stream, drain: &Drain) -> Option<Stream> {
    let stream = stream.into_any().downcast::<TcpStream>().ok()?;
    let acceptor = Acceptor::from_server_config(tls.config());
    tokio::select! {
        shaken = timeout(HANDSHAKE_TIMEOUT, acceptor.tls_handshake(*stream)) => match shaken {
            Ok(Ok(stream)) => Some(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => None,
        },
        () = drain.wait() => None,
    }
}
