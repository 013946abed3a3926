//! What the writer of the shard queues does with the shard map. Rounds are filed by the same thread, so that whatever
//! comes behind a change of the map is routed by the new one.

use std::sync::Arc;

use millpond_shared::shard_map::{Final, MapRefused, MapState, Move};
use millpond_shared::version::{Position, ShardId};

use super::limits::{GIVER_SILENCE, HANDOVER_BEHIND_MAX_BYTES};
use super::shard_queues::Shared;
use super::shard_writer::{Changes, Done, Stop};
use super::{HandedOver, MapChange, QueueError};
use crate::store::shard_queue_file::{Handed, Transaction};
use crate::timing;

/// Changes the map as part of a transaction.
pub fn change(
    shared: &Shared,
    transaction: &Transaction,
    change: MapChange,
    changes: &mut Changes,
) -> Result<Done, Stop> {
    let before = changes.map_of(shared);
    let after = match (&before, change) {
        (None, MapChange::First(first)) => MapState::first(first),
        (Some(state), MapChange::First(first)) => state.with_shards(first).map_err(refused)?,
        (None, _) => return Err(no_map()),
        (Some(state), MapChange::Begin { slots, to }) => {
            let begun = state.begin(slots, to).map_err(refused)?;
            committed(shared, to).ok_or(QueueError::nobody_serves(to))?;
            begun
        }
        (Some(state), MapChange::Hold { epoch, taken }) => {
            let Move { from, to, .. } = *state.attempt(epoch).map_err(refused)?;
            if committed(shared, to).is_none_or(|committed| committed < taken) {
                return Err(QueueError::ShardFull { shard: to }.into());
            }
            let position = Some(changes.ends_of(shared, from)?.last);
            // Rounds are filed as a whole, so none is left that belongs to the giving shard.
            let known = Final { offsets: Vec::new(), position };
            state.hold(epoch, Some(known)).map_err(refused)?
        }
        (Some(state), MapChange::LetGo { version }) => state.let_go(version).map_err(refused)?,
        (Some(state), MapChange::Complete { epoch, since }) => {
            if handed(shared, changes, epoch) != Some(since) {
                return Err(refused(MapRefused::Over { epoch }));
            }
            state.complete(epoch, since).map_err(refused)?
        }
        (Some(state), MapChange::Stop) => state.stop().map_err(refused)?,
    };
    let after = Arc::new(after);
    if before.is_none_or(|before| before != after) {
        transaction.set_map(&after)?;
        changes.map = Some(after.clone());
    }
    Ok(Done::Map(after))
}

/// Appends what is handed over to the queue of the taking shard, as part of a transaction.
pub fn hand_over(
    shared: &Shared,
    transaction: &Transaction,
    given: &HandedOver,
    changes: &mut Changes,
) -> Result<Done, Stop> {
    let state = changes.map_of(shared).ok_or_else(no_map)?;
    let shard = state.attempt(given.epoch).map_err(refused)?.to;
    let is_overtaken = match given.after {
        Some(after) => handed(shared, changes, given.epoch) != Some(after),
        None => is_given_now(shared, given.epoch),
    };
    if is_overtaken {
        return Err(QueueError::Overtaken { shard }.into());
    }
    if changes.ends_of(shared, shard)?.bytes > HANDOVER_BEHIND_MAX_BYTES {
        return Err(QueueError::ShardFull { shard }.into());
    }
    let ends = transaction.append(shard, 0, &given.bytes)?;
    let handed = Handed { epoch: given.epoch, position: ends.last };
    transaction.set_handed(handed)?;
    changes.ends.insert(shard, ends);
    changes.handed = Some(handed);
    Ok(Done::Position(ends.last))
}

/// What any consumer of a shard queue has committed; `None` if it has none.
fn committed(shared: &Shared, shard: ShardId) -> Option<Position> {
    shared.consumers.lock().of(shard).map(|(_, position)| position).max()
}

/// Whether another replica of the giving shard is at it.
fn is_given_now(shared: &Shared, epoch: u32) -> bool {
    let given = *shared.given.lock();
    given.is_some_and(|(other, at)| other == epoch && timing::now().duration_since(at) < GIVER_SILENCE)
}

/// Position of what was handed over last in an attempt.
fn handed(shared: &Shared, changes: &Changes, epoch: u32) -> Option<Position> {
    let handed = changes.handed.or_else(|| *shared.handed.lock());
    handed.filter(|handed| handed.epoch == epoch).map(|handed| handed.position)
}

fn refused(refused: MapRefused) -> Stop {
    QueueError::from(refused).into()
}

fn no_map() -> Stop {
    QueueError::Map { problem: "there is none yet: start a dispatcher or a shard server first".to_owned() }.into()
}
