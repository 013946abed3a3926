//! Memory for bodies: all of them together are bounded, and each has the share that it has grown to.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What many bodies share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

/// What one body has of it; given back when dropped.
#[derive(Debug)]
pub struct Share {
    room: Room,
    taken: Option<OwnedSemaphorePermit>,
}

/// Others have taken what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bodies of other requests take all the memory that bodies may take")]
pub struct NoRoom;

/// Bytes that are given out together.
const UNIT: u64 = 1024;

impl Room {
    /// Of so many bytes.
    pub fn of(bytes: u64) -> Room {
        let units = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        Room(Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))))
    }

    /// Nothing of it, to begin with.
    pub fn share(&self) -> Share {
        Share { room: self.clone(), taken: None }
    }
}

impl Share {
    /// Makes it at least so many bytes. After an error it is what it was.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let wanted = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        let missing = wanted.saturating_sub(self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = self.room.0.clone().try_acquire_many_owned(missing).map_err(|_| NoRoom)?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_until_there_is_no_room_and_come_back() {
        let room = Room::of(10 * UNIT);
        let (mut one, mut other) = (room.share(), room.share());
        assert_eq!((one.grow_to(1), one.grow_to(UNIT), one.grow_to(6 * UNIT)), (Ok(()), Ok(()), Ok(())));
        assert_eq!((other.grow_to(5 * UNIT), other.grow_to(4 * UNIT)), (Err(NoRoom), Ok(())));
        assert_eq!(one.grow_to(6 * UNIT + 1), Err(NoRoom));
        drop(one);
        assert_eq!(other.grow_to(10 * UNIT), Ok(()));
    }
}
