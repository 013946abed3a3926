//! How often, and how many at a time: limits of requests by client or for a whole rule, and of connections by client.
//!
//! `rate` (pure) is the token bucket; `client` says who counts as one client; `table` remembers clients in bounded
//! memory; [`Limiter`] is the limit of one rule, and `connections` that of the front.

mod client;
mod connections;
mod limiter;
mod rate;
mod table;

pub use client::ClientId;
pub use connections::{Connections, Entered, Entry};
pub use limiter::{Limit, Limiter, Over, Per, Permit};
pub use rate::{REQUESTS_MAX, Rate};
