//! The front: accepts clients on pingora's listeners and reads their requests.
//!
//! `connection` is the HTTP/1.1 loop of one client, `reply` writes its answers, `http2` is the same for HTTP/2;
//! `secure` is the TLS handshake; `service` hosts all of it in pingora.

mod connection;
mod http2;
mod reply;
mod secure;
mod service;

pub use service::{Draining, Front, Listeners, serve};
