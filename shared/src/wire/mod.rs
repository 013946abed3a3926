//! What crosses between roles: frames, the change stream, and the trait by which the proxy reaches the origin.
//!
//! Every message carries a format number; an unknown one is refused in words.

mod changes;
mod frame;
pub mod headers;

pub use changes::{CHANGES_FORMAT, Change, ChangeMessage, Follow, NoMessage};
pub use frame::{EventFrame, FRAME_FORMAT, FiledEvent, NoFrame, Placed, ShardFrame};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::version::ShardId;

/// An origin role in the same process, called instead of a socket. It answers what its socket would answer.
#[async_trait]
pub trait Origin: Send + Sync {
    async fn answer(&self, request: http::Request<Bytes>) -> http::Response<Bytes>;
}

/// The change streams of shards in the same process.
pub trait Changes: Send + Sync {
    /// Messages of the shard's change stream, from [`ChangeMessage::Hello`] on; `None` if the shard is not here.
    fn follow(&self, shard: ShardId, follow: Follow) -> Option<BoxStream<'static, ChangeMessage>>;
}
