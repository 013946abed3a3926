//! One process: its runtime, its signals, and the order in which things start and stop.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use millpond_origin::http::Handler;
use millpond_proxy::config::ProxyConfig;
use millpond_proxy::front::{self, Draining, Front, Listeners};
use millpond_proxy::gateway::Gateway;
use millpond_proxy::observe::Observer;
use millpond_proxy::tls::{Certificates, Tls};
use millpond_shared::{clock, listening};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::Failure;

/// The runtime of everything but the proxy's front, which has workers of its own.
pub fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("millpond")
        .build()
        .map_err(|error| Failure::Failed(format!("no runtime: {error}")))
}

/// Has the kernel give this process pages of the usual size alone, from here on.
///
/// Documents are many small blocks that come and go: with huge pages more memory is touched than they take, and all of it
/// is cleared first, which is dear on a virtual machine whose host takes free memory back: it was half of what catching up
/// costs (benches/pipeline/RESULTS.md). The store of a proxy gains more by huge pages than it loses: its hits are all over it.
pub fn leave_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
}

/// Binds an address; the error says which.
pub fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    listening::bind(address).map_err(Failure::from_display)
}

/// A socket that is served.
pub struct Ready {
    /// `http` or `https`.
    pub scheme: &'static str,
    pub address: SocketAddr,
    pub role: &'static str,
}

impl Ready {
    /// Says so on stdout.
    pub fn say(&self) {
        let Ready { scheme, address, role } = self;
        println!("ready {scheme}://{address} {role}");
    }
}

/// Tells the process to stop: the proxy's front first, so that clients are served to the end, then the rest.
#[derive(Clone)]
pub struct Stop {
    front: Arc<watch::Sender<bool>>,
    rest: Arc<watch::Sender<bool>>,
    pub ready: Arc<AtomicBool>,
}

impl Stop {
    pub fn new() -> Stop {
        let sender = || Arc::new(watch::channel(false).0);
        Stop { front: sender(), rest: sender(), ready: Arc::new(AtomicBool::new(false)) }
    }

    pub fn watch_front(&self) -> watch::Receiver<bool> {
        self.front.subscribe()
    }

    /// What everything but the front stops by.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.rest.subscribe()
    }

    /// No longer ready; the front drains.
    pub fn front(&self) {
        self.ready.store(false, Ordering::Release);
        self.front.send_replace(true);
    }

    pub fn rest(&self) {
        self.rest.send_replace(true);
    }
}

/// Serves `handler` on a bound listener until told to stop.
pub fn spawn_server(
    runtime: &Runtime,
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    stop: watch::Receiver<bool>,
) -> Result<tokio::task::JoinHandle<()>, Failure> {
    let _entered = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener).map_err(Failure::from_display)?;
    Ok(runtime.spawn(millpond_origin::http::serve(listener, handler, stop)))
}

/// What TLS listeners need, if there is a certificate; warns of those that clients will not take.
pub fn tls(certificates: Option<Certificates>) -> Result<Option<Tls>, Failure> {
    let Some(certificates) = certificates else { return Ok(None) };
    warn_of(&certificates);
    Tls::new(certificates).map(Some).map_err(Failure::from_display)
}

/// Shows other certificates from now on.
pub fn swap_certificates(tls: &Tls, certificates: Certificates) {
    warn_of(&certificates);
    tls.swap(certificates);
}

fn warn_of(certificates: &Certificates) {
    certificates.warnings(clock::wall_secs()).for_each(|warning| tracing::warn!("certificate {warning}"));
}

/// Runs the proxy's front on a thread of its own.
pub fn spawn_front(
    gateway: Arc<Gateway>,
    observer: Arc<Observer>,
    listeners: Listeners,
    tls: Option<Tls>,
    config: &ProxyConfig,
    stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, Failure> {
    let (front, threads, limit) = (Front::new(gateway, observer, config), config.threads, config.drain);
    std::thread::Builder::new()
        .name("front".to_owned())
        .spawn(move || front::serve(front, listeners, tls, threads, Draining { stop, limit }))
        .map_err(Failure::from_display)
}

/// The signals that a process listens to, from before it says that it is ready.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// To be called before anyone is told that the process is ready, and may send one.
    pub fn listen(runtime: &Runtime) -> Result<Signals, Failure> {
        let _entered = runtime.enter();
        let listen = |kind| signal(kind).map_err(Failure::from_display);
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to stop, or for a role to fail; `reload` runs at each SIGHUP. Whatever ends the waiting, one
    /// more signal to stop ends the process at once.
    pub async fn until_told(
        mut self,
        mut reload: impl FnMut(),
        failed: impl Future<Output = String>,
    ) -> Result<(), Failure> {
        tokio::pin!(failed);
        let told = loop {
            tokio::select! {
                _ = self.terminate.recv() => break Ok(()),
                _ = self.interrupt.recv() => break Ok(()),
                _ = self.hang_up.recv() => reload(),
                why = &mut failed => break Err(Failure::Failed(why)),
            }
        };
        tokio::spawn(async move {
            tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
            std::process::exit(130);
        });
        told
    }
}
