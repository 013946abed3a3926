//! Shards behind a rule: which one owns the document that is asked for, what its answer must have reached, and what that
//! tells.

use millpond_shared::http1::{Fields, RequestHead};
use millpond_shared::version::{Position, ShardId};
use millpond_shared::wire::headers;

use super::{Gateway, Snapshot, Visit};
use crate::live::Least;
use crate::rules::Rule;
use crate::upstreams::{Answer, OriginError, Outgoing, Payload};

impl Gateway {
    /// Asks the origin of the rule, and learns from a shard's answer where its queue ended.
    pub(super) async fn ask(
        &self,
        snapshot: &Snapshot,
        rule: &Rule,
        outgoing: &Outgoing<'_>,
        payload: Payload<'_>,
    ) -> Result<Answer, OriginError> {
        let answer = snapshot.upstreams.ask(&rule.origin, outgoing, payload, rule.retry, &self.counters).await?;
        if snapshot.upstreams.shards(&rule.origin).is_some()
            && let Some((shard, newest)) = self.reached_newest(&answer.head.fields)
        {
            self.live.learnt(shard, newest);
        }
        Ok(answer)
    }

    /// The shard that answers, and where its queue ended, if its answer has all of that; and if this process knows the shard
    /// map by which it was asked: another replica could go by an older one.
    fn reached_newest(&self, fields: &Fields) -> Option<(ShardId, Position)> {
        let newest = fields.get_str(headers::NEWEST)?.parse().ok()?;
        let shard = fields.get_str(headers::SHARD)?.parse().ok()?;
        let map: u32 = fields.get_str(headers::MAP_VERSION)?.parse().ok()?;
        let is_known = self.live.map().is_some_and(|known| known.version() >= map);
        (is_known && !fields.contains(headers::BEHIND)).then_some((shard, newest))
    }

    /// What an answer to this request must have reached at least.
    pub(super) fn least(&self, visit: &Visit<'_>) -> Least {
        let shard = self.shard(visit.snapshot, visit.rule, visit.request);
        shard.map_or_else(Least::default, |shard| self.live.least(shard))
    }

    /// The shard that owns the document, where the rule's origin is the shards.
    pub(super) fn shard(&self, snapshot: &Snapshot, rule: &Rule, request: &RequestHead) -> Option<ShardId> {
        snapshot.upstreams.shards(&rule.origin)?.owner(request.target.path_and_query())
    }
}
