//! The change stream: one JSON object a line, from shard to proxy, over a response that never ends.

use serde::{Deserialize, Serialize};

use crate::shard_map::ShardMap;
use crate::version::{Position, ShardId, Version};

/// Format number of the change stream.
pub const CHANGES_FORMAT: u16 = 2;

/// How often a shard says that it is there when nothing changes, in milliseconds. A proxy that hears nothing for
/// [`SILENCE_MAX_MS`](ChangeMessage::SILENCE_MAX_MS) no longer trusts its copies.
const TICK_MS: u64 = 500;

/// Where a follower wants to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follow {
    /// The last position whose changes it has seen; `None`: it has seen nothing.
    pub after: Option<Position>,
}

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "lowercase")]
pub enum ChangeMessage {
    /// The first line.
    Hello {
        format: u16,
        shard: ShardId,
        /// Whether every change after [`Follow::after`] will follow. If not, every copy from this shard must be
        /// revalidated.
        resumed: bool,
        /// The position the shard has applied. It may be behind the follower's after a restart.
        at: Position,
    },
    /// The shard has applied everything up to `at`; these documents changed.
    Changes { at: Position, documents: Vec<Change> },
    /// Nothing changed; the shard is there.
    Tick { at: Position },
    /// The shard map, as far as the shard knows: behind [`ChangeMessage::Hello`], and whenever it has changed.
    Map { at: Position, map: ShardMap },
}

/// "Document D is now at version V."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Tag of the document, `projection/key`.
    pub tag: String,
    pub version: Version,
}

/// The line is no message of a format that is known here.
#[derive(Debug, thiserror::Error)]
#[error("not a message of change stream format {CHANGES_FORMAT}: {0}")]
pub struct NoMessage(String);

impl ChangeMessage {
    pub const TICK_MS: u64 = TICK_MS;
    /// Silence, in milliseconds, after which every copy from the shard must be revalidated.
    pub const SILENCE_MAX_MS: u64 = 2_000;

    /// The position that the shard has applied.
    pub fn at(&self) -> Position {
        match self {
            ChangeMessage::Hello { at, .. }
            | ChangeMessage::Changes { at, .. }
            | ChangeMessage::Tick { at }
            | ChangeMessage::Map { at, .. } => *at,
        }
    }

    /// The message as a line, its line feed included.
    pub fn to_line(&self) -> String {
        // Numbers, flags and strings: this can't fail.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Reads a line, with or without its line feed.
    pub fn from_line(line: &[u8]) -> Result<ChangeMessage, NoMessage> {
        let message = serde_json::from_slice(line).map_err(|error| NoMessage(error.to_string()))?;
        match message {
            ChangeMessage::Hello { format, .. } if format != CHANGES_FORMAT => {
                Err(NoMessage(format!("the shard speaks format {format}: run the same version on both sides")))
            }
            message => Ok(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_back() {
        for message in [
            ChangeMessage::Hello { format: CHANGES_FORMAT, shard: 3, resumed: true, at: 9 },
            ChangeMessage::Changes {
                at: 10,
                documents: vec![Change { tag: "user-edits/%23a".to_owned(), version: Version::new(1, 10) }],
            },
            ChangeMessage::Tick { at: 10 },
            ChangeMessage::Map { at: 10, map: ShardMap::even(1, 4) },
        ] {
            assert_eq!(ChangeMessage::from_line(message.to_line().as_bytes()).expect("a message"), message);
        }
    }

    #[test]
    fn an_unknown_format_is_refused_in_words() {
        let line = br#"{"message":"hello","format":3,"shard":0,"resumed":true,"at":0}"#;
        let error = ChangeMessage::from_line(line).expect_err("refused");
        assert!(error.to_string().contains("format 3"), "{error}");
        assert!(ChangeMessage::from_line(b"{}").is_err());
    }
}
