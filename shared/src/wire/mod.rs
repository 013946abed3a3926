//! What crosses between roles: frames, the change stream, and the trait by which the proxy reaches the origin.
//!
//! Every message carries a format number; an unknown one is refused in words.

mod changes;
mod frame;
pub mod headers;
mod origin;

pub use changes::{CHANGES_FORMAT, Change, ChangeMessage, Follow, NoMessage};
pub use frame::{
    EventFrame, FRAME_FORMAT, FiledEvent, HANDOVER_FORMAT, HandedDocument, Handover, NoFrame, Placed, ShardFrame,
    ShardMessage,
};
pub use origin::{Intake, Origin, Taker};

use futures_util::stream::BoxStream;

use crate::version::ShardId;

/// The change streams of shards in the same process.
pub trait Changes: Send + Sync {
    /// Messages of the shard's change stream, from [`ChangeMessage::Hello`] on; `None` if the shard is not here.
    fn follow(&self, shard: ShardId, follow: Follow) -> Option<BoxStream<'static, ChangeMessage>>;
}
