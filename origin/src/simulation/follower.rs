//! Followers of change streams, who know of every change, and of every move.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::{Position, ShardId, Version};
use millpond_shared::wire::{Change, ChangeMessage, Follow};
use parking_lot::Mutex;

use super::reading::{Answer, Directory, Given, Named, Replica, Wish, documents};
use super::scheduler::Simulation;
use crate::timing::{sleep, timeout};

/// What a follower of one shard knows.
#[derive(Default)]
pub struct Followed {
    /// Everything up to here was told.
    pub at: Option<Position>,
    /// The shard map, as that shard told of it.
    pub map: Option<Arc<ShardMap>>,
    /// The latest version of every document, and of every part, that it was told of, or found when it had to look at all of
    /// them.
    pub versions: BTreeMap<String, Version>,
    /// What it has kept of documents: version, and the tags of parts.
    copies: BTreeMap<String, (Version, Vec<String>)>,
}

impl Followed {
    /// The latest version of a document that it knows of, by its own tag and those of its parts.
    pub fn latest(&self, tag: &String, parts: &[String]) -> Option<Version> {
        let all = [tag].into_iter().chain(parts);
        all.filter_map(|tag| self.versions.get(tag)).max().copied()
    }

    /// What it has kept and would still give to clients.
    pub fn fresh(&self) -> impl Iterator<Item = (&String, Version)> {
        let copies = self.copies.iter().map(|(tag, (version, parts))| (tag, *version, self.latest(tag, parts)));
        copies
            .filter(|(_, version, latest)| latest.is_none_or(|latest| latest <= *version))
            .map(|(tag, kept, _)| (tag, kept))
    }

    /// Notes a document that was found; what is not to be kept is only known of.
    fn keep(&mut self, document: &Named, given: &Given) {
        if given.copy.is_some() {
            self.copies.insert(document.tag.clone(), (given.version, given.parts.clone()));
        }
    }

    fn told(&mut self, changes: &[Change]) {
        for Change { tag, version } in changes {
            let at = self.at;
            assert!(at.is_none_or(|at| version.position > at), "{tag} {version} after {at:?}");
            let latest = self.versions.entry(tag.clone()).or_default();
            *latest = (*version).max(*latest);
        }
    }
}

/// One who follows a shard.
pub struct Follower {
    pub shard: ShardId,
    pub directory: Arc<Directory>,
    pub known: Arc<Mutex<Followed>>,
}

impl Follower {
    /// Follows the shard for ever, over whichever replica.
    pub async fn follow_on(self) {
        loop {
            sleep(Duration::from_millis(Simulation::below(300))).await;
            let Some(replica) = self.directory.any(self.shard) else { continue };
            let after = self.known.lock().at;
            let followed = replica.open.upgrade().and_then(|open| open.shard.follow(Follow { after }));
            let Some(mut stream) = followed else { continue };
            // Silence means that it is gone: so does a proxy take it.
            while let Ok(Some(message)) = timeout(Duration::from_secs(2), stream.next()).await {
                if !self.hear(&replica, message).await || Simulation::one_in(30) {
                    break;
                }
            }
        }
    }

    /// Whether it goes on with this replica.
    async fn hear(&self, replica: &Replica, message: ChangeMessage) -> bool {
        match message {
            ChangeMessage::Hello { resumed: true, .. } => true,
            ChangeMessage::Hello { resumed: false, at, .. } => self.look_at_all(replica, at).await,
            ChangeMessage::Changes { at, documents: changes } => {
                {
                    let mut known = self.known.lock();
                    known.told(&changes);
                    known.at = Some(at);
                }
                self.look_at_one(replica, &changes).await
            }
            ChangeMessage::Tick { at } => {
                let mut known = self.known.lock();
                known.at = known.at.max(Some(at));
                true
            }
            ChangeMessage::Map { at, map } => {
                let has_moved = {
                    let mut known = self.known.lock();
                    known.at = known.at.max(Some(at));
                    let before = known.map.clone();
                    if before.as_ref().is_some_and(|before| before.version() >= map.version()) {
                        return true;
                    }
                    known.map = Some(Arc::new(map.clone()));
                    let concerns = |before: &ShardMap| {
                        before.givers(&map).contains(&self.shard) || map.givers(before).contains(&self.shard)
                    };
                    before.as_deref().is_none_or(concerns)
                };
                // Copies from a shard that gave slots are not trusted, and of those that it took nothing was told.
                !has_moved || self.look_at_all(replica, at).await
            }
        }
    }

    /// Documents of the shard, by the map that is known, each with the least position that has it.
    fn its_documents(&self) -> (u32, Vec<(&'static Named, Position)>) {
        let Some(map) = self.known.lock().map.clone() else { return (0, Vec::new()) };
        let owned = documents().iter().map(|document| (document, map.owner(document.slot)));
        let owned =
            owned.filter(|(_, owner)| owner.shard == self.shard).map(|(document, owner)| (document, owner.since));
        (map.version(), owned.collect())
    }

    /// Reads one of the documents that have changed, or any if none has, but a part.
    async fn look_at_one(&self, replica: &Replica, changes: &[Change]) -> bool {
        let (map_version, documents) = self.its_documents();
        if documents.is_empty() {
            return true;
        }
        let picked = &changes[Simulation::below(changes.len() as u64) as usize];
        let found = documents.iter().find(|(document, _)| document.tag == picked.tag);
        let any = || &documents[Simulation::below(documents.len() as u64) as usize];
        let (document, since) = found.unwrap_or_else(any);
        let wish = Wish { least: *since, newest: false, map_version };
        let answer = replica.ask(document, wish).await;
        if let Some(Answer::Given(given)) = &answer {
            let least = if found.is_some() { picked.version } else { Version::ZERO };
            assert!(found.is_none() || given.copy.is_some(), "{} was announced and is not there", picked.tag);
            assert!(given.version >= least, "{}: {least} was announced, {} found", picked.tag, given.version);
            self.known.lock().keep(document, given);
        }
        answer.is_some()
    }

    /// A gap, or a move: every document may have changed. Whether all of them were found.
    async fn look_at_all(&self, replica: &Replica, at: Position) -> bool {
        {
            let mut known = self.known.lock();
            known.at = None;
            known.copies.clear();
        }
        let (map_version, documents) = self.its_documents();
        for (document, since) in documents {
            // What it was told before, by another replica, may be more than this one has.
            let wish = Wish { least: since.max(at), newest: false, map_version };
            match replica.ask(document, wish).await {
                Some(Answer::Given(given)) if given.copy.is_some() => {
                    let mut known = self.known.lock();
                    let latest = known.versions.entry(document.tag.clone()).or_default();
                    *latest = given.version.max(*latest);
                    known.keep(document, &given);
                }
                // Of what belongs to another by now it will be told.
                Some(Answer::Given(_) | Answer::Elsewhere(_)) => {}
                Some(Answer::Refused) | None => return false,
            }
        }
        self.known.lock().at = Some(at);
        true
    }
}
