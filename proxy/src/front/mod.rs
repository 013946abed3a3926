//! The front: accepts clients on pingora's listeners and reads their requests.
//!
//! `service` hosts the loops in pingora, `proxied` reads what a balancer tells of a connection, `secure` is the TLS handshake, `connection` is the HTTP/1.1 loop of one client.
//! `hot` answers hits at once, with `familiar` (heads that need no parsing), `send` and `deadline`; `reply` writes what the
//! gateway answers. `http2` is all of that for HTTP/2.

mod connection;
mod deadline;
mod familiar;
mod hot;
mod http2;
mod proxied;
mod reply;
mod secure;
mod send;
mod service;

pub use service::{Draining, Front, Listeners, serve};
