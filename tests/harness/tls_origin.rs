//! TLS in front of a scripted origin.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::certificates::Made;
use super::origin::ScriptedOrigin;
use super::process::lock;

/// Listens on a port of its own, and hands what it decrypts to the origin.
pub struct TlsOrigin {
    address: SocketAddr,
    shaken: Arc<Mutex<Vec<Shaken>>>,
    _runtime: Runtime,
}

/// A handshake that succeeded.
#[derive(Clone, Debug)]
pub struct Shaken {
    /// Whom the client asked for, if it asked for a name.
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub version: Option<ProtocolVersion>,
    pub kind: Option<HandshakeKind>,
    /// The client showed a certificate.
    pub knows_client: bool,
}

impl TlsOrigin {
    pub fn before(origin: &ScriptedOrigin, made: &Made) -> TlsOrigin {
        TlsOrigin::with(origin, made, rustls::DEFAULT_VERSIONS, None)
    }

    /// `client`: the certificate that the client has to show.
    pub fn with(
        origin: &ScriptedOrigin,
        made: &Made,
        versions: &[&'static SupportedProtocolVersion],
        client: Option<&Made>,
    ) -> TlsOrigin {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
        let builder = builder.expect("versions that ring knows");
        let builder = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let mut roots = RootCertStore::empty();
                roots.add(client.der.clone()).expect("a certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.expect("an authority"))
            }
        };
        let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).expect("a key");
        let mut config = builder.with_single_cert(vec![made.der.clone()], key).expect("they belong together");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shaken = Arc::<Mutex<Vec<Shaken>>>::default();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        runtime.spawn(serve(listener, acceptor, origin.address(), Arc::clone(&shaken)));
        TlsOrigin { address, shaken, _runtime: runtime }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The handshakes that succeeded, in their order.
    pub fn shaken(&self) -> Vec<Shaken> {
        lock(&self.shaken).clone()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, origin: SocketAddr, shaken: Arc<Mutex<Vec<Shaken>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shaken) = (acceptor.clone(), Arc::clone(&shaken));
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let connection = stream.get_ref().1;
            lock(&shaken).push(Shaken {
                name: connection.server_name().map(str::to_owned),
                protocol: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
                version: connection.protocol_version(),
                kind: connection.handshake_kind(),
                knows_client: connection.peer_certificates().is_some(),
            });
            let Ok(mut origin) = TcpStream::connect(origin).await else { return };
            // Either side may break off.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut origin).await;
        });
    }
}
