//! Readers: over one proxy after the other, from whichever replica answers, they never see a document go back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millpond_shared::shard_map::{Owner, ShardMap};
use millpond_shared::version::{Position, ShardId, Version};

use super::ledger::Ledger;
use super::reading::{Answer, Directory, Given, Named, Wish, documents};
use super::scheduler::Simulation;
use super::tally::Befell;
use crate::timing::{sleep, timeout};

/// How often a proxy asks for a document that moves while it does.
const ATTEMPTS: usize = 3;
/// How long a proxy waits to hear of the shard map by which a shard does not own a document.
const MAP_WAIT: Duration = Duration::from_secs(1);

/// What a proxy knows.
#[derive(Default)]
struct Proxy {
    map: Option<Arc<ShardMap>>,
    /// Greatest position of each shard that clients have been given, or may have been.
    least: BTreeMap<ShardId, Position>,
    /// Shards of which that covers what was given before this proxy.
    known: BTreeSet<ShardId>,
}

/// Reads documents for ever over one proxy after the other: none knows what clients were given by the one before it.
pub async fn read_on(directory: Arc<Directory>, ledger: Arc<Ledger>) {
    let documents = documents();
    let mut seen: BTreeMap<&str, Version> = BTreeMap::new();
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
        let Some((given, is_known)) = proxy.read(&directory, next).await else { continue };
        let tag = next.tag.as_str();
        if let Some(copy) = &given.copy {
            ledger.read(tag, copy);
            // What is not to be kept is the document at no version.
            assert!(copy.is_settled() || given.behind.is_some(), "{tag}: not told to be behind");
        }
        if given.parts.len() > 1 {
            Simulation::befell(Befell::Merged);
        }
        if given.behind.is_some() {
            Simulation::befell(Befell::AnswerMarked);
            if !is_known {
                continue;
            }
        }
        let before = seen.get(tag).copied().unwrap_or_default();
        // The epoch in which there is nothing is that of whichever replica says so.
        let is_later = given.version >= before || (given.version.position, before.position) == (0, 0);
        assert!(is_later, "{tag} went back from {before} to {} of shard {}", given.version, given.shard);
        seen.insert(tag, given.version.max(before));
    }
}

impl Proxy {
    /// Asks the shard that owns a document: for all that its queue holds, as long as nothing is known of the shard. What a
    /// client is given, and whether it was known what others were given before.
    async fn read(&mut self, directory: &Directory, document: &Named) -> Option<(Given, bool)> {
        self.hear(directory);
        for _ in 0..ATTEMPTS {
            let map = self.map.clone()?;
            let Owner { shard, since } = map.owner(document.slot);
            let least = self.least.get(&shard).copied().unwrap_or(0).max(since);
            let is_known = self.known.contains(&shard);
            let wish = Wish { least, newest: !is_known, map_version: map.version() };
            match directory.any(shard)?.ask(document, wish).await? {
                Answer::Elsewhere(version) if version > map.version() => {
                    Simulation::befell(Befell::AskedElsewhere);
                    timeout(MAP_WAIT, self.hear_above(map.version(), directory)).await.ok()?;
                }
                Answer::Elsewhere(_) | Answer::Refused => return None,
                Answer::Given(given) => return self.judge(directory, document, wish, given).map(|it| (it, is_known)),
            }
        }
        None
    }

    /// What was answered, if it may be given to a client.
    fn judge(&mut self, directory: &Directory, document: &Named, wish: Wish, given: Given) -> Option<Given> {
        let (position, least) = (given.position, wish.least);
        assert!(position >= least, "position {position} was given for {least}");
        self.hear(directory);
        let map = self.map.as_ref()?;
        let reached = self.least.entry(given.shard).or_default();
        if let Some((newest, map_version)) = given.newest
            && map.version() >= map_version
            && given.behind.is_none()
        {
            *reached = newest.max(*reached);
            self.known.insert(given.shard);
        }
        if map.owner(document.slot).shard != given.shard {
            return None;
        }
        *reached = given.version.position.max(*reached);
        Some(given)
    }

    /// Change streams tell of the shard map, some later than others.
    fn hear(&mut self, directory: &Directory) {
        let version = self.map.as_ref().map_or(0, |map| map.version());
        self.map = directory.heard_map(version).or_else(|| self.map.take());
    }

    async fn hear_above(&mut self, version: u32, directory: &Directory) {
        while self.map.as_ref().is_none_or(|map| map.version() <= version) {
            sleep(Duration::from_millis(10)).await;
            self.hear(directory);
        }
    }
}
