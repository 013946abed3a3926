//! What all parts of the queue role share, on either engine: its limits, its clock, its end.

use std::sync::Arc;
use std::time::Duration;

use millpond_shared::clock;
use tokio::sync::watch;

use super::{Limits, QueueError, QueueMetrics};
use crate::timing;

/// How the queues are run.
pub struct Options {
    pub limits: Limits,
    /// Milliseconds since the Unix epoch: what leases and windows are measured by.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for Options {
    fn default() -> Options {
        Options { limits: Limits::default(), clock: Arc::new(clock::wall_ms) }
    }
}

/// What all parts of the role share.
#[derive(Clone)]
pub(super) struct Runtime {
    pub limits: Limits,
    pub metrics: QueueMetrics,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    failure: watch::Sender<Option<QueueError>>,
    ending: watch::Sender<bool>,
}

impl Runtime {
    pub fn new(options: Options, metrics: QueueMetrics) -> Runtime {
        Runtime {
            limits: options.limits,
            metrics,
            clock: options.clock,
            failure: watch::channel(None).0,
            ending: watch::channel(false).0,
        }
    }

    /// Whether waits are to end.
    pub fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Ends all waits, and those to come.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Resolves once waits are to end.
    pub async fn ended(&self) {
        let mut ending = self.ending.subscribe();
        // The sender is a field of this: it can't be gone.
        let _ = ending.wait_for(|ending| *ending).await;
    }

    /// Resolves when the role has failed.
    pub async fn failed(&self) -> QueueError {
        let mut failure = self.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        failed.ok().and_then(|failure| failure.clone()).unwrap_or(QueueError::Closed)
    }

    pub fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Waits up to `wait` for the value to be as wished; false if it did not become so.
    pub async fn wait_for<T>(
        &self,
        value: &mut watch::Receiver<T>,
        wish: impl FnMut(&T) -> bool,
        wait: Duration,
    ) -> Result<bool, QueueError> {
        tokio::select! {
            biased;
            wished = value.wait_for(wish) => wished.map(|_| true).map_err(|_| QueueError::Closed),
            () = self.ended() => Err(QueueError::Closed),
            () = timing::sleep(wait) => Ok(false),
        }
    }

    /// Tells whoever runs the role that it is over.
    pub fn fail(&self, error: QueueError) {
        tracing::error!(%error, "the queue role has failed");
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(error);
            first
        });
    }
}
