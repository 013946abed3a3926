//! TLS. For clients: versions 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, certificates by server name, sessions resumed
//! by ticket. Certificates are swapped whole while connections are open.
//!
//! `certificate` reads and judges one certificate with its key; `certificates` chooses among several. `origin` is the
//! other side: how servers of origins are verified.

mod certificate;
mod certificates;
mod origin;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub use certificate::{Certificate, Part, Unusable};
pub use certificates::Certificates;
pub(crate) use origin::in_words;
pub use origin::{Authorities, NoAuthorities, OriginTls};

/// What the proxy's TLS listeners share. Clones show the same certificates.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
}

impl Tls {
    pub fn new(certificates: Certificates) -> Result<Tls, rustls::Error> {
        let shown = Arc::new(Shown(ArcSwap::from_pointee(certificates)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Their keys change every six hours and are in memory only: a session never outlives the process.
        config.ticketer = ring::Ticketer::new()?;
        Ok(Tls { config: Arc::new(config), shown })
    }

    /// Shows these from the next handshake on.
    pub fn swap(&self, certificates: Certificates) {
        self.shown.0.store(Arc::new(certificates));
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

#[derive(Debug)]
struct Shown(ArcSwap<Certificates>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().choose(hello.server_name(), hello.signature_schemes())
    }
}
