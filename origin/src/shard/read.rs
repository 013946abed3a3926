//! Reading documents: rendered on demand, outside the state's lock, and memoised by version.

use std::sync::Arc;
use std::time::Duration;

use millpond_shared::projection::Kind;
use millpond_shared::route::Route;
use millpond_shared::version::{Position, Version};

use super::Shard;
use super::memo::Name;
use super::merged::{Home, Parts};
use super::state::Looked;
use crate::blocking::apart;
use crate::projection::{Before, Document};
use crate::render::{NotRendered, Rendered, Tag};
use crate::store::shard_file::ShardFileError;
use crate::timing::{self, timeout};

/// How long a reader that wants a position is kept waiting for it.
const LEAST_WAIT: Duration = Duration::from_secs(1);
/// How long after its start a shard that has to catch up keeps those waiting who name no position, or one that it has.
const CATCH_UP_WAIT: Duration = Duration::from_millis(150);
/// From this weight on, in bytes, a document is rendered apart from the async workers: it takes about a millisecond.
const RENDER_INLINE_MAX_BYTES: usize = 256 << 10;

/// What a reader is given.
#[derive(Debug)]
pub struct Read {
    /// The position that the shard had applied.
    pub position: Position,
    pub behind: Behind,
    pub found: Found,
    /// Tags of what the document was merged from, beside itself; with any of them it changes.
    pub parts: Vec<String>,
}

/// What a shard had still to apply of what its queue held when it was started, or when the reader asked for all that the
/// queue holds: documents may be older than others that were given before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    Nothing,
    /// So many positions.
    Positions(Position),
    /// It has not reached its queue since.
    Unknown,
}

impl Read {
    /// The same for a reader who asked for all that the queue holds, of which [`Shard::newest`] told the end.
    pub fn for_newest(self, newest: Option<Position>) -> Read {
        let behind = match newest {
            None => Behind::Unknown,
            Some(newest) if newest > self.position => Behind::Positions(newest - self.position),
            Some(_) => self.behind,
        };
        Read { behind, ..self }
    }
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
    #[error(transparent)]
    File(#[from] ShardFileError),
    #[error("the projections of this shard have no such output")]
    NoOutput,
    #[error("rendering was given up: the process is stopping")]
    Stopping,
    #[error("the parts of the document changed faster than they could be read")]
    Unsteady,
}

impl Shard {
    /// The output that `route` names, at position `least` or later: waits a second for it at most.
    ///
    /// A shard that was just started may be behind what it was before a crash, and waits a little to catch up; then it
    /// says so with what it gives, see [`Read::behind`]. As long as it can't reach its queue it gives what it has, and says
    /// so as well.
    pub async fn document(self: &Arc<Self>, route: &Route, least: Option<Position>) -> Result<Read, NotRead> {
        self.document_page(route, None, least).await
    }

    /// The same of the page that begins `before` a place, or of the first.
    pub async fn document_page(
        self: &Arc<Self>,
        route: &Route,
        before: Option<&Before>,
        least: Option<Position>,
    ) -> Result<Read, NotRead> {
        self.reach(least).await?;
        // Before it is looked for: a document that comes meanwhile must have a greater version than nothing has.
        let epoch = self.state.read().epoch();
        let (position, source) = self.look(route).await?;
        let (found, parts) = match source {
            Some(source) => {
                let parts = source.part_tags(self, route.projection);
                (Found::Document(self.rendered(route, before, source).await?), parts)
            }
            None => (Found::Nothing(Version::new(epoch, 0)), Vec::new()),
        };
        Ok(Read { position, behind: self.behind(position), found, parts })
    }

    /// How far `position` is behind what the queue held at the start.
    fn behind(&self, position: Position) -> Behind {
        match *self.held_at_start.borrow() {
            None => Behind::Unknown,
            Some(held) if held > position => Behind::Positions(held - position),
            Some(_) => Behind::Nothing,
        }
    }

    async fn reach(&self, least: Option<Position>) -> Result<(), NotRead> {
        let age = timing::now().saturating_duration_since(self.opened_at);
        if self.held_at_start.borrow().is_none() {
            let mut held = self.held_at_start.subscribe();
            let _ = timeout(LEAST_WAIT.saturating_sub(age), held.wait_for(Option::is_some)).await;
        }
        let mut applied = self.applied.subscribe();
        let held = self.held_at_start.borrow().unwrap_or(0);
        // These end by themselves only with the shard, in which case the position is not reached either.
        if *applied.borrow() < held {
            let _ = timeout(CATCH_UP_WAIT.saturating_sub(age), applied.wait_for(|applied| *applied >= held)).await;
        }
        let least = least.unwrap_or(0);
        if *applied.borrow() < least {
            let _ = timeout(LEAST_WAIT, applied.wait_for(|applied| *applied >= least)).await;
        }
        let applied = *applied.borrow();
        if applied < least { Err(NotRead::Behind { applied, least }) } else { Ok(()) }
    }

    /// The document, from memory or from the file, with a position that it has reached.
    async fn look(self: &Arc<Self>, route: &Route) -> Result<(Position, Option<Source>), NotRead> {
        let projection = u16::try_from(route.projection).map_err(|_| NotRead::NoOutput)?;
        if self.projections.get(route.projection).is_some_and(|projection| matches!(projection.kind, Kind::Home(_))) {
            return Ok(match self.home(projection, &route.key).await? {
                Home::Here(parts) => (parts.at.position, Some(Source::Merged(parts))),
                Home::Nothing(position) => (position, None),
            });
        }
        let (position, looked) = {
            let state = self.state.read();
            (state.applied(), state.look(projection, &route.key))
        };
        let commits = match looked {
            Looked::Here(document) => return Ok((position, Some(Source::One(document)))),
            Looked::Nothing => return Ok((position, None)),
            Looked::MayBeCold(commits) => commits,
        };
        // It was not in memory, so it was not changed since it was written: the file holds it as of `position`, or later.
        let (shard, wanted) = (self.clone(), [(projection, Arc::from(route.key.as_str()))]);
        let reading = apart(move || shard.file.read(&wanted));
        let Some(row) = reading.await.map_err(|_| NotRead::Stopping)??.pop() else { return Ok((position, None)) };
        let document = row.2.clone();
        self.metrics.read.inc();
        self.state.write().bring_back(row, commits, self.settings.memory);
        Ok((position, Some(Source::One(document))))
    }

    async fn rendered(
        self: &Arc<Self>,
        route: &Route,
        before: Option<&Before>,
        source: Source,
    ) -> Result<Arc<Rendered>, NotRead> {
        let index = |index: usize| u16::try_from(index).map_err(|_| NotRead::NoOutput);
        let (projection, output) = (index(route.projection)?, index(route.output)?);
        let name = Name { projection, output, key: route.key.as_str().into(), before: before.cloned() };
        let is_settled = source.is_settled();
        let memoised = self.memo.lock().get(&name, source.version()).filter(|_| is_settled);
        if let Some(rendered) = memoised {
            self.metrics.memoised.inc();
            return Ok(rendered);
        }
        let rendered = if source.weight() <= RENDER_INLINE_MAX_BYTES {
            self.render(route, before, &source)?
        } else {
            let (shard, route, before) = (self.clone(), route.clone(), before.cloned());
            let rendering = apart(move || shard.render(&route, before.as_ref(), &source));
            rendering.await.map_err(|_| NotRead::Stopping)??
        };
        self.metrics.rendered.inc();
        if rendered.is_kept {
            self.memo.lock().put(name, rendered.clone());
        }
        Ok(rendered)
    }

    fn render(&self, route: &Route, before: Option<&Before>, source: &Source) -> Result<Arc<Rendered>, NotRead> {
        let document = match source {
            Source::One(document) => document.clone(),
            Source::Merged(parts) => {
                let projection = self.projections.get(route.projection).ok_or(NotRead::NoOutput)?;
                parts.document(&projection.kind)
            }
        };
        let tag = if source.is_settled() { Tag::Version } else { Tag::Digest };
        Ok(Arc::new(self.renderer.render(route.projection, route.output, &route.key, before, &document, tag)?))
    }
}

/// What a document is rendered from.
enum Source {
    One(Arc<Document>),
    Merged(Parts),
}

impl Source {
    fn version(&self) -> Version {
        match self {
            Source::One(document) => document.version,
            Source::Merged(parts) => parts.version(),
        }
    }

    fn weight(&self) -> usize {
        match self {
            Source::One(document) => document.weight(),
            Source::Merged(parts) => parts.weight(),
        }
    }

    /// Whether what is rendered is what the document is at its version.
    fn is_settled(&self) -> bool {
        match self {
            Source::One(_) => true,
            Source::Merged(parts) => parts.are_settled(),
        }
    }

    fn part_tags(&self, shard: &Shard, projection: usize) -> Vec<String> {
        match (self, u16::try_from(projection)) {
            (Source::Merged(parts), Ok(projection)) => shard.part_tags(projection, parts),
            _ => Vec::new(),
        }
    }
}
