//! The sockets of a process.

use std::net::{SocketAddr, TcpListener};

use millpond_proxy::front::Listeners;

use crate::Failure;
use crate::config::Config;
use crate::process::{self, Ready};

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
        let proxy = config.proxy.as_ref().map(|proxy| Listeners::bind(&proxy.config.listen, &proxy.config.tls_listen));
        Ok(Sockets {
            proxy: proxy.transpose().map_err(Failure::from_display)?,
            admin: bind(config.admin.as_ref().map(|admin| admin.listen))?,
            ingest: bind(config.ingest.as_ref().and_then(|ingest| ingest.listen))?,
            queue: bind(config.queue.as_ref().and_then(|queue| queue.listen))?,
            shards: bind(config.shards.as_ref().and_then(|shards| shards.listen))?,
        })
    }

    /// Every socket that is served.
    pub fn ready(&self) -> Vec<Ready> {
        let single =
            [(&self.admin, "admin"), (&self.queue, "queue"), (&self.ingest, "ingest"), (&self.shards, "shards")];
        let single = single.into_iter().filter_map(|(listener, role)| {
            let address = listener.as_ref()?.local_addr().ok()?;
            Some(Ready { scheme: "http", address, role })
        });
        let proxy = self.proxy.iter().flat_map(Listeners::addresses);
        single.chain(proxy.map(|(scheme, address)| Ready { scheme, address, role: "proxy" })).collect()
    }
}
