//! The front: accepts clients on pingora's listeners and reads their requests.
//!
//! `connection` is the HTTP/1.1 loop of one client, `reply` writes its answers, `service` hosts the loop in pingora.

mod connection;
mod reply;
mod service;

pub use service::{Draining, Front, Listeners, serve};
