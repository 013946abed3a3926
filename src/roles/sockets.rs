//! The sockets of a process.

use std::net::{SocketAddr, TcpListener};

use millpond_proxy::front::Listeners;

use crate::Failure;
use crate::config::Config;
use crate::process;

/// Every socket of the process, bound before anything else happens.
pub struct Sockets {
    pub proxy: Option<Listeners>,
    pub admin: Option<TcpListener>,
    pub(super) ingest: Option<TcpListener>,
    pub(super) queue: Option<TcpListener>,
    pub(super) shards: Option<TcpListener>,
}

impl Sockets {
    pub fn bind(config: &Config) -> Result<Sockets, Failure> {
        let bind = |address: Option<SocketAddr>| address.map(process::bind).transpose();
        let proxy = config.proxy.as_ref().map(|proxy| Listeners::bind(&proxy.config.listen)).transpose();
        Ok(Sockets {
            proxy: proxy.map_err(Failure::from_display)?,
            admin: bind(config.admin)?,
            ingest: bind(config.ingest.as_ref().and_then(|ingest| ingest.listen))?,
            queue: bind(config.queue.as_ref().and_then(|queue| queue.listen))?,
            shards: bind(config.shards.as_ref().and_then(|shards| shards.listen))?,
        })
    }

    /// Says on stdout which socket is served where.
    pub fn addresses(&self) -> Vec<(SocketAddr, &'static str)> {
        let mut all: Vec<(SocketAddr, &'static str)> = Vec::new();
        let single =
            [(&self.admin, "admin"), (&self.queue, "queue"), (&self.ingest, "ingest"), (&self.shards, "shards")];
        for (listener, role) in single {
            all.extend(
                listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(|address| (address, role)),
            );
        }
        let proxy = self.proxy.as_ref().map(Listeners::addresses).unwrap_or_default();
        all.extend(proxy.into_iter().map(|address| (address, "proxy")));
        all
    }
}
