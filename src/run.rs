//! `millpond run`: the roles that a configuration file declares.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_proxy::config::ProxyConfig;
use millpond_shared::version::ShardId;
use millpond_shared::wire::Changes;
use prometheus::Registry;
use tokio::runtime::Runtime;

use crate::Failure;
use crate::admin::Admin;
use crate::config::Config;
use crate::logging;
use crate::process::{self, Ready, Signals, Stop};
use crate::roles::{self, ProxyParts, Roles, Sockets};

#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration file. SIGHUP reads it again and swaps rules and certificates; SIGTERM drains and ends.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn main(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::read(&arguments.config)?;
    logging::start(config.log.format, &config.log.level);
    if config.proxy.is_none() {
        process::leave_huge_pages();
    }
    let mut running = Running::start(config)?;
    let signals = Signals::listen(running.runtime())?;
    running.say_ready();
    let told = running.until_told(signals, |running| reload(&arguments.config, running));
    running.stop()?;
    told
}

/// A process with all its roles.
pub struct Running {
    runtime: Runtime,
    stop: Stop,
    roles: Roles,
    proxy: Option<ProxyParts>,
    front: Option<std::thread::JoinHandle<()>>,
    admin: Option<tokio::task::JoinHandle<()>>,
    sockets: Vec<Ready>,
    pub registry: Registry,
}

impl Running {
    /// Binds, opens, starts, in this order.
    pub fn start(mut config: Config) -> Result<Running, Failure> {
        let mut sockets = Sockets::bind(&config)?;
        let ready = sockets.ready();
        let (runtime, stop, registry) = (process::runtime()?, Stop::new(), Registry::new());
        let roles = Roles::start(&config, &mut sockets, &runtime, &registry, &stop)?;
        let mut running =
            Running { runtime, stop, roles, proxy: None, front: None, admin: None, sockets: ready, registry };
        if let (Some(proxy), Some(listeners)) = (config.proxy.take(), sockets.proxy.take()) {
            let settings: ProxyConfig = proxy.config.clone();
            let parts = roles::start_proxy(proxy, &config, &running.roles, &running.runtime, &running.registry)?;
            let (gateway, observer) = (Arc::clone(&parts.gateway), Arc::clone(&parts.observer));
            let (tls, stop) = (parts.tls.clone(), running.stop.watch_front());
            running.front = Some(process::spawn_front(gateway, observer, listeners, tls, &settings, stop)?);
            running.proxy = Some(parts);
        }
        if let Some(listener) = sockets.admin.take() {
            let proxy = running.proxy.as_ref().map(|parts| (Arc::clone(&parts.gateway), Arc::clone(&parts.observer)));
            let (registry, ready) = (running.registry.clone(), Arc::clone(&running.stop.ready));
            let token = config.admin.as_mut().and_then(|admin| admin.token.take());
            let queues = running.roles.queues();
            let admin = Admin { registry, proxy, queues, ready, token };
            let stop = running.stop.watch();
            running.admin = Some(process::spawn_server(&running.runtime, listener, Arc::new(admin), stop)?);
        }
        running.stop.ready.store(true, Ordering::Release);
        Ok(running)
    }

    pub fn say_ready(&self) {
        self.sockets.iter().for_each(Ready::say);
    }

    /// Address of the first socket of a role that speaks cleartext.
    pub fn address(&self, role: &str) -> Option<std::net::SocketAddr> {
        let found = self.sockets.iter().find(|ready| ready.role == role && ready.scheme == "http");
        found.map(|ready| ready.address)
    }

    /// The change streams of the shards in this process, and the shards.
    pub fn changes(&self) -> Option<(Arc<dyn Changes>, Vec<ShardId>)> {
        self.roles.changes()
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Runs until a signal to stop comes, or a role fails.
    pub fn until_told(&mut self, signals: Signals, mut reload: impl FnMut(&Reloading<'_>)) -> Result<(), Failure> {
        let Running { runtime, roles, proxy, .. } = self;
        runtime.block_on(async {
            let failed = roles.take_failures();
            let roles = &*roles;
            let reloading = Reloading { proxy: proxy.as_ref(), roles };
            signals.until_told(|| reload(&reloading), failed).await
        })
    }

    /// Drains: the proxy first, so that clients are served to the end, then the rest.
    pub fn stop(self) -> Result<(), Failure> {
        self.stop.front();
        if let Some(front) = self.front {
            front.join().map_err(|_| Failure::Failed("the front panicked".to_owned()))?;
        }
        if let Some(proxy) = &self.proxy {
            proxy.observer.close();
        }
        self.stop.rest();
        self.runtime.block_on(async {
            self.roles.stopped().await;
            if let Some(admin) = self.admin {
                let _ = admin.await;
            }
        });
        Ok(())
    }
}

/// What a reload needs.
pub struct Reloading<'a> {
    proxy: Option<&'a ProxyParts>,
    roles: &'a Roles,
}

/// Reads the file again. Rules, origins and certificates are swapped whole, or the old ones keep serving.
fn reload(path: &Path, running: &Reloading<'_>) {
    let Some(parts) = running.proxy else {
        tracing::warn!("nothing to reload: this process has no [proxy]");
        return;
    };
    let swapped = Config::read(path).and_then(|mut config| match config.proxy.take() {
        Some(proxy) => roles::swap_rules(parts, proxy, &config, running.roles),
        None => Err(Failure::Refused(format!("{}: [proxy] is gone", path.display()))),
    });
    parts.observer.reloaded(swapped.is_ok());
    match swapped {
        Ok(()) => tracing::info!(file = %path.display(), "rules reloaded"),
        Err(refused) => {
            tracing::error!(file = %path.display(), "reload refused, the old rules keep serving:\n{refused}")
        }
    }
}
