//! Reading home feeds: merged with the excerpts of the great feeds that they follow, all as of one position.
//!
//! The version of what is shown is that of the latest of its parts: all of them are positions of this shard's queue. A part
//! that changes is announced by a tag of its own, so an answer names the tags of all.

use std::collections::HashMap;
use std::sync::Arc;

use millpond_shared::projection::{Kind, part_tag};
use millpond_shared::version::Position;

use super::Shard;
use super::read::NotRead;
use super::state::{Looked, State};
use crate::blocking::apart;
use crate::projection::{Document, GREAT_FEEDS, KeyState, excerpt_key};

/// Times that documents are looked for in the file, while commits come in between.
const TRIES: usize = 16;

/// A document as it is shown, and the tags of the parts that it was merged from.
#[derive(Debug, Default)]
pub struct Shown {
    pub position: Position,
    /// `None`: no event has reached it.
    pub document: Option<Arc<Document>>,
    pub parts: Vec<String>,
}

/// Names of a document: index of its projection, key.
type Name = (u16, Arc<str>);

/// What the file holds, as of a number of commits; `None`: nothing.
#[derive(Default)]
struct InFile {
    commits: u64,
    documents: HashMap<Name, Option<Arc<Document>>>,
}

/// Which home feed's parts are looked for.
#[derive(Clone, Copy)]
enum Whose<'a> {
    /// Of the one of this key, as it is now.
    Key(&'a str),
    Document(&'a Arc<Document>),
}

/// The parts of a home feed, all of one moment.
struct Parts {
    position: Position,
    home: Option<Arc<Document>>,
    list: Option<Arc<Document>>,
    /// Of the great feeds that it follows, by their keys.
    excerpts: Vec<(Arc<str>, Arc<Document>)>,
}

/// A document of which it is not known whether the file holds it.
struct Unknown {
    commits: u64,
    names: Vec<Name>,
}

impl Shard {
    /// The home feed of a key, as it is shown.
    pub(super) async fn look_merged(self: &Arc<Self>, home: u16, key: &str) -> Result<Shown, NotRead> {
        let parts = self.parts_of(home, Whose::Key(key)).await?;
        let shown = Shown { position: parts.position, ..Shown::default() };
        let Some((document, feed)) = parts.home.zip(self.feed_of(home)) else { return Ok(shown) };
        let tag = |key: &str| {
            let name = self.projections.get(usize::from(feed)).map_or("", |projection| projection.name.as_str());
            part_tag(self.id, name, key)
        };
        let excerpts = parts.excerpts.iter().map(|(feed, _)| tag(&excerpt_key(feed)));
        let tags = std::iter::once(tag(GREAT_FEEDS)).chain(excerpts).collect();
        let kind = self.projections.get(usize::from(home)).map(|projection| &projection.kind);
        if !parts.excerpts.is_empty() {
            self.metrics.merged.inc();
        }
        let is_as_it_stands = |list: &Document| parts.excerpts.is_empty() && list.version <= document.version;
        let document = match (kind, parts.list) {
            (Some(kind), Some(list)) if !is_as_it_stands(&list) => {
                Arc::new(document.merged(kind, &parts.excerpts, &list))
            }
            _ => document,
        };
        Ok(Shown { document: Some(document), parts: tags, ..shown })
    }

    /// The document of a home feed with the items of excerpts in it for good; `None`: there are none for it.
    pub(super) async fn with_excerpts(
        self: &Arc<Self>,
        home: u16,
        document: Document,
    ) -> Result<Option<Document>, NotRead> {
        let document = Arc::new(document);
        let parts = self.parts_of(home, Whose::Document(&document)).await?;
        let kind = self.projections.get(usize::from(home)).map(|projection| &projection.kind);
        let kind = kind.filter(|_| !parts.excerpts.is_empty());
        Ok(kind.map(|kind| document.with_excerpts(kind, &parts.excerpts)))
    }

    async fn parts_of(self: &Arc<Self>, home: u16, whose: Whose<'_>) -> Result<Parts, NotRead> {
        let feed = self.feed_of(home).ok_or(NotRead::NoOutput)?;
        let mut in_file = InFile::default();
        for _ in 0..TRIES {
            let unknown = match self.state.read().parts(&in_file, home, feed, whose) {
                Ok(parts) => return Ok(parts),
                Err(unknown) => unknown,
            };
            if unknown.commits != in_file.commits {
                in_file = InFile { commits: unknown.commits, ..InFile::default() };
            }
            let (shard, names) = (self.clone(), unknown.names.clone());
            let rows = apart(move || shard.file.read(&names)).await.map_err(|_| NotRead::Stopping)??;
            self.metrics.read.inc_by(rows.len() as u64);
            in_file.documents.extend(unknown.names.into_iter().map(|name| (name, None)));
            let mut state = self.state.write();
            for row in rows {
                in_file.documents.insert((row.0, row.1.clone()), Some(row.2.clone()));
                state.bring_back(row, unknown.commits, self.settings.memory);
            }
            // Each home feed that is read looks at the list, mostly to find that there is none.
            let list = (feed, Arc::from(GREAT_FEEDS));
            if in_file.documents.get(&list).is_some_and(Option::is_none)
                && let Some(projection) = self.projections.get(usize::from(feed))
            {
                let row = (list.0, list.1, Arc::new(Document::empty(&projection.kind)));
                state.bring_back(row, unknown.commits, self.settings.memory);
            }
        }
        Err(NotRead::Unsteady)
    }

    /// Index of the projection whose feeds a home gathers from.
    fn feed_of(&self, home: u16) -> Option<u16> {
        let Kind::Home(gathering) = &self.projections.get(usize::from(home))?.kind else { return None };
        let feed = self.projections.iter().position(|projection| projection.name == gathering.feed)?;
        u16::try_from(feed).ok()
    }
}

impl State {
    /// The parts of a home feed; or those of which it is not known whether the file holds them.
    fn parts(&self, in_file: &InFile, home: u16, feed: u16, whose: Whose<'_>) -> Result<Parts, Unknown> {
        let mut unknown = Unknown { commits: self.commits(), names: Vec::new() };
        let mut look = |projection: u16, key: &str| match self.look(projection, key) {
            Looked::Here(document) => Some(document),
            Looked::Nothing => None,
            Looked::MayBeCold(commits) => {
                let name = (projection, Arc::from(key));
                let found = in_file.documents.get(&name).filter(|_| commits == in_file.commits);
                if found.is_none() {
                    unknown.names.push(name);
                }
                found.cloned().flatten()
            }
        };
        let document = match whose {
            Whose::Key(key) => look(home, key),
            Whose::Document(document) => Some(document.clone()),
        };
        let list = look(feed, GREAT_FEEDS);
        let great = match (document.as_deref().map(|home| &home.state), list.as_deref().map(|list| &list.state)) {
            (Some(KeyState::Home(home)), Some(KeyState::Followed(list))) => home.great_feeds(list),
            _ => Vec::new(),
        };
        let excerpt = |great: Arc<str>| look(feed, &excerpt_key(&great)).map(|excerpt| (great, excerpt));
        let excerpts = great.into_iter().filter_map(excerpt).collect();
        if unknown.names.is_empty() {
            Ok(Parts { position: self.applied(), home: document, list, excerpts })
        } else {
            // As the file is read.
            unknown.names.sort_unstable();
            Err(unknown)
        }
    }
}
