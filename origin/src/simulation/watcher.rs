//! Clients: they read documents from whichever replica answers, follow change streams, and never see one go back.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use millpond_shared::projection::document_tag;
use millpond_shared::route::Route;
use millpond_shared::version::{Position, ShardId, Version};
use millpond_shared::wire::{ChangeMessage, Follow};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::ledger::Ledger;
use super::pond::{Pond, projections};
use super::scheduler::{Process, Simulation};
use super::tally::Befell;
use super::traffic::USERS;
use crate::render::Rendered;
use crate::shard::{Behind, Found, NotRead, Read, Shard};
use crate::timing::{sleep, timeout};

/// Who answers for each shard at the moment, as clients know it.
#[derive(Default)]
pub struct Directory(Mutex<Vec<(ShardId, Process, Weak<Shard>)>>);

/// A replica that runs.
#[derive(Clone)]
struct Replica {
    process: Process,
    shard: Weak<Shard>,
}

impl Directory {
    pub fn update(&self, pond: &Pond) {
        let up = pond.replicas.iter().filter_map(|replica| {
            let shard = replica.open.lock().clone();
            Some((replica.shard, replica.up?, shard))
        });
        *self.0.lock() = up.filter(|(_, _, shard)| shard.strong_count() > 0).collect();
    }

    fn any(&self, shard: ShardId) -> Option<Replica> {
        let all = self.0.lock();
        let of_shard: Vec<_> = all.iter().filter(|(other, ..)| *other == shard).collect();
        let chosen = Simulation::below(of_shard.len().max(1) as u64) as usize;
        of_shard.get(chosen).map(|(_, process, shard)| Replica { process: *process, shard: shard.clone() })
    }
}

impl Replica {
    /// Asks for a document, at a position or later, or else with all that the queue holds; `None` if the replica dies
    /// meanwhile.
    async fn read(&self, route: Route, least: Option<Position>) -> Option<Result<Read, NotRead>> {
        let (answer, answered) = oneshot::channel();
        let shard = self.shard.clone();
        Simulation::spawn(self.process, async move {
            let Some(shard) = shard.upgrade() else { return };
            let newest = if least.is_none() { Some(shard.newest().await) } else { None };
            let read = shard.document(&route, least).await;
            let read = read.map(|read| match newest {
                Some(newest) => read.for_newest(newest),
                None => read,
            });
            let _ = answer.send(read);
        });
        answered.await.ok()
    }
}

/// Every document that there can be: its shard, its route and its tag.
pub fn documents(pond: &Pond) -> Vec<(ShardId, Route, String)> {
    let all = projections().iter().enumerate().flat_map(|(projection, declared)| {
        USERS.into_iter().map(move |user| {
            let route = Route { projection, output: 0, key: user.to_owned() };
            (declared, user, route)
        })
    });
    all.map(|(declared, user, route)| {
        (pond.map.owner_of(&declared.name, user).shard, route, document_tag(&declared.name, user))
    })
    .collect()
}

/// What a proxy knows of the shards that it asks.
#[derive(Default)]
struct Proxy {
    /// A position of each that clients have been given, or may have been.
    least: BTreeMap<ShardId, Position>,
}

/// Reads documents for ever over one proxy after the other: none knows what clients were given by the one before it.
pub async fn read_on(documents: Vec<(ShardId, Route, String)>, directory: Arc<Directory>, ledger: Arc<Ledger>) {
    let mut seen: BTreeMap<String, Version> = BTreeMap::new();
    let mut proxy = Proxy::default();
    let mut next = &documents[0];
    loop {
        if Simulation::one_in(6) {
            // What was read a moment ago is asked for again, of whoever answers this proxy.
            Simulation::befell(Befell::NewProxy);
            proxy = Proxy::default();
        } else {
            sleep(Duration::from_millis(Simulation::below(800))).await;
            next = &documents[Simulation::below(documents.len() as u64) as usize];
        }
        let (shard, route, tag) = next;
        let Some(replica) = directory.any(*shard) else { continue };
        let knows_before = proxy.least.contains_key(shard);
        let Some(read) = proxy.read(&replica, *shard, route.clone()).await else { continue };
        let before = seen.get(tag).copied().unwrap_or_default();
        let version = match &read.found {
            Found::Document(rendered) => {
                // What is not to be kept is the document at no version.
                if rendered.is_kept {
                    ledger.read(tag, rendered);
                } else {
                    assert!(read.behind != Behind::Nothing, "{tag}: not told to be behind");
                }
                if read.parts.len() > 1 {
                    Simulation::befell(Befell::Merged);
                }
                rendered.version
            }
            Found::Nothing(version) => *version,
        };
        if read.behind != Behind::Nothing {
            Simulation::befell(Befell::AnswerMarked);
            if !knows_before {
                continue;
            }
        }
        assert!(version.position >= before.position, "{tag} went back from {before} to {version}");
        seen.insert(tag.clone(), version);
    }
}

impl Proxy {
    /// Asks a replica: for all that its queue holds, as long as nothing is known of the shard.
    async fn read(&mut self, replica: &Replica, shard: ShardId, route: Route) -> Option<Read> {
        let least = self.least.get(&shard).copied();
        let read = replica.read(route, least).await?.ok()?;
        let reached = read.position;
        assert!(least.is_none_or(|least| reached >= least), "position {reached} was given for {least:?}");
        if read.behind == Behind::Nothing {
            let known = self.least.entry(shard).or_default();
            *known = read.position.max(*known);
        }
        Some(read)
    }
}

/// What a follower of one shard knows.
#[derive(Default)]
pub struct Followed {
    /// Everything up to here was told.
    pub at: Option<Position>,
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

    fn keep(&mut self, tag: &str, version: Version, parts: &[String]) {
        self.copies.insert(tag.to_owned(), (version, parts.to_vec()));
    }
}

/// Follows a shard for ever, over whichever replica, and keeps what it was told in `known`.
pub async fn follow_on(
    shard: ShardId,
    documents: Vec<(ShardId, Route, String)>,
    directory: Arc<Directory>,
    known: Arc<Mutex<Followed>>,
) {
    let documents: Vec<_> = documents.into_iter().filter(|(other, ..)| *other == shard).collect();
    loop {
        sleep(Duration::from_millis(Simulation::below(300))).await;
        let Some(replica) = directory.any(shard) else { continue };
        let after = known.lock().at;
        let Some(stream) = replica.shard.upgrade().and_then(|shard| shard.follow(Follow { after })) else { continue };
        let mut stream = stream;
        // Silence means that it is gone: so does a proxy take it.
        while let Ok(Some(message)) = timeout(Duration::from_secs(2), stream.next()).await {
            let going_on = match message {
                ChangeMessage::Hello { resumed: true, .. } => true,
                ChangeMessage::Hello { resumed: false, at, .. } => look_at_all(&replica, &documents, at, &known).await,
                ChangeMessage::Changes { at, documents: changes } => {
                    for change in &changes {
                        let mut known = known.lock();
                        let (tag, version, at) = (&change.tag, change.version, known.at);
                        assert!(at.is_none_or(|at| version.position > at), "{tag} {version} after {at:?}");
                        let latest = known.versions.entry(tag.clone()).or_default();
                        *latest = version.max(*latest);
                    }
                    known.lock().at = Some(at);
                    let picked = &changes[Simulation::below(changes.len() as u64) as usize];
                    let found = documents.iter().find(|(.., tag)| *tag == picked.tag);
                    // Of a part: any document will do.
                    let any = || &documents[Simulation::below(documents.len() as u64) as usize];
                    let (_, route, tag) = found.unwrap_or_else(any);
                    let read = replica.read(route.clone(), Some(0)).await;
                    match &read {
                        Some(Ok(Read { found: Found::Document(rendered), parts, .. })) => {
                            let least = if found.is_some() { picked.version } else { Version::ZERO };
                            assert!(rendered.version >= least, "{tag}: {least} was announced");
                            known.lock().keep(tag, rendered.version, parts);
                        }
                        Some(Ok(_)) => assert!(found.is_none(), "{tag} was announced and is not there"),
                        Some(Err(_)) | None => {}
                    }
                    read.is_some()
                }
                ChangeMessage::Tick { at } | ChangeMessage::Map { at, .. } => {
                    let mut known = known.lock();
                    known.at = known.at.max(Some(at));
                    true
                }
            };
            if !going_on || Simulation::one_in(30) {
                break;
            }
        }
    }
}

/// A gap: every document may have changed. Whether all of them were found.
async fn look_at_all(
    replica: &Replica,
    documents: &[(ShardId, Route, String)],
    at: Position,
    known: &Mutex<Followed>,
) -> bool {
    {
        let mut known = known.lock();
        known.at = None;
        known.copies.clear();
    }
    for (_, route, tag) in documents {
        let Some(Ok(read)) = replica.read(route.clone(), Some(0)).await else { return false };
        if let Found::Document(rendered) = read.found {
            let mut known = known.lock();
            let latest = known.versions.entry(tag.clone()).or_default();
            *latest = rendered.version.max(*latest);
            known.keep(tag, rendered.version, &read.parts);
        }
    }
    known.lock().at = Some(at);
    true
}

/// What a replica gives for every document, and the tags of its parts, by tag.
pub async fn all(
    shard: Arc<Shard>,
    documents: Vec<(ShardId, Route, String)>,
) -> BTreeMap<String, (Rendered, Vec<String>)> {
    let mut all = BTreeMap::new();
    for (_, route, tag) in documents.into_iter().filter(|(other, ..)| *other == shard.id()) {
        let read = shard.document(&route, None).await.expect("nothing is wrong any more");
        // One that has everything on disk may not have pulled yet.
        assert!(matches!(read.behind, Behind::Nothing | Behind::Unknown), "{tag}: {:?}", read.behind);
        if let Found::Document(rendered) = read.found {
            all.insert(tag, (rendered.as_ref().clone(), read.parts));
        }
    }
    all
}
