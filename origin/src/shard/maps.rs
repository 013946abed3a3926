//! A shard and the shard map: remembers it, tells those who follow, and gives slots away where the map says so.

use std::sync::Arc;

use millpond_shared::shard_map::MapState;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};

use super::give::Giver;
use super::{Shard, ShardError};
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
        let mut told = known.watch();
        // Ends with this.
        let mut giving = JoinSet::new();
        let mut attempt = None;
        loop {
            let state = told.borrow_and_update().clone();
            if let Some(state) = state {
                let moving = state.moving.clone().filter(|moving| moving.from == self.id);
                self.keep_map(state).await?;
                let asked = moving.as_ref().map(|moving| moving.epoch);
                if asked != attempt {
                    giving.shutdown().await;
                    self.touched.end();
                    attempt = asked;
                    if let Some(moving) = moving {
                        let (shard, known) = (self.clone(), known.clone());
                        giving.spawn(Giver { shard, known, moving }.run());
                    }
                }
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                changed = told.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    async fn keep_map(self: &Arc<Self>, state: Arc<MapState>) -> Result<(), ShardError> {
        if self.kept_map().is_some_and(|kept| kept.version() >= state.version()) {
            return Ok(());
        }
        let (shard, keeping) = (self.clone(), state.clone());
        let kept = spawn_blocking(move || shard.file.keep_map(&keeping)).await?;
        kept.map_err(|problem| ShardError::Commit { shard: self.id, problem })?;
        self.changes.tell_map(Arc::new(state.map.clone()));
        self.kept_map.send_replace(Some(state));
        Ok(())
    }
}
