//! What tests act with. Nothing here shares code with the program it tests.
//!
//! `process` runs the program as a child, `producers` one with all roles for those who post; `client` speaks HTTP/1.1 to it over
//! a plain socket, `http2` HTTP/2; `certificates` makes some, and speaks TLS; `origin` is an ordinary HTTP server that does
//! what the test tells it, `tls_origin` puts TLS in front of it; `witness` compares what the program told of the same requests
//! in headers, metrics and log; `metrics` reads `/metrics`; `pipeline` runs the examples of `config/` in one process or in one
//! for each role, `nats` the server that some of them need, `postgres` the database that documents are sent to; `relay` is a
//! wire between two of them that can be slow, dead or cut, `disk` a disk that can be full; `random` is chance that can be
//! told again.
//!
//! Nobody sleeps to let something happen: a test waits for a line, a request, a gate, or polls with [`eventually`].

pub mod certificates;
pub mod client;
pub mod disk;
pub mod http2;
pub mod metrics;
pub mod nats;
pub mod origin;
pub mod pipeline;
pub mod postgres;
pub mod process;
pub mod producers;
pub mod random;
pub mod relay;
pub mod tls_origin;
pub mod witness;

use std::time::Duration;

use millpond_shared::clock;

/// Longest that anything a test waits for may take. Far more than it does take, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that can only be polled.
const PAUSE: Duration = Duration::from_millis(10);

/// Polls until `probe` gives `Ok`; fails with what was seen last.
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let began = clock::monotonic();
    loop {
        match probe() {
            Ok(found) => return found,
            Err(seen) if began.elapsed() > PATIENCE => panic!("waited {PATIENCE:?} for {what}; last seen: {seen}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
