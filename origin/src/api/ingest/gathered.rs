//! A body that comes piece by piece from the proxy of the same process and is wanted whole: gathered here, so that all of
//! them together take no more memory than bodies may, as on ingest's own socket.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use millpond_shared::clock;
use millpond_shared::wire::Taker;

use super::answers::{self, Refused};
use super::asked::Asked;
use super::walk::Walk;
use crate::http::{ServerLimits, Share};

/// A body on its way.
pub struct Gathered {
    walk: Arc<Walk>,
    head: Request<()>,
    /// Bytes that it may have.
    max: u64,
    body: BytesMut,
    share: Share,
    began: Instant,
}

impl Gathered {
    pub fn new(walk: Arc<Walk>, head: Request<()>, max: u64) -> Gathered {
        let share = walk.room.share();
        Gathered { walk, head, max, body: BytesMut::new(), share, began: clock::monotonic() }
    }
}

#[async_trait]
impl Taker for Gathered {
    async fn take(&mut self, piece: Bytes) -> Result<(), Refused> {
        let length = (self.body.len() + piece.len()) as u64;
        if length > self.max {
            return Err(answers::too_large(&format!(
                "the body is larger than {} bytes, the limit of this source",
                self.max
            )));
        }
        let limits = ServerLimits::default();
        if clock::monotonic().duration_since(self.began) > limits.body_due(length) {
            return Err(limits.too_slow().into());
        }
        self.share.grow_to(length).map_err(|none| answers::unavailable(&none.to_string()))?;
        self.body.extend_from_slice(&piece);
        Ok(())
    }

    async fn end(mut self: Box<Self>) -> Response<Bytes> {
        let target = self.head.uri().path_and_query().map_or("", |target| target.as_str());
        let asked = Asked::new(self.head.method(), target, self.head.headers());
        self.walk.take(&asked, std::mem::take(&mut self.body).freeze()).await
    }
}
