//! Work that blocks, done apart from the async workers.

use tokio::task::JoinError;

/// Does `work` on a thread that may block. It is done to its end even if nobody waits for it any more.
///
/// Fails if the work panics, or if the process is stopping.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    #[cfg(test)]
    if crate::simulation::Simulation::is_running() {
        return Ok(crate::simulation::Simulation::apart(work).await);
    }
    tokio::task::spawn_blocking(work).await
}
