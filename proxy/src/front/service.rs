//! The front in pingora: its server, its listeners, its runtime.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::ListenerConfig;
use pingora_core::protocols::Stream;
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{ListenFds, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora_core::services::Service as PingoraService;
use pingora_core::services::listening::Service as ListeningService;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::connection::{self, Around, Drain};
use crate::gateway::Gateway;
use crate::observe::Observer;

/// Sockets that are bound but not yet served: what can fail has failed before anything runs.
pub struct Listeners {
    bound: Vec<(SocketAddr, TcpListener)>,
}

impl Listeners {
    /// Binds every address; the error names the one that failed.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Listeners> {
        let bind = |address: &SocketAddr| {
            let listener = TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
            Ok((listener.local_addr()?, listener))
        };
        Ok(Listeners { bound: addresses.iter().map(bind).collect::<io::Result<_>>()? })
    }

    /// The addresses with their real ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.bound.iter().map(|(address, _)| *address).collect()
    }
}

/// The application: every connection runs the HTTP/1.1 loop.
pub struct Front {
    around: Arc<Around>,
    open: Arc<Open>,
}

/// Connections that are open.
#[derive(Default)]
struct Open {
    count: AtomicUsize,
    none: Notify,
}

impl Front {
    pub fn new(gateway: Arc<Gateway>, observer: Arc<Observer>) -> Front {
        let around = Around { gateway, observer, drain: Drain::default() };
        Front { around: Arc::new(around), open: Arc::default() }
    }
}

#[async_trait]
impl ServerApp for Front {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let (around, open) = (Arc::clone(&self.around), OpenGuard::new(&self.open));
        // A task of its own: the one that pingora has begun has room for a handshake, and takes 9 KB to its end.
        tokio::spawn(async move {
            connection::run(&around, stream, "http").await;
            drop(open);
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

/// Serves until `draining.stop`, then lets open requests finish. Blocks the calling thread.
pub fn serve(front: Front, listeners: Listeners, threads: usize, draining: Draining) {
    let conf = ServerConf {
        threads,
        // One runtime per worker, each connection stays where it was accepted.
        work_stealing: false,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let (open, around) = (Arc::clone(&front.open), Arc::clone(&front.around));
    let mut listening = ListeningService::new("front".to_owned(), front);
    for (address, _) in &listeners.bound {
        // Reads and writes go through buffers of our own.
        let config = ListenerConfig::tcp(address.to_string()).l4_buffer(L4BufferSettings::unbuffered());
        listening.add_listener(config);
    }
    let bound = Bound { listening, listeners: listeners.bound, stop: draining.stop.clone(), around };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.add_service(bound);
    server.run(RunArgs { shutdown_signal: Box::new(Drained { draining, open }) });
}

/// The listening service on sockets that are bound already, told to stop by us and not by pingora's signals.
struct Bound {
    listening: ListeningService<Front>,
    listeners: Vec<(SocketAddr, TcpListener)>,
    stop: watch::Receiver<bool>,
    around: Arc<Around>,
}

#[async_trait]
impl PingoraService for Bound {
    async fn start_service(&mut self, fds: Option<ListenFds>, _: ShutdownWatch, listeners_per_fd: usize) {
        if let Some(fds) = &fds {
            for (address, listener) in self.listeners.drain(..) {
                fds.lock().add(address.to_string(), listener.into_raw_fd());
            }
        }
        let (mut stop, around) = (self.stop.clone(), Arc::clone(&self.around));
        tokio::spawn(async move {
            // A dropped sender means stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
            around.drain.begin();
        });
        PingoraService::start_service(&mut self.listening, fds, self.stop.clone(), listeners_per_fd).await;
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
