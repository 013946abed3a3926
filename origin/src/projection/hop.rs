//! The second hop: what documents tell documents of other keys, as events that pass the event queues once more (pure).
//!
//! A home feed tells the feeds that it follows them; a feed tells its followers' home feeds what is new. The telling
//! shard appends these events before the state that they came of is written, and again after a crash: each may come
//! twice, or late, and must change nothing then.

use std::borrow::Cow;
use std::sync::Arc;

use millpond_shared::event::Event;
use serde::{Deserialize, Serialize};

use super::Item;
use super::followers::Followers;

/// Source of these events. No declared source can have this name.
const HOP_SOURCE: &str = "#hop";

/// What the state of one key has to tell others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Of a home feed, to the feed of this key.
    Follow { feed: Box<str>, follow: Follow },
    /// Of a feed, to these.
    Items { to: Audience, items: Vec<Arc<Item>> },
}

/// Whether a home feed follows a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// Key of the home feed.
    pub home: Box<str>,
    /// Number of the home feed's decision: the latest counts.
    pub decision: u64,
    pub is_followed: bool,
}

/// Items of a feed, on their way to home feeds, or to its excerpts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Key of the feed.
    pub feed: Arc<str>,
    pub items: Arc<[Arc<Item>]>,
}

/// Whom a feed tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The home feed of this key.
    One(Box<str>),
    /// All who follow, as of when there was something to tell.
    All(Followers),
    /// Every shard, for its excerpt.
    Shards,
}

impl Hop {
    /// Whether it goes to excerpts.
    pub fn is_for_shards(&self) -> bool {
        matches!(self, Hop::Items { to: Audience::Shards, .. })
    }
}

/// What a hop's payload holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Follow(Follow),
    News(News),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Payload<'a> {
    #[serde(borrow)]
    News(NewsPayload<'a>),
    Follow(Follow),
}

#[derive(Serialize, Deserialize)]
struct NewsPayload<'a> {
    #[serde(borrow)]
    feed: Cow<'a, str>,
    items: Vec<ItemPayload>,
}

#[derive(Serialize, Deserialize)]
struct ItemPayload {
    order: i64,
    id: Box<str>,
    /// A JSON object as text, so that not a byte of it changes on the way.
    body: String,
}

impl Told {
    /// The event that tells this to documents of `projection`, which are `keys`. `received`: when the event that caused
    /// it was taken, in milliseconds since the Unix epoch.
    pub fn event(&self, projection: &str, keys: &[&str], received: u64) -> Event<'static> {
        let payload = match self {
            Told::Follow(follow) => Payload::Follow(follow.clone()),
            Told::News(News { feed, items }) => {
                let items = items.iter().map(|item| ItemPayload {
                    order: item.order,
                    id: item.id().into(),
                    body: item.body().to_owned(),
                });
                Payload::News(NewsPayload { feed: feed.as_ref().into(), items: items.collect() })
            }
        };
        Event {
            id: "".into(),
            source: HOP_SOURCE.into(),
            kind: projection.to_owned().into(),
            // Keys are percent-encoded: no space is in them.
            subject: Some(keys.join(" ").into()),
            time: 0,
            received,
            // Texts, numbers and flags: this can't fail.
            data: serde_json::to_string(&payload).unwrap_or_default().into(),
        }
    }

    /// What the event tells; `None` if it is damaged.
    pub fn of(event: &Event<'_>) -> Option<Told> {
        match serde_json::from_str(&event.data).ok()? {
            Payload::Follow(follow) => Some(Told::Follow(follow)),
            Payload::News(NewsPayload { feed, items }) => {
                let item = |ItemPayload { order, id, body }| Arc::new(Item::new(order, &id, &body));
                Some(Told::News(News { feed: feed.into(), items: items.into_iter().map(item).collect() }))
            }
        }
    }
}

/// Whether an event is a hop.
pub fn is_hop(event: &Event<'_>) -> bool {
    event.source == HOP_SOURCE
}

/// Whom a hop goes to: the name of the projection, and the keys of its documents.
pub fn addressees<'a>(event: &'a Event<'_>) -> (&'a str, impl Iterator<Item = &'a str>) {
    let keys = event.subject.as_deref().unwrap_or_default().split(' ').filter(|key| !key.is_empty());
    (&event.kind, keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_and_back() {
        let item = Item::new(-5, "a \"b\"", "{\"n\":0.30000000000000004}");
        let follow = Follow { home: "u%20v".into(), decision: u64::MAX, is_followed: false };
        for told in [Told::News(News { feed: "k".into(), items: [Arc::new(item)].into() }), Told::Follow(follow)] {
            let event = told.event("home", &["a%2Fb", "c/d"], 7);
            assert!(is_hop(&event) && event.received == 7);
            let (projection, keys) = addressees(&event);
            assert_eq!((projection, keys.collect::<Vec<_>>()), ("home", vec!["a%2Fb", "c/d"]));
            assert_eq!(Told::of(&event), Some(told.clone()));
            let cut = Event { data: event.data[1..].to_owned().into(), ..event };
            assert_eq!(Told::of(&cut), None);
        }
    }
}
