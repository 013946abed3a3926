//! The front in pingora: its server, its listeners, its runtime.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use millpond_shared::listening;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::ListenerConfig;
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{ListenFds, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora_core::services::Service as PingoraService;
use pingora_core::services::listening::Service as ListeningService;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::connection::{self, Around, Arrival, Drain};
use super::{http2, proxied, secure};
use crate::config::ProxyConfig;
use crate::gateway::Gateway;
use crate::limits::{ClientId, Connections, Entered, Entry};
use crate::observe::{ConnectionRefused, Observer};
use crate::tls::Tls;

/// Sockets that are bound but not yet served: what can fail has failed before anything runs.
pub struct Listeners {
    cleartext: Vec<Listener>,
    tls: Vec<Listener>,
}

/// A bound socket, and its address with the real port.
type Listener = (SocketAddr, TcpListener);

impl Listeners {
    /// Binds every address; the error names the one that failed. `tls`: those where TLS is spoken.
    pub fn bind(cleartext: &[SocketAddr], tls: &[SocketAddr]) -> io::Result<Listeners> {
        let bind = |address: &SocketAddr| {
            let listener = listening::bind(*address)?;
            Ok((listener.local_addr()?, listener))
        };
        let bind_all = |addresses: &[SocketAddr]| addresses.iter().map(bind).collect::<io::Result<_>>();
        Ok(Listeners { cleartext: bind_all(cleartext)?, tls: bind_all(tls)? })
    }

    /// The addresses with their real ports, each with its scheme.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let cleartext = self.cleartext.iter().map(|(address, _)| ("http", *address));
        cleartext.chain(self.tls.iter().map(|(address, _)| ("https", *address)))
    }
}

/// The application: every connection runs the loop of the HTTP version that its client speaks.
#[derive(Clone)]
pub struct Front {
    around: Arc<Around>,
    /// `Some` on listeners where it is spoken.
    tls: Option<Tls>,
    open: Arc<Open>,
}

/// Connections that are open.
#[derive(Default)]
struct Open {
    count: AtomicUsize,
    none: Notify,
}

impl Front {
    pub fn new(gateway: Arc<Gateway>, observer: Arc<Observer>, config: &ProxyConfig) -> Front {
        let connections = config.connections_max.map(|max| Arc::new(Connections::new(max)));
        let (balancers, drain) = (config.proxy_protocol.clone(), Drain::default());
        let around = Around { gateway, observer, balancers, connections, drain };
        Front { around: Arc::new(around), tls: None, open: Arc::default() }
    }

    /// Counts a connection. `None`: its client has as many as it may, and over cleartext is told so.
    fn enter(&self, stream: Stream, peer: Option<SocketAddr>, open: OpenGuard) -> Option<(Stream, Counted)> {
        let Some(connections) = &self.around.connections else { return Some((stream, (open, None))) };
        let entered = connections.enter(ClientId::of(peer.map(|peer| peer.ip())));
        if let Entered::Open(entry) = entered {
            return Some((stream, (open, Some(entry))));
        }
        self.around.observer.connection_refused(ConnectionRefused::TooMany);
        if let (Entered::Refused(entry), None) = (entered, &self.tls) {
            let around = Arc::clone(&self.around);
            tokio::spawn(async move {
                connection::refuse(&around, stream, Arrival { scheme: "http", peer }).await;
                drop((open, entry));
            });
        }
        None
    }
}

/// A connection is counted until these are dropped.
type Counted = (OpenGuard, Option<Entry>);

#[async_trait]
impl ServerApp for Front {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let (around, open) = (Arc::clone(&self.around), OpenGuard::new(&self.open));
        let (stream, peer) = match connection::peer_of(&stream) {
            Some(peer) if around.is_balancer(peer.ip()) => proxied::introduced(&around, stream, peer).await?,
            peer => (stream, peer),
        };
        let (stream, counted) = self.enter(stream, peer, open)?;
        let (stream, scheme) = match &self.tls {
            Some(tls) => (secure::handshake(tls, stream, &around.drain).await?, "https"),
            None => (stream, "http"),
        };
        let arrival = Arrival { scheme, peer };
        // A task of its own: the one that pingora has begun has room for a handshake, and takes 9 KB to its end.
        tokio::spawn(async move {
            let chose_http2 = stream.selected_alpn_proto() == Some(ALPN::H2);
            let speaks_http2 = match chose_http2 {
                true => Some((stream, BytesMut::new())),
                false => connection::run(&around, stream, arrival).await,
            };
            if let Some((stream, read)) = speaks_http2 {
                // Boxed: a connection that speaks HTTP/1.1 should not have room for it.
                Box::pin(http2::serve(&around, stream, read, arrival)).await;
            }
            drop(counted);
        });
        None
    }
}

struct OpenGuard(Arc<Open>);

impl OpenGuard {
    fn new(open: &Arc<Open>) -> OpenGuard {
        open.count.fetch_add(1, Ordering::AcqRel);
        OpenGuard(Arc::clone(open))
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

/// How the front stops.
pub struct Draining {
    /// Becomes true when the front is to stop.
    pub stop: watch::Receiver<bool>,
    /// Longest that open requests get to finish.
    pub limit: Duration,
}

/// Serves until `draining.stop`, then lets open requests finish. Blocks the calling thread. `tls`: for the listeners
/// where it is spoken, which are closed without it.
pub fn serve(front: Front, listeners: Listeners, tls: Option<Tls>, threads: usize, draining: Draining) {
    let conf = ServerConf {
        threads,
        // One runtime per worker, each connection stays where it was accepted.
        work_stealing: false,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let (open, around) = (Arc::clone(&front.open), Arc::clone(&front.around));
    let mut services = vec![Bound::new(front.clone(), listeners.cleartext)];
    services.extend(tls.map(|tls| Bound::new(Front { tls: Some(tls), ..front }, listeners.tls)));
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.add_service(Services { services, stop: draining.stop.clone(), around });
    server.run(RunArgs { shutdown_signal: Box::new(Drained { draining, open }) });
}

/// A listening service on sockets that are bound already.
struct Bound {
    listening: ListeningService<Front>,
    listeners: Vec<Listener>,
}

impl Bound {
    fn new(front: Front, listeners: Vec<Listener>) -> Bound {
        let mut listening = ListeningService::new("front".to_owned(), front);
        for (address, _) in &listeners {
            // Reads and writes go through buffers of our own.
            let config = ListenerConfig::tcp(address.to_string()).l4_buffer(L4BufferSettings::unbuffered());
            listening.add_listener(config);
        }
        Bound { listening, listeners }
    }
}

/// The listening services on one set of workers, told to stop by us and not by pingora's signals.
struct Services {
    services: Vec<Bound>,
    stop: watch::Receiver<bool>,
    around: Arc<Around>,
}

#[async_trait]
impl PingoraService for Services {
    async fn start_service(&mut self, fds: Option<ListenFds>, _: ShutdownWatch, listeners_per_fd: usize) {
        let (mut stop, around) = (self.stop.clone(), Arc::clone(&self.around));
        tokio::spawn(async move {
            // A dropped sender means stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
            around.drain.begin();
        });
        let running = self.services.iter_mut().map(|Bound { listening, listeners }| {
            if let Some(fds) = &fds {
                for (address, listener) in listeners.drain(..) {
                    fds.lock().add(address.to_string(), listener.into_raw_fd());
                }
            }
            PingoraService::start_service(listening, fds.clone(), self.stop.clone(), listeners_per_fd)
        });
        futures_util::future::join_all(running).await;
    }

    fn name(&self) -> &str {
        "front"
    }
}

/// Tells pingora to stop once the connections are done, or time is up.
struct Drained {
    draining: Draining,
    open: Arc<Open>,
}

#[async_trait]
impl ShutdownSignalWatch for Drained {
    async fn recv(&self) -> ShutdownSignal {
        let mut stop = self.draining.stop.clone();
        // A dropped sender means stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
        let idle = async {
            loop {
                let none = self.open.none.notified();
                tokio::pin!(none);
                none.as_mut().enable();
                if self.open.count.load(Ordering::Acquire) == 0 {
                    return;
                }
                none.await;
            }
        };
        if timeout(self.draining.limit, idle).await.is_err() {
            let open = self.open.count.load(Ordering::Acquire);
            tracing::warn!(open, "connections did not end in time and are closed");
        }
        ShutdownSignal::FastShutdown
    }
}
