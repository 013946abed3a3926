//! Sockets that take connections.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::SockRef;

/// Connections that may wait to be accepted, if the system lets so many (`net.core.somaxconn` on Linux, 4096 as a rule).
/// The standard library asks for 128: when more come at once, as they do after a restart, the kernel drops the rest; these
/// try again a second later, or are reset.
const BACKLOG: i32 = 4096;

/// Listens on `address`, without blocking. The error names the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        // A second time, which changes the backlog and nothing else.
        SockRef::from(&listener).listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_of_connections_waits_to_be_accepted() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
        let allowed = allowed.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(128);
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        let waiting: Vec<TcpStream> = (0..allowed.min(500)).map(connect).collect();
        for client in waiting {
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer, client.local_addr().unwrap(), "in the order in which they came");
        }
    }

    #[test]
    fn the_error_names_the_address() {
        let held = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let taken = held.local_addr().unwrap();
        let told = bind(taken).unwrap_err().to_string();
        assert!(told.starts_with(&format!("cannot listen on {taken}: ")), "{told}");
    }
}
