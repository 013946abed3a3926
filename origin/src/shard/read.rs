//! Reading documents: rendered on demand, outside the state's lock, and memoised by version.

use std::sync::Arc;
use std::time::Duration;

use millpond_shared::clock;
use millpond_shared::route::Route;
use millpond_shared::version::{Position, Version};
use tokio::time::timeout;

use super::Shard;
use crate::projection::Document;
use crate::render::{NotRendered, Rendered, render};

/// How long a reader that wants a position is kept waiting for it.
const LEAST_WAIT: Duration = Duration::from_secs(1);
/// From this weight on, in bytes, a document is rendered apart from the async workers: it takes about a millisecond.
const RENDER_INLINE_MAX_BYTES: usize = 256 << 10;

/// What a reader is given.
#[derive(Debug)]
pub struct Read {
    /// The position that the shard had applied.
    pub position: Position,
    pub found: Found,
}

#[derive(Debug)]
pub enum Found {
    Document(Arc<Rendered>),
    /// No event has reached the document; its version is position 0 in the epoch of its slot.
    Nothing(Version),
}

/// Why a reader is given nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotRead {
    #[error("the shard has applied position {applied}, {least} is asked for")]
    Behind { applied: Position, least: Position },
    #[error(transparent)]
    NotRendered(#[from] NotRendered),
    #[error("the projections of this shard have no such output")]
    NoOutput,
    #[error("rendering was given up: the process is stopping")]
    Stopping,
}

impl Shard {
    /// The output that `route` names, at position `least` or later: waits a second for it at most.
    ///
    /// A shard that was just started waits likewise until it has applied what its queue then held, lest a document be
    /// older than it was before a crash. Only while the queue can't be reached it gives what it has.
    pub async fn document(self: &Arc<Self>, route: &Route, least: Option<Position>) -> Result<Read, NotRead> {
        self.reach(least).await?;
        let (position, document) = {
            let state = self.state.read();
            (state.applied(), state.document(route.projection, &route.key))
        };
        let Some(document) = document else {
            let projection = self.projections.get(route.projection).ok_or(NotRead::NoOutput)?;
            let epoch = self.map.owner_of(&projection.name, &route.key).epoch;
            return Ok(Read { position, found: Found::Nothing(Version::new(epoch, 0)) });
        };
        Ok(Read { position, found: Found::Document(self.rendered(route, document).await?) })
    }

    async fn reach(&self, least: Option<Position>) -> Result<(), NotRead> {
        if self.held_at_start.borrow().is_none() {
            let age = clock::monotonic().saturating_duration_since(self.opened);
            let mut held = self.held_at_start.subscribe();
            let _ = timeout(LEAST_WAIT.saturating_sub(age), held.wait_for(Option::is_some)).await;
        }
        let least = || self.held_at_start.borrow().max(least);
        if least() > Some(*self.applied.borrow()) {
            let mut applied = self.applied.subscribe();
            // Ends by itself only with the shard, in which case the position is not reached either.
            let _ = timeout(LEAST_WAIT, applied.wait_for(|applied| least() <= Some(*applied))).await;
        }
        let applied = *self.applied.borrow();
        match least() {
            Some(least) if applied < least => Err(NotRead::Behind { applied, least }),
            _ => Ok(()),
        }
    }

    async fn rendered(self: &Arc<Self>, route: &Route, document: Arc<Document>) -> Result<Arc<Rendered>, NotRead> {
        let index = |index: usize| u16::try_from(index).map_err(|_| NotRead::NoOutput);
        let (projection, output) = (index(route.projection)?, index(route.output)?);
        let memoised = self.memo.lock().get(projection, output, &route.key, document.version);
        if let Some(rendered) = memoised {
            self.metrics.memoised.inc();
            return Ok(rendered);
        }
        let rendered = if document.weight() <= RENDER_INLINE_MAX_BYTES {
            self.render(route, &document)?
        } else {
            let (shard, route) = (self.clone(), route.clone());
            let rendering = tokio::task::spawn_blocking(move || shard.render(&route, &document));
            rendering.await.map_err(|_| NotRead::Stopping)??
        };
        self.metrics.rendered.inc();
        self.memo.lock().put(projection, output, &route.key, rendered.clone());
        Ok(rendered)
    }

    fn render(&self, route: &Route, document: &Document) -> Result<Arc<Rendered>, NotRead> {
        let projection = self.projections.get(route.projection).ok_or(NotRead::NoOutput)?;
        let output = projection.outputs.get(route.output).ok_or(NotRead::NoOutput)?;
        Ok(Arc::new(render(projection, output, &route.key, document)?))
    }
}
