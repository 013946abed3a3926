//! What a batch has to tell documents of other keys: cut into events, fairly, and appended to the event queues.
//!
//! A batch is told before the next one is applied, and before anything that it changed is written: what is in the file was
//! told. After a crash it is told again, which changes nothing (`projection::hop`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_shared::event::Event;
use millpond_shared::projection::{Kind, Projection};
use millpond_shared::version::QueueId;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::Shard;
use crate::projection::{Audience, Cursor, GREAT_FEEDS, Hop, Item, News, Told, excerpt_key};
use crate::queue::{Fate, QueueError};
use crate::timing::sleep;

/// Most keys that one event goes to.
const KEYS_MAX: usize = 1_000;
/// Bytes of their texts after which an event ends.
const KEYS_BYTES: usize = 64 << 10;
/// Bytes of items after which an event ends; one item more than this makes an event of its own.
const ITEMS_BYTES: usize = 128 << 10;
/// Events in one call to a queue.
const CALL_EVENTS: usize = 64;
/// Pause before what a queue did not take is appended again: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Something to tell, and who tells it.
#[derive(Debug)]
pub struct Telling {
    pub projection: u16,
    pub key: Arc<str>,
    pub hop: Hop,
    /// When ingest took the event that it comes of, in milliseconds since the Unix epoch.
    pub received: u64,
}

/// A telling that is under way.
struct UnderWay {
    telling: Telling,
    /// Name of the projection that is told.
    to: String,
    /// How far its audience was told.
    cursor: Cursor,
    /// Items in portions, each of which goes to all of the audience.
    items: VecDeque<Vec<Arc<Item>>>,
}

/// Tellings in turn: each event tells one of them to at most [`KEYS_MAX`] keys, so that one with a large audience does
/// not keep the others waiting.
struct Turns(VecDeque<UnderWay>);

impl Turns {
    fn new(tellings: Vec<Telling>, projections: &[Projection]) -> Turns {
        let begun = |telling: Telling| {
            let projection = projections.get(usize::from(telling.projection))?;
            let to = match &projection.kind {
                Kind::Followed(_) if telling.hop.is_for_shards() => projection.name.clone(),
                Kind::Followed(followed) => followed.home.clone(),
                Kind::Home(gathering) => gathering.feed.clone(),
                Kind::Feed { .. } | Kind::Latest | Kind::Edges(_) | Kind::Counter(_) | Kind::Group(_) => return None,
            };
            let items = match &telling.hop {
                Hop::Items { items, .. } if items.is_empty() => return None,
                Hop::Items { items, .. } => portions(items),
                Hop::Follow { .. } => VecDeque::new(),
            };
            Some(UnderWay { telling, to, cursor: Cursor::default(), items })
        };
        Turns(tellings.into_iter().filter_map(begun).collect())
    }

    /// The next event, and the hash by which its queue is chosen: what concerns one key of those who tell stays in order.
    fn next(&mut self) -> Option<(u64, Event<'static>)> {
        let mut turn = self.0.pop_front()?;
        let hash = xxh3_64(turn.telling.key.as_bytes());
        let received = turn.telling.received;
        match &turn.telling.hop {
            Hop::Follow { feed, follow } => {
                Some((hash, Told::Follow(follow.clone()).event(&turn.to, &[feed], received)))
            }
            Hop::Items { to, .. } => {
                let items = turn.items.front()?.clone();
                let told = Told::News(News { feed: turn.telling.key.clone(), items: items.into() });
                let (keys, next) = match to {
                    Audience::Shards => {
                        let excerpt = excerpt_key(&turn.telling.key).into_boxed_str();
                        (vec![GREAT_FEEDS.into(), excerpt], None)
                    }
                    Audience::One(home) => (vec![home.clone()], None),
                    Audience::All(followers) => followers.page(&turn.cursor, KEYS_MAX, KEYS_BYTES),
                };
                let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
                let event = told.event(&turn.to, &keys, received);
                match next {
                    Some(cursor) => turn.cursor = cursor,
                    None => {
                        turn.items.pop_front();
                        turn.cursor = Cursor::default();
                    }
                }
                if !turn.items.is_empty() {
                    self.0.push_back(turn);
                }
                Some((hash, event))
            }
        }
    }
}

fn portions(items: &[Arc<Item>]) -> VecDeque<Vec<Arc<Item>>> {
    let (mut portions, mut bytes): (VecDeque<Vec<Arc<Item>>>, usize) = (VecDeque::new(), 0);
    for item in items {
        if portions.is_empty() || bytes >= ITEMS_BYTES {
            portions.push_back(Vec::new());
            bytes = 0;
        }
        bytes += item.weight();
        portions.back_mut().into_iter().for_each(|portion| portion.push(item.clone()));
    }
    portions
}

impl Shard {
    /// To be told once the batch is applied.
    pub(super) fn keep_tellings(&self, tellings: Vec<Telling>) {
        if !tellings.is_empty() {
            self.untold.store(true, Ordering::Release);
            self.tellings.lock().extend(tellings);
        }
    }

    /// Tells what the batch has to tell. If the shard is to stop before that is done, nothing is written any more, and all
    /// of it happens again after the next start.
    pub(super) async fn tell_batch(&self, stop: &mut watch::Receiver<bool>) {
        let tellings = std::mem::take(&mut *self.tellings.lock());
        if tellings.is_empty() || self.tell_others(tellings, stop).await {
            self.untold.store(false, Ordering::Release);
        }
    }

    /// Appends all that is to be told; `false` if the shard is to stop before that is done.
    async fn tell_others(&self, tellings: Vec<Telling>, stop: &mut watch::Receiver<bool>) -> bool {
        let mut turns = Turns::new(tellings, &self.projections);
        let (mut count, mut pause) = (None, PAUSE.0);
        let mut waiting: Vec<(u64, Event<'static>)> = Vec::new();
        loop {
            while waiting.len() < CALL_EVENTS
                && let Some(event) = turns.next()
            {
                waiting.push(event);
            }
            if waiting.is_empty() {
                return true;
            }
            let before = waiting.len();
            match self.append(&mut count, &mut waiting).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(shard = self.id, %error, "what documents tell others can't be appended; trying again")
                }
            }
            self.metrics.told.inc_by((before - waiting.len()) as u64);
            if waiting.is_empty() {
                pause = PAUSE.0;
                continue;
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return false,
                () = sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            }
        }
    }

    /// Appends what is waiting; what a queue had no room for is left.
    async fn append(
        &self,
        count: &mut Option<u16>,
        waiting: &mut Vec<(u64, Event<'static>)>,
    ) -> Result<(), QueueError> {
        let queues = self.events.as_ref().ok_or(QueueError::Closed)?;
        let count = match count {
            Some(count) => *count,
            None => *count.insert(queues.count().await?.max(1)),
        };
        for queue in 0..count {
            let is_its = |(hash, _): &(u64, Event<'_>)| (*hash % u64::from(count)) as QueueId == queue;
            let its: Vec<Event<'static>> =
                waiting.iter().filter(|one| is_its(one)).map(|(_, event)| event.clone()).collect();
            if its.is_empty() {
                continue;
            }
            let mut fates = queues.append(queue, None, its).await?.into_iter();
            waiting.retain(|one| !is_its(one) || self.is_left(fates.next(), &one.1));
        }
        Ok(())
    }

    /// Whether an event has to be appended again.
    fn is_left(&self, fate: Option<Fate>, event: &Event<'_>) -> bool {
        match fate {
            Some(Fate::Stored { .. } | Fate::Duplicate) => false,
            Some(Fate::TooLarge) => {
                // It never can be: only an item that takes nearly all of a message comes to this.
                tracing::error!(shard = self.id, projection = %event.kind, bytes = event.data.len(), "an item is too large to be told");
                false
            }
            Some(Fate::Full) | None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use millpond_shared::projection::Followed;

    use super::*;
    use crate::projection::testing::declared;
    use crate::projection::{Followers, addressees};

    fn projections() -> Vec<Projection> {
        let mut projections =
            declared("name = \"posts\"\nkind = \"feed\"\nkey = \"{data.user}\"\nitem = { id = \"{id}\" }");
        projections[0].kind = Kind::Followed(Followed { keep: 9, home: "home".to_owned(), told: 9, fanout_max: 9_999 });
        projections
    }

    fn telling(key: &str, followers: usize, bodies: &[usize]) -> Telling {
        let mut all = Followers::default();
        (0..followers).for_each(|n| assert!(all.insert(&format!("{key}-{n}"), 1)));
        let item = |length: &usize| Arc::new(Item::new(1, "i", &"x".repeat(*length)));
        let hop = Hop::Items { to: Audience::All(all), items: bodies.iter().map(item).collect() };
        Telling { projection: 0, key: key.into(), hop, received: 5 }
    }

    fn told(event: &Event<'_>) -> (String, usize, usize) {
        let Some(Told::News(news)) = Told::of(event) else { panic!("{event:?}") };
        (news.feed.to_string(), addressees(event).1.count(), news.items.len())
    }

    #[test]
    fn those_with_many_followers_do_not_keep_the_others_waiting() {
        let tellings = vec![telling("a", 2_500, &[1]), telling("b", 1, &[1]), telling("c", 1_001, &[1])];
        let mut turns = Turns::new(tellings, &projections());
        let events: Vec<_> = std::iter::from_fn(|| turns.next()).map(|(_, event)| told(&event)).collect();
        let expected = [("a", 1_000), ("b", 1), ("c", 1_000), ("a", 1_000), ("c", 1), ("a", 500)];
        assert_eq!(events, expected.map(|(feed, keys)| (feed.to_owned(), keys, 1)));
    }

    #[test]
    fn many_items_are_told_in_portions_to_everybody() {
        let items = [ITEMS_BYTES / 2, ITEMS_BYTES, 10, 2 * ITEMS_BYTES];
        let mut turns = Turns::new(vec![telling("a", 1_001, &items)], &projections());
        let events: Vec<_> = std::iter::from_fn(|| turns.next()).map(|(_, event)| told(&event)).collect();
        let expected = [(1_000, 2), (1, 2), (1_000, 2), (1, 2)];
        assert_eq!(events, expected.map(|(keys, items)| ("a".to_owned(), keys, items)));
    }

    #[test]
    fn what_has_nobody_to_go_to_is_over() {
        let mut turns = Turns::new(vec![telling("a", 0, &[])], &projections());
        assert!(turns.next().is_none());
    }
}
