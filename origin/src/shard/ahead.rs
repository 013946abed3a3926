//! Reading ahead: while a batch is applied, the next one is pulled, and what it needs is read from the file.
//!
//! What is read this way counts as what a reader brings back: nothing depends on it, and what a commit comes between is
//! read again when the batch is applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_shared::version::Position;
use millpond_shared::wire::ShardMessage;
use tokio::sync::watch;

use super::Shard;
use super::pull::PULL_BYTES;
use super::state::Looked;
use crate::blocking::apart;
use crate::queue::{Pulled, QueueError};
use crate::timing::timeout;

/// Documents that are read between two looks at whether a commit came in between.
const READ_AT_ONCE: usize = 64;
/// How long a queue that holds more is given to hand it out. If it takes longer it is asked again.
const AHEAD_WAIT: Duration = Duration::from_secs(5);

impl Shard {
    /// The batch behind `pulled`, if the queue is known to hold more, and the shard is not to stop.
    pub(super) async fn ahead_of(
        self: &Arc<Self>,
        pulled: &Pulled,
        mut stop: watch::Receiver<bool>,
    ) -> Option<Result<Pulled, QueueError>> {
        let (after, _) = pulled.frames.last().filter(|(position, _)| *position < pulled.last)?;
        let next = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return None,
            next = timeout(AHEAD_WAIT, self.queues.pull(self.id, *after, PULL_BYTES, Duration::ZERO)) => next.ok()?,
        };
        if let Ok(next) = &next
            && self.state.read().is_cold()
        {
            self.read_for(next).await;
        }
        Some(next)
    }

    /// Reads the documents of a batch that are not in memory, by two threads: most of the time goes into decoding them.
    async fn read_for(self: &Arc<Self>, pulled: &Pulled) {
        let (shard, frames) = (self.clone(), pulled.frames.clone());
        let Ok(missing) = apart(move || shard.missing(&frames)).await else { return };
        let (one, other) = missing.split_at(missing.len() / 2);
        let read = |wanted: &[(u16, Arc<str>)]| {
            let (shard, wanted) = (self.clone(), wanted.to_vec());
            apart(move || shard.bring_all_back(&wanted))
        };
        let _ = tokio::join!(read(one), read(other));
    }

    /// The documents of these frames that are not in memory, in the order of the file.
    fn missing(&self, frames: &[(Position, Bytes)]) -> Vec<(u16, Arc<str>)> {
        let mut missing = BTreeSet::new();
        for (_, frame) in frames {
            // What can't be read is told when the batch is applied.
            let Ok(ShardMessage::Events(frame)) = ShardMessage::decode(frame) else { continue };
            let index = |name: &str| self.projections.iter().position(|projection| projection.name == name);
            let declared: Vec<_> = frame.projections.iter().map(|name| u16::try_from(index(name)?).ok()).collect();
            let state = self.state.read();
            for (name, key) in frame.events.iter().flat_map(|filed| &filed.routes) {
                let Some(&Some(projection)) = declared.get(usize::from(*name)) else { continue };
                if matches!(state.look(projection, key), Looked::MayBeCold(_)) {
                    missing.insert((projection, Arc::from(key.as_ref())));
                }
            }
        }
        missing.into_iter().collect()
    }

    fn bring_all_back(&self, wanted: &[(u16, Arc<str>)]) {
        for wanted in wanted.chunks(READ_AT_ONCE) {
            let (commits, bytes) = {
                let state = self.state.read();
                (state.commits(), state.bytes())
            };
            if bytes >= self.settings.memory {
                return;
            }
            let Ok(rows) = self.file.read(wanted) else { return };
            self.metrics.read.inc_by(rows.len() as u64);
            let mut state = self.state.write();
            for row in rows {
                state.bring_back(row, commits, self.settings.memory);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Call, Site};
    use super::*;
    use crate::projection::testing::{declared, event};

    /// A site whose file holds documents `u0` to `u8`, and whose queue holds three batches more about them.
    async fn site() -> (Site, Position) {
        let site = Site::new(declared(
            "name = \"p\"\nkind = \"feed\"\nkeep = 2\nkey = \"{data.user}\"\nitem = { id = \"{id}\", text = \"{data.text}\" }",
        ));
        let about = |id: &str, n: i64, text: &str| event(id, n, &format!(r#"{{"user":"u{n}","text":"{text}"}}"#));
        let all: Vec<_> = (0..9).map(|n| about("a", n, "")).collect();
        let committed = site.queue.push(&site.frame(0, 1, &all));
        let shard = site.open();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn({
            let shard = shard.clone();
            async move { shard.run(stopped).await }
        });
        shard.applied().wait_for(|applied| *applied == committed).await.expect("applied");
        stop.send_replace(true);
        running.await.expect("no panic").expect("stopped");
        let text = "x".repeat(PULL_BYTES / 3);
        for n in 0..9 {
            site.queue.push(&site.frame(0, 10 + n as u64, &[about("b", n, &text)]));
        }
        (Site { disk: site.disk.crash(), ..site }, committed)
    }

    #[tokio::test]
    async fn the_next_batch_is_pulled_and_what_it_needs_is_in_memory_before_it_is_applied() {
        let (site, committed) = site().await;
        let shard = site.open();
        let (_stop, stopped) = watch::channel(false);
        let pulled = site.queue.pulled(committed, 2);
        let next = shard.ahead_of(&pulled, stopped.clone()).await.expect("there is more").expect("pulled");
        assert_eq!(next.frames.iter().map(|frame| frame.0).collect::<Vec<_>>(), [committed + 3, committed + 4]);
        let is_here = |key: &str| matches!(shard.state.read().look(0, key), Looked::Here(_));
        assert_eq!(["u1", "u2", "u3", "u4"].map(is_here), [false, true, true, false]);
        assert_eq!(*shard.applied().borrow(), committed, "nothing is applied");

        let all = site.queue.pulled(committed, usize::MAX);
        assert!(shard.ahead_of(&all, stopped).await.is_none(), "there is nothing behind it");
        assert!(shard.ahead_of(&pulled, watch::channel(true).1).await.is_none(), "it is to stop");
    }

    #[tokio::test]
    async fn batches_that_are_read_ahead_give_the_same_documents() {
        let (site, committed) = site().await;
        let shard = site.open();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn({
            let shard = shard.clone();
            async move { shard.run(stopped).await }
        });
        let last = committed + 9;
        shard.applied().wait_for(|applied| *applied == last).await.expect("applied");
        for n in 0..9 {
            let state = shard.state.read();
            let Looked::Here(document) = state.look(0, &format!("u{n}")) else { panic!("u{n} is not there") };
            assert_eq!(document.items().map(|item| item.id.as_ref()).collect::<Vec<_>>(), ["b", "a"], "u{n}");
            assert_eq!(document.version.position, committed + 1 + n);
        }
        assert_eq!(shard.metrics.read.get(), 9, "each was read once");
        stop.send_replace(true);
        running.await.expect("no panic").expect("stopped");
        let pulls: Vec<_> = (site.queue.calls.lock().iter())
            .filter_map(|call| if let Call::Pull { after } = call { Some(*after) } else { None })
            .collect();
        let again = pulls.iter().rposition(|after| *after == committed).expect("pulled from there");
        assert!(pulls[again..].windows(2).all(|pair| pair[0] < pair[1]), "nothing is pulled twice: {pulls:?}");
    }
}
