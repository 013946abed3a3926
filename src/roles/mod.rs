//! Starts the roles that a configuration declares, and joins them: roles of one process call each other, roles of
//! different processes speak over the wire; the code of the roles does not know which.
//!
//! `sockets` binds everything before anything starts; `origin` runs ingest, queue, dispatcher and shards; `proxy` builds
//! the proxy on top of them.

mod origin;
mod proxy;
mod sockets;

pub use origin::Roles;
pub use proxy::{ProxyParts, start_proxy, swap_rules};
pub use sockets::Sockets;
