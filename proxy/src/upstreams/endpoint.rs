//! A server of an origin: where it is, and how it is spoken to.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond_shared::http1::Authority;
pub use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use crate::tls::{OriginTls, in_words};

/// Longest that connecting may take, with the handshake where TLS is spoken; then the server counts as dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A server as it is written: `host:port`, `http://host[:port]` or `https://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Whether TLS is spoken, if that is said.
    pub tls: Option<bool>,
    host: String,
    port: Option<u16>,
}

/// Why a text names no server, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLocation {
    pub problem: &'static str,
    pub fix: &'static str,
}

impl FromStr for Location {
    type Err = NoLocation;

    fn from_str(text: &str) -> Result<Location, NoLocation> {
        let (tls, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) => (Some(false), rest),
            Some(("https", rest)) => (Some(true), rest),
            Some(_) => {
                let problem = "has a scheme that is neither http nor https";
                return Err(NoLocation { problem, fix: "write HOST:PORT, or https://HOST" });
            }
        };
        let rest = rest.strip_suffix('/').filter(|_| tls.is_some()).unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            let problem = "says more than a host and a port";
            return Err(NoLocation { problem, fix: "write it without path and user: HOST:PORT, or https://HOST" });
        }
        if rest.is_empty() || rest.starts_with(':') {
            let fix = "name the host, as in \"127.0.0.1:9000\" or \"https://api.example.com\"";
            return Err(NoLocation { problem: "has no host", fix });
        }
        let malformed = NoLocation {
            problem: "is no host and port",
            fix: "write HOST:PORT, as in \"127.0.0.1:9000\", or a URL, as in \"https://api.example.com\"",
        };
        let authority = Authority::parse(rest).ok_or(malformed)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port();
        if port == Some(0) || (port.is_none() && tls.is_none()) {
            let fix = "add a port, as in \"127.0.0.1:9000\"; only URLs have one of their own";
            return Err(NoLocation { problem: "has no port", fix });
        }
        Ok(Location { tls, host, port })
    }
}

impl Location {
    /// Its first address. A name for both families, as localhost is, more often means a server on IPv4 only.
    pub fn look_up(&self) -> io::Result<Option<SocketAddr>> {
        let default = if self.tls == Some(true) { 443 } else { 80 };
        let found: Vec<SocketAddr> = (self.host.as_str(), self.port.unwrap_or(default)).to_socket_addrs()?.collect();
        Ok(found.iter().find(|address| address.is_ipv4()).or(found.first()).copied())
    }

    /// The name that its certificate has to be for, unless another is given. `None`: no certificate can be for it.
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        server_name(&self.host)
    }
}

/// A name or an address that a certificate can be for; `None`: it can't.
pub fn server_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

/// A server that can be connected to.
#[derive(Clone, Debug)]
pub struct Endpoint {
    address: SocketAddr,
    tls: Option<Secured>,
}

#[derive(Clone, Debug)]
struct Secured {
    tls: OriginTls,
    name: ServerName<'static>,
    /// Of all in this process; 0 is what is not secured.
    number: u64,
}

/// Connections to the same place can take each other's. Those with TLS are to the same place if the same certificate
/// was asked of them, and the same shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    address: SocketAddr,
    secured: u64,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint { address, tls: None }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Endpoint {
    /// A server that has to show a certificate for `name`.
    pub fn secured(address: SocketAddr, tls: &OriginTls, name: ServerName<'static>) -> Endpoint {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Endpoint { address, tls: Some(Secured { tls: tls.clone(), name, number }) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn place(&self) -> Place {
        Place { address: self.address, secured: self.tls.as_ref().map_or(0, |secured| secured.number) }
    }

    /// A new connection. The error is in words, and begins with the address.
    pub(super) async fn connect(&self) -> Result<Connection, String> {
        let too_slow = || format!("no connection within {} seconds", CONNECT_TIMEOUT.as_secs());
        let connected = timeout(CONNECT_TIMEOUT, self.connect_at_leisure()).await;
        connected.unwrap_or_else(|_| Err(too_slow())).map_err(|problem| format!("{}: {problem}", self.address))
    }

    async fn connect_at_leisure(&self) -> Result<Connection, String> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        let stream = stream.map_err(|error| error.to_string())?;
        let Some(Secured { tls, name, .. }) = &self.tls else { return Ok(Connection::new(stream)) };
        match TlsConnector::from(tls.config()).connect(name.clone(), stream).await {
            Ok(stream) => Ok(Connection::new(stream)),
            Err(error) => Err(format!("TLS: {}", why(&error))),
        }
    }
}

fn why(error: &io::Error) -> String {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(error) => in_words(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "it closed within the handshake".to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Authorities;

    #[test]
    fn servers_as_they_are_written() {
        for (text, tls, host, port) in [
            ("127.0.0.1:9000", None, "127.0.0.1", Some(9000)),
            ("api.example.com:80", None, "api.example.com", Some(80)),
            ("[::1]:9000", None, "::1", Some(9000)),
            ("http://a", Some(false), "a", None),
            ("https://A.example/", Some(true), "a.example", None),
            ("https://[2001:db8::1]:8443", Some(true), "2001:db8::1", Some(8443)),
        ] {
            assert_eq!(text.parse(), Ok(Location { tls, host: host.to_owned(), port }), "{text}");
        }
        for (text, problem) in [
            ("", "no host"),
            (":9000", "no host"),
            ("https://", "no host"),
            ("https://:443", "no host"),
            ("a", "no port"),
            ("[::1]", "no port"),
            ("a:0", "no port"),
            ("a:", "no host and port"),
            ("a:65536", "no host and port"),
            ("::1:80", "no host"),
            ("a b:80", "no host and port"),
            ("ftp://a", "neither http nor https"),
            ("HTTPS://a", "neither http nor https"),
            ("https://a/b", "more than a host"),
            ("https://a?b", "more than a host"),
            ("https://me@a", "more than a host"),
            ("a:80/", "more than a host"),
        ] {
            let told = text.parse::<Location>().expect_err(text);
            assert!(told.problem.contains(problem), "{text}: {}", told.problem);
        }
    }

    #[test]
    fn a_port_that_is_not_written_is_that_of_the_scheme() {
        for (text, port) in [("http://127.0.0.1", 80), ("https://127.0.0.1", 443), ("https://127.0.0.1:80", 80)] {
            let location: Location = text.parse().expect(text);
            let found = location.look_up().expect("no look-up needed").expect("an address");
            assert_eq!(found, SocketAddr::from(([127, 0, 0, 1], port)));
        }
    }

    #[test]
    fn a_certificate_is_asked_for_a_name_or_an_address() {
        let name = |text: &str| text.parse::<Location>().expect(text).server_name();
        assert!(matches!(name("https://a.example"), Some(ServerName::DnsName(_))));
        assert!(matches!(name("https://[::1]"), Some(ServerName::IpAddress(_))));
        assert!(matches!(name("127.0.0.1:443"), Some(ServerName::IpAddress(_))));
        assert_eq!(name("https://a..example"), None);
        assert!(server_name("").is_none() && server_name("*.example").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_shakes_hands_is_given_up_in_time() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("a certificate");
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).expect("written");
        let authorities = Authorities::read(&dir.path().join("ca.pem")).expect("good");
        let tls = OriginTls::new(authorities, None).expect("good");
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = silent.local_addr().expect("it is bound");
        let endpoint = Endpoint::secured(address, &tls, server_name("a.example").expect("a name"));
        let problem = endpoint.connect().await.map(|_| ()).expect_err("nobody answers");
        assert_eq!(problem, format!("{address}: no connection within 3 seconds"));
    }
}
