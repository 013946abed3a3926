//! Reading home feeds: merged with the excerpts of the great feeds that they follow, all as of one position.
//!
//! The version of what is shown is that of the latest of its parts: all of them are positions of this shard's queue. A part
//! that changes is announced by a tag of its own, so an answer names the tags of all, and of those that are still to come.
//!
//! After a restart single documents may be ahead of what is applied (`state`). What is merged of them is not what was, or
//! will be, shown at any position: it is given as one that is behind, and not taken for a version of the document.

use std::collections::HashMap;
use std::sync::Arc;

use millpond_shared::projection::{Kind, part_tag};
use millpond_shared::version::{Position, Version};

use super::Shard;
use super::read::NotRead;
use super::state::{Looked, State};
use crate::blocking::apart;
use crate::projection::{Document, GREAT_FEEDS, KeyState, excerpt_key};

/// Times that documents are looked for in the file, while commits come in between.
const TRIES: usize = 16;

/// The parts of a home feed, all of one moment.
#[derive(Debug)]
pub struct Parts {
    /// What was applied then, and the epoch that versions got by it.
    pub at: Version,
    pub home: Arc<Document>,
    list: Option<Arc<Document>>,
    /// The great feeds that it follows, by their keys; `None`: nothing of one has come to this shard yet.
    excerpts: Vec<(Arc<str>, Option<Arc<Document>>)>,
}

impl Parts {
    /// The latest of their versions.
    pub fn version(&self) -> Version {
        let excerpts = self.excerpts().map(|(_, excerpt)| excerpt.version);
        let list = self.list.as_ref().map_or(Version::ZERO, |list| list.version);
        excerpts.fold(self.home.version.max(list), Version::max)
    }

    /// Whether none of them is ahead of what was applied.
    pub fn are_settled(&self) -> bool {
        self.version() <= self.at
    }

    /// What they take in memory together, in bytes.
    pub fn weight(&self) -> usize {
        self.excerpts().fold(self.home.weight(), |sum, (_, excerpt)| sum + excerpt.weight())
    }

    /// What is shown.
    pub fn document(&self, kind: &Kind) -> Arc<Document> {
        let version = self.version().min(self.at);
        if self.excerpts().next().is_none() && version == self.home.version {
            return self.home.clone();
        }
        Arc::new(self.home.merged(kind, self.excerpts(), version))
    }

    pub fn are_merged(&self) -> bool {
        self.excerpts().next().is_some()
    }

    fn excerpts(&self) -> impl Iterator<Item = (&Arc<str>, &Document)> + Clone {
        self.excerpts.iter().filter_map(|(feed, excerpt)| Some((feed, excerpt.as_deref()?)))
    }
}

/// What was found of a home feed.
#[derive(Debug)]
pub enum Home {
    Here(Parts),
    /// No event has reached it, at this position.
    Nothing(Position),
}

/// Name of a document: index of its projection, key.
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

/// Documents of which it is not known whether the file holds them.
struct Unknown {
    commits: u64,
    names: Vec<Name>,
}

impl Shard {
    /// The home feed of a key.
    pub(super) async fn home(self: &Arc<Self>, home: u16, key: &str) -> Result<Home, NotRead> {
        let found = self.parts_of(home, Whose::Key(key)).await?;
        if matches!(&found, Home::Here(parts) if parts.are_merged()) {
            self.metrics.merged.inc();
        }
        Ok(found)
    }

    /// The tags of a home feed's parts beside itself.
    pub(super) fn part_tags(&self, home: u16, parts: &Parts) -> Vec<String> {
        let feed = self.feed_of(home).and_then(|feed| self.projections.get(usize::from(feed)));
        let name = feed.map_or("", |feed| feed.name.as_str());
        let excerpts = parts.excerpts.iter().map(|(feed, _)| part_tag(self.id, name, &excerpt_key(feed)));
        std::iter::once(part_tag(self.id, name, GREAT_FEEDS)).chain(excerpts).collect()
    }

    /// The document of a home feed with the items of excerpts in it for good; `None`: there are none for it.
    pub(super) async fn with_excerpts(
        self: &Arc<Self>,
        home: u16,
        document: Document,
    ) -> Result<Option<Document>, NotRead> {
        let document = Arc::new(document);
        let Home::Here(parts) = self.parts_of(home, Whose::Document(&document)).await? else { return Ok(None) };
        let kind = self.projections.get(usize::from(home)).map(|projection| &projection.kind);
        let kind = kind.filter(|_| parts.are_merged());
        Ok(kind.map(|kind| document.with_excerpts(kind, parts.excerpts())))
    }

    /// Whether there may be a great feed among those that a home gathers from.
    pub(super) fn may_have_great_feeds(&self, home: u16) -> bool {
        let Some(feed) = self.feed_of(home) else { return false };
        match self.state.read().look(feed, GREAT_FEEDS) {
            Looked::Here(_) | Looked::MayBeCold(_) => true,
            Looked::Nothing => false,
        }
    }

    async fn parts_of(self: &Arc<Self>, home: u16, whose: Whose<'_>) -> Result<Home, NotRead> {
        let feed = self.feed_of(home).ok_or(NotRead::NoOutput)?;
        let empty = self.projections.get(usize::from(feed)).map(|projection| Document::empty(&projection.kind));
        let empty = Arc::new(empty.ok_or(NotRead::NoOutput)?);
        let mut in_file = InFile::default();
        for _ in 0..TRIES {
            let unknown = match self.state.read().parts(&in_file, home, feed, whose) {
                Ok(found) => return Ok(found),
                Err(unknown) => unknown,
            };
            if unknown.commits != in_file.commits {
                in_file = InFile { commits: unknown.commits, ..InFile::default() };
            }
            let (shard, names) = (self.clone(), unknown.names.clone());
            let rows = apart(move || shard.file.read(&names)).await.map_err(|_| NotRead::Stopping)??;
            self.metrics.read.inc_by(rows.len() as u64);
            let rows: HashMap<Name, Arc<Document>> =
                rows.into_iter().map(|(projection, key, document)| ((projection, key), document)).collect();
            let mut to_keep = Vec::new();
            for name in unknown.names {
                let found = rows.get(&name).cloned();
                // Each home feed that is read looks for parts that are not there: mostly for a list of great feeds.
                let kept = found.clone().or_else(|| (name.0 == feed).then(|| empty.clone()));
                to_keep.extend(kept.map(|document| (name.0, name.1.clone(), document)));
                in_file.documents.insert(name, found);
            }
            let mut state = self.state.write();
            for row in to_keep {
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
    fn parts(&self, in_file: &InFile, home: u16, feed: u16, whose: Whose<'_>) -> Result<Home, Unknown> {
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
        let excerpts = great.into_iter().map(|great| (look(feed, &excerpt_key(&great)), great));
        let excerpts = excerpts.map(|(excerpt, great)| (great, excerpt)).collect();
        if !unknown.names.is_empty() {
            // As the file is read.
            unknown.names.sort_unstable();
            return Err(unknown);
        }
        let at = Version::new(self.epoch(), self.applied());
        Ok(document.map_or(Home::Nothing(at.position), |home| Home::Here(Parts { at, home, list, excerpts })))
    }
}

#[cfg(test)]
mod tests {
    use millpond_shared::event::Event;
    use millpond_shared::route::Route;
    use millpond_shared::wire::{FiledEvent, ShardFrame};

    use super::super::read::{Behind, Found, Read};
    use super::super::testing::Site;
    use super::*;
    use crate::projection::testing::{declared, event, home_feeds};
    use crate::projection::{Item, News, Told};
    use crate::render::Rendered;
    use crate::store::Place;
    use crate::store::shard_file::{Identity, Row, ShardFile, Write};

    const POSTS: u16 = 0;
    const HOME: u16 = 2;

    fn follow(whom: &str, second: i64) -> Event<'static> {
        event(whom, second, &format!(r#"{{"what":"follow","user":"h","whom":"{whom}"}}"#))
    }

    /// What the great feed `g` tells every shard of an item.
    fn told(id: &str, order: i64) -> Event<'static> {
        let item = Item::new(order, id, &format!(r#"{{"id":"{id}"}}"#));
        Told::News(News { feed: "g".into(), items: Arc::new([Arc::new(item)]) }).event("posts", &[], 0)
    }

    fn tell(site: &Site, event: Event<'static>, keys: &[&'static str]) {
        let offset = site.queue.last() + 1;
        let routes = keys.iter().map(|key| (0, (*key).into())).collect();
        let frame = site.frame(0, offset, &[]);
        let events = vec![FiledEvent { offset, routes, event }];
        site.queue.push(&ShardFrame { first: offset, last: offset, events, ..frame });
    }

    async fn read(shard: &Arc<Shard>) -> (Read, Arc<Rendered>, Vec<String>) {
        let route = Route { projection: usize::from(HOME), output: 0, key: "h".to_owned() };
        let read = shard.document(&route, None).await.expect("read");
        let Found::Document(rendered) = &read.found else { panic!("{read:?}") };
        let rendered = rendered.clone();
        let body: serde_json::Value = serde_json::from_slice(&rendered.body).expect("JSON");
        let ids =
            body["items"].as_array().expect("items").iter().map(|item| item["id"].as_str().expect("id").to_owned());
        let ids = ids.collect();
        (read, rendered, ids)
    }

    fn row(shard: &Shard, projection: u16, key: &str) -> Row {
        let Looked::Here(document) = shard.state.read().look(projection, key) else { panic!("no {key}") };
        (projection, key.into(), document)
    }

    /// A site whose queue holds four frames: `h` follows `g`, two items that `g` tells, `h` follows somebody else.
    fn site() -> Site {
        let site = Site::new(declared(&home_feeds(10, 1_000)));
        site.push(follow("g", 1));
        ["i1", "i2"].iter().zip(2..).for_each(|(id, order)| tell(&site, told(id, order), &["*", "*g"]));
        site.push(follow("x", 4));
        site
    }

    #[tokio::test(start_paused = true)]
    async fn a_home_feed_names_its_parts_and_has_the_version_of_the_latest() {
        let site = site();
        let shard = site.open();
        let mut seen = Vec::new();
        for position in 1..=4 {
            shard.apply(&site.queue.frames(position - 1, 1)).expect("applied");
            let (read, rendered, ids) = read(&shard).await;
            assert!(rendered.is_kept);
            seen.push((rendered.version.position, ids.join(" "), read.parts.join(" ")));
        }
        let row = |version, ids: &str, parts: &str| (version, ids.to_owned(), parts.to_owned());
        let both = "posts/0* posts/0*g";
        assert_eq!(seen, [row(1, "", "posts/0*"), row(2, "i1", both), row(3, "i2 i1", both), row(4, "i2 i1", both)]);
        assert_eq!((shard.metrics.merged.get(), shard.metrics.rendered.get()), (3, 4));
    }

    /// The file of a shard that was killed between two slices: the home feed as of position 4, its parts as of 2.
    #[tokio::test(start_paused = true)]
    async fn parts_that_are_ahead_of_what_is_applied_make_no_version_of_the_document() {
        let site = site();
        let whole = site.open();
        whole.apply(&site.queue.frames(0, 2)).expect("applied");
        let parts = [row(&whole, POSTS, "*"), row(&whole, POSTS, "*g")];
        whole.apply(&site.queue.frames(2, 2)).expect("applied");
        let (_, at_four, _) = read(&whole).await;
        let documents = parts.into_iter().chain([row(&whole, HOME, "h")]).collect();
        let torn = Site { disk: crate::store::forgetful::Forgetful::new(), ..site };
        let place = Place::Backend(Box::new(torn.disk.clone()));
        let (file, _) =
            ShardFile::open(place, 1 << 20, Identity { shard: 0, map_version: 1 }, &torn.projections).expect("a file");
        let write = Write { committed: 2, marks: [(0, 2)].into(), documents, ..Write::default() };
        file.commit(write).expect("committed");
        drop(file);

        let shard = torn.open();
        let mut tags = Vec::new();
        for (position, expected) in [(2, "i1"), (3, "i2 i1")] {
            let (read, rendered, ids) = read(&shard).await;
            assert_eq!(
                (ids.join(" ").as_str(), rendered.version.position, rendered.is_kept),
                (expected, position, false)
            );
            assert_eq!((read.position, read.behind), (position, Behind::Unknown));
            tags.push(rendered.etag.clone());
            shard.apply(&torn.queue.frames(position, 1)).expect("applied");
        }
        let (_, rendered, _) = read(&shard).await;
        assert_eq!(rendered, at_four);
        assert!(rendered.is_kept && !tags.contains(&rendered.etag) && tags[0] != tags[1], "{tags:?}");
    }

    /// What was joined of slots that were being taken in is on disk, and the position behind that is not.
    #[tokio::test(start_paused = true)]
    async fn parts_that_are_ahead_give_the_document_no_epoch_either() {
        let site = site();
        let whole = site.open();
        whole.apply(&site.queue.frames(0, 4)).expect("applied");
        let mut excerpt = row(&whole, POSTS, "*g");
        excerpt.2 = Arc::new(Document { version: Version::new(7, 4), ..(*excerpt.2).clone() });
        let documents = vec![row(&whole, POSTS, "*"), excerpt, row(&whole, HOME, "h")];
        let torn = Site { disk: crate::store::forgetful::Forgetful::new(), ..site };
        let place = Place::Backend(Box::new(torn.disk.clone()));
        let (file, _) =
            ShardFile::open(place, 1 << 20, Identity { shard: 0, map_version: 1 }, &torn.projections).expect("a file");
        file.commit(Write { committed: 4, marks: [(0, 4)].into(), documents, ..Write::default() }).expect("committed");
        drop(file);
        let (_, rendered, ids) = read(&torn.open()).await;
        assert_eq!((ids.join(" ").as_str(), rendered.version, rendered.is_kept), ("i2 i1", Version::new(1, 4), false));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_listed_and_has_no_excerpt_yet_is_named_all_the_same() {
        let site = Site::new(declared(&home_feeds(10, 1_000)));
        site.push(follow("g", 1));
        tell(&site, told("i1", 2), &["*"]);
        tell(&site, told("i1", 2), &["*g"]);
        let shard = site.open();
        shard.apply(&site.queue.frames(0, 2)).expect("applied");
        let (before, rendered, ids) = read(&shard).await;
        assert_eq!((before.parts, rendered.version.position), (vec!["posts/0*".to_owned(), "posts/0*g".to_owned()], 2));
        assert!(ids.is_empty());
        shard.apply(&site.queue.frames(2, 1)).expect("applied");
        let (after, rendered, ids) = read(&shard).await;
        assert_eq!((after.parts.len(), rendered.version.position, ids.len()), (2, 3, 1));
    }
}
