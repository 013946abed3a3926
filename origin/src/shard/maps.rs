//! A shard and the shard map: remembers it, tells those who follow, and gives slots away where the map says so.

use std::future::pending;
use std::sync::Arc;

use millpond_shared::shard_map::{MapState, Move};
use tokio::sync::watch;

use super::give::Giver;
use super::{Shard, ShardError};
use crate::blocking::apart;
use crate::queue::KnownMap;

impl Shard {
    /// The shard map that is in the shard's file.
    pub fn kept_map(&self) -> Option<Arc<MapState>> {
        self.kept_map.borrow().clone()
    }

    /// Does what each version of the map asks for, until `stop` is true.
    pub async fn follow_map(
        self: Arc<Self>,
        known: KnownMap,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), ShardError> {
        let (ask, asked) = watch::channel(None);
        let giving = self.give(&known, asked);
        let keeping = async {
            let mut told = known.watch();
            loop {
                let state = told.borrow_and_update().clone();
                if let Some(state) = state {
                    let moving = state.moving.clone().filter(|moving| moving.from == self.id);
                    self.keep_map(state).await?;
                    ask.send_if_modified(|asked| {
                        let is_other = attempt(asked) != attempt(&moving);
                        *asked = moving;
                        is_other
                    });
                }
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return Ok(()),
                    changed = told.changed() => if changed.is_err() { return Ok(()) },
                }
            }
        };
        tokio::select! {
            biased;
            ended = keeping => ended,
            () = giving => Ok(()),
        }
    }

    /// Gives away what is asked for, one attempt after the other, while somebody may ask.
    async fn give(self: &Arc<Self>, known: &KnownMap, mut asked: watch::Receiver<Option<Move>>) {
        loop {
            let moving = asked.borrow_and_update().clone();
            let giving = async {
                if let Some(moving) = moving {
                    Giver { shard: self.clone(), known: known.clone(), moving }.run().await;
                }
                pending().await
            };
            let changed = tokio::select! {
                biased;
                changed = asked.changed() => changed,
                () = giving => Ok(()),
            };
            self.touched.end();
            if changed.is_err() {
                return;
            }
        }
    }

    async fn keep_map(self: &Arc<Self>, state: Arc<MapState>) -> Result<(), ShardError> {
        if self.kept_map().is_some_and(|kept| kept.version() >= state.version()) {
            return Ok(());
        }
        let (shard, keeping) = (self.clone(), state.clone());
        let kept = apart(move || shard.file.keep_map(&keeping)).await?;
        kept.map_err(|problem| ShardError::Commit { shard: self.id, problem })?;
        self.changes.tell_map(Arc::new(state.map.clone()));
        self.kept_map.send_replace(Some(state));
        Ok(())
    }
}

/// Number of the attempt, if something moves.
fn attempt(moving: &Option<Move>) -> Option<u32> {
    moving.as_ref().map(|moving| moving.epoch)
}
