//! The shard map as a process knows it: asked for where the queues are, and followed from then on.

use std::sync::Arc;
use std::time::Duration;

use millpond_shared::shard_map::{FirstMap, MapState};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{MapChange, QueueError, ShardMaps};
use crate::timing::{sleep, timeout};

/// The map, and the door that it is changed by. Cheap to share.
#[derive(Clone)]
pub struct KnownMap {
    maps: Arc<dyn ShardMaps>,
    /// What the configuration asks for.
    first: FirstMap,
    told: Arc<watch::Sender<Option<Arc<MapState>>>>,
    /// From an earlier run of this process.
    remembered: Arc<RwLock<Option<Arc<MapState>>>>,
}

/// How long one call waits for the map to change.
const MAP_WAIT: Duration = Duration::from_secs(20);
/// Pause after the queues could not be asked.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

impl KnownMap {
    /// Nothing is known before [`KnownMap::follow`] has been told.
    pub fn new(maps: Arc<dyn ShardMaps>, first: FirstMap) -> KnownMap {
        KnownMap { maps, first, told: Arc::default(), remembered: Arc::default() }
    }

    /// What was known in an earlier run.
    pub fn remember(&self, state: Arc<MapState>) {
        let mut remembered = self.remembered.write();
        if remembered.as_ref().is_none_or(|remembered| remembered.version() < state.version()) {
            *remembered = Some(state);
        }
    }

    /// What the queues have said last, or else what is remembered.
    pub fn latest(&self) -> Option<Arc<MapState>> {
        self.get().or_else(|| self.remembered.read().clone())
    }

    /// Waits for something to be known; whether it is.
    pub async fn known_within(&self, wait: Duration) -> bool {
        let mut told = self.told.subscribe();
        self.latest().is_some() || timeout(wait, told.wait_for(Option::is_some)).await.is_ok()
    }

    /// What the queues have said last; `None` while they could not be asked.
    pub fn get(&self) -> Option<Arc<MapState>> {
        self.told.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Option<Arc<MapState>>> {
        self.told.subscribe()
    }

    pub fn maps(&self) -> &dyn ShardMaps {
        self.maps.as_ref()
    }

    /// Asks the queues for the map of this moment; whether it is known then.
    pub async fn ask_within(&self, wait: Duration) -> bool {
        let known = self.get().map_or(0, |state| state.version());
        match timeout(wait, self.maps.map(known, Duration::ZERO)).await {
            Ok(Ok(Some(state))) => self.tell(state),
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => return false,
        }
        self.get().is_some()
    }

    /// Tells the queues what the configuration asks for, and follows the map for ever. Returns only if the two do not
    /// agree.
    pub async fn follow(&self) -> QueueError {
        loop {
            match self.maps.change_map(MapChange::First(self.first)).await {
                Ok(state) => break self.tell(state),
                Err(error @ QueueError::Map { .. }) => return error,
                Err(error) => {
                    tracing::debug!(%error, "the shard map can't be asked for");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
        loop {
            let known = self.get().map_or(0, |state| state.version());
            match self.maps.map(known, MAP_WAIT).await {
                Ok(Some(state)) => self.tell(state),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "the shard map can't be asked for");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Somebody has learnt of this state.
    pub fn tell(&self, state: MapState) {
        self.told.send_if_modified(|told| {
            let is_newer = told.as_ref().is_none_or(|told| told.version() < state.version());
            if is_newer {
                tracing::info!(version = state.version(), moving = state.moving.is_some(), "the shard map");
                *told = Some(Arc::new(state));
            }
            is_newer
        });
    }
}
