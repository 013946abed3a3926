//! Certificates made for a test, and a client that speaks TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A self-signed certificate and its key.
pub struct Made {
    pub cert: String,
    pub key: String,
    pub der: CertificateDer<'static>,
}

impl Made {
    pub fn for_names(names: &[&str]) -> Made {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        Made { cert: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
    }

    /// The same, valid until 2001-02-03.
    pub fn expired(names: &[&str]) -> Made {
        let mut params = params(names);
        params.not_after = rcgen::date_time_ymd(2001, 2, 3);
        Made::of(&params)
    }

    /// The same, issued by somebody of this name: by itself.
    pub fn issued_by(issuer: &str, names: &[&str]) -> Made {
        let mut params = params(names);
        params.distinguished_name.push(rcgen::DnType::CommonName, issuer);
        Made::of(&params)
    }

    fn of(params: &rcgen::CertificateParams) -> Made {
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        Made { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
    }

    /// As `NAME.pem` and `NAME.key`.
    pub fn write(&self, dir: &Path, name: &str) {
        std::fs::write(dir.join(format!("{name}.pem")), &self.cert).expect("the folder can be written");
        std::fs::write(dir.join(format!("{name}.key")), &self.key).expect("the folder can be written");
    }
}

fn params(names: &[&str]) -> rcgen::CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    rcgen::CertificateParams::new(names).expect("names")
}

/// A client that trusts some certificates, and offers some protocols by ALPN.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    pub fn trusting(certificates: &[&Made], protocols: &[&str]) -> TlsClient {
        TlsClient::with_versions(certificates, protocols, rustls::DEFAULT_VERSIONS)
    }

    pub fn with_versions(
        certificates: &[&Made],
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsClient {
        let mut roots = RootCertStore::empty();
        certificates.iter().for_each(|made| roots.add(made.der.clone()).expect("a certificate"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions that ring knows")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsClient { config: Arc::new(config) }
    }

    /// Shakes hands, asking for the server `name`.
    pub async fn connect(&self, to: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        self.over(stream, name).await
    }

    /// The same on a connection that is there.
    pub async fn over(&self, stream: TcpStream, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }
}

/// The certificate that the server showed.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().expect("the server showed one");
    chain.first().expect("the server showed one").clone()
}
