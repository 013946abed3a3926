//! The front: accepts clients on pingora's listeners and reads their requests.
//!
//! `service` hosts the loop in pingora, `connection` is the HTTP/1.1 loop of one client. `hot` answers hits at once, with
//! `familiar` (heads that need no parsing), `send` and `deadline`; `reply` writes what the gateway answers.

mod connection;
mod deadline;
mod familiar;
mod hot;
mod reply;
mod send;
mod service;

pub use service::{Draining, Front, Listeners, serve};
