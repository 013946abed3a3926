//! Places in queues, and the versions of documents that follow from them.
//!
//! Decided once, because it is on disk and on the wire: a document's version is (epoch, position), compared in
//! that order. Versions of one document never go back for any client.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Number of an event queue in its array.
pub type QueueId = u16;

/// Number of a shard.
pub type ShardId = u16;

/// Place of one event in its event queue; the first is 1.
pub type Offset = u64;

/// Place of one frame in a queue's sequence of frames; the first is 1, 0 stands before all of them.
pub type Position = u64;

/// Version of a document, and the place a shard has reached.
///
/// Its text is `epoch-position`, both in decimal without leading zeros: `1-4711`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Of the shard: rises when it takes in slots of another one, to the version of the shard map with which that began.
    pub epoch: u32,
    /// Position of the shard-queue frame that changed the document last; 0 for a document no event has reached.
    pub position: Position,
}

impl Version {
    pub const ZERO: Version = Version { epoch: 0, position: 0 };

    pub fn new(epoch: u32, position: Position) -> Version {
        Version { epoch, position }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.position)
    }
}

/// The text is no version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no version: expected `epoch-position`, as in `1-4711`")]
pub struct NoVersion(String);

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Version, NoVersion> {
        fn number<T: FromStr>(digits: &str) -> Option<T> {
            let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
            if canonical { digits.parse().ok() } else { None }
        }
        text.split_once('-')
            .and_then(|(epoch, position)| Some(Version { epoch: number(epoch)?, position: number(position)? }))
            .ok_or_else(|| NoVersion(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_outranks_the_position() {
        assert!(Version::new(2, 1) > Version::new(1, 900));
        assert!(Version::new(1, 10) > Version::new(1, 9));
    }

    #[test]
    fn text_and_back() {
        for version in [Version::ZERO, Version::new(1, 4711), Version::new(u32::MAX, u64::MAX)] {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        for wrong in ["", "1", "1-", "-1", "01-2", "1-+2", "1-2-3", "1- 2", "4294967296-1"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }
}
