//! Flights: one fetch per key, however many ask for it.
//!
//! The one who comes first leads; the others wait. A fill, once its body is worth sharing, is its own task and never
//! the leader's: every client, the leader included, reads from the flight's log. Until a stale response can be done
//! without, the head is held back, so that a fill that dies can still mean that response. The end of a body exists only in
//! [`Phase::Complete`], so a fill that dies can never look like a short answer.

mod filler;
mod log;
mod table;
#[cfg(test)]
mod tests;

pub use filler::Filler;
pub use log::{Draft, Flight, Piece, Reader, Seen, Turn, Waiting};
pub use table::{Flights, Join, Lead, Limits};
