//! The dispatcher: takes events from event queues and files them in the queues of the shards they concern.
//!
//! One task for each event queue (`work`): claim it, then take → `route` → push, again and again. How much is routed in
//! one go is decided by `round`. Who may work is decided by leases (`hold` is the holder's side); what may be written is
//! decided by the queue role, which refuses a push under an old token and a round that does not follow the last. So any
//! number of dispatchers may run.

mod hold;
mod metrics;
mod round;
mod route;
#[cfg(test)]
mod tests;
mod work;

pub use route::{Routed, Routing};
pub use work::{Dispatcher, DispatcherSettings};
