//! The processes that hold one shard, a primary and its spares: the one further ahead is asked, another at once if that
//! fails.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::Framing;
use millpond_shared::wire::headers;

use super::OriginError;
use super::answer::{Answer, Payload};
use super::exchange::Failure;
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::servers::Server;
use crate::live::Reach;

/// All replicas of one shard.
#[derive(Debug)]
pub struct Replicas(Vec<Replica>);

#[derive(Debug)]
struct Replica {
    server: Server,
    reach: Arc<Reach>,
}

impl Replicas {
    pub fn new(places: impl IntoIterator<Item = (SocketAddr, Arc<Reach>)>) -> Replicas {
        Replicas(
            places.into_iter().map(|(address, reach)| Replica { server: Server::new(address.into()), reach }).collect(),
        )
    }

    /// The furthest first; those that can't be reached last, as they may have come back.
    fn order(&self, now: impl Fn() -> u64) -> Vec<&Replica> {
        let mut all: Vec<&Replica> = self.0.iter().collect();
        if all.len() > 1 {
            all.sort_by_cached_key(|replica| (replica.server.is_skipped(&now), Reverse(replica.reach.get())));
        }
        all
    }

    pub(super) async fn ask(
        &self,
        pool: &Arc<Pool>,
        outgoing: &Outgoing<'_>,
        mut payload: Payload<'_>,
        retry: bool,
    ) -> Result<Answer, OriginError> {
        let mut failure = OriginError::Unreachable("the shard has no address".to_owned());
        let mut fallback: Option<Answer> = None;
        for replica in self.order(clock::wall_ms) {
            match replica.server.exchange(pool, outgoing, &mut payload, retry).await {
                Ok(answer) if self.0.len() > 1 && is_behind(&answer) => {
                    // An older document is better than none.
                    let refused = |answer: &Answer| answer.head.status == StatusCode::SERVICE_UNAVAILABLE;
                    if fallback.as_ref().is_none_or(refused) {
                        fallback = Some(answer);
                    }
                }
                Ok(answer) => return Ok(answer),
                Err(Failure::NotConnected(words)) => failure = OriginError::Unreachable(words),
                Err(Failure::ReusedWasClosed) => failure = OriginError::Closed,
                // Shards change nothing by being asked, so they can be asked twice.
                Err(Failure::Other(error @ (OriginError::Closed | OriginError::Malformed(_)))) => failure = error,
                Err(Failure::Other(error)) => return Err(error),
            }
            if payload.framing != Framing::None {
                // What the client sent is gone.
                break;
            }
        }
        fallback.ok_or(failure)
    }
}

/// Whether the replica has not come as far as it was asked for, or was before.
fn is_behind(answer: &Answer) -> bool {
    answer.head.status == StatusCode::SERVICE_UNAVAILABLE || answer.head.fields.contains(headers::BEHIND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_further_ahead_is_asked_first_and_the_dead_last() {
        let reaches: Vec<Arc<Reach>> = (0..3).map(|_| Arc::default()).collect();
        let place = |(number, reach): (usize, &Arc<Reach>)| {
            (SocketAddr::from(([127, 0, 0, 1], number as u16)), Arc::clone(reach))
        };
        let replicas = Replicas::new(reaches.iter().enumerate().map(place));
        let order = |now: u64| -> Vec<usize> {
            let place = |replica: &&Replica| reaches.iter().position(|reach| Arc::ptr_eq(reach, &replica.reach));
            replicas.order(|| now).iter().filter_map(place).collect()
        };
        assert_eq!(order(0), [0, 1, 2], "nothing is known of any");
        reaches[1].tell(7);
        reaches[2].tell(8);
        assert_eq!(order(0), [2, 1, 0]);
        reaches[1].tell(9);
        assert_eq!(order(0), [1, 2, 0]);
        replicas.0[1].server.died(100);
        assert_eq!(order(100), [2, 0, 1]);
        reaches[2].lose();
        assert_eq!(order(100), [0, 2, 1], "its stream broke");
        assert_eq!(order(100_000), [1, 0, 2], "tried again after a while");
    }
}
