//! Home feeds, whatever the order in which hops come, against all items of the feeds that are followed.

use std::collections::{BTreeMap, BTreeSet};

use millpond_shared::projection::Followed as Declared;
use proptest::prelude::*;

use super::super::followed::Followed;
use super::super::followers::Cursor;
use super::super::hop::Audience;
use super::*;

const KEEP: usize = 3;
const FEED_KEEP: usize = 4;
const FOLLOWS_MAX: usize = 3;

/// What happens, in whatever order it arrives.
#[derive(Clone, Debug)]
enum Act {
    Point { home: u8, feed: u8, order: i64, id: u8, is_followed: bool },
    Post { feed: u8, order: i64, id: u8, body: u8 },
}

/// Something on its way to the state of a key.
#[derive(Clone, Debug)]
enum Message {
    Act(Act),
    Follow(Box<str>, Follow),
    News(Box<str>, News),
    /// To the list of great feeds.
    Listed(News),
    /// To an excerpt.
    Excerpt(News),
}

/// With one follower a feed tells it, with two it is a great feed.
fn declared() -> Declared {
    Declared { keep: FEED_KEEP, home: "home".to_owned(), told: KEEP, fanout_max: 1 }
}

#[derive(Default)]
struct World {
    homes: BTreeMap<String, Home>,
    feeds: BTreeMap<String, Followed>,
    list: Followed,
    excerpts: BTreeMap<String, Followed>,
}

fn item(order: i64, id: u8, body: &str) -> Item {
    Item::new(order, &id.to_string(), body)
}

impl World {
    /// What comes of a message.
    fn take(&mut self, message: Message) -> Vec<Message> {
        let mut hops = Vec::new();
        let feed: Arc<str> = match message {
            Message::Act(Act::Point { home, feed, order, id, is_followed }) => {
                let key = home.to_string();
                let edge =
                    Edge { to: feed.to_string().into(), item: item(order, id, if is_followed { "{}" } else { "" }) };
                let home = self.homes.entry(key.clone()).or_default();
                home.point(KEEP, FOLLOWS_MAX, edge, &key, &mut hops);
                "".into()
            }
            Message::Act(Act::Post { feed, order, id, body }) => {
                let key = feed.to_string();
                let item = item(order, id, &format!("{{\"n\":{body}}}"));
                self.feeds.entry(key.clone()).or_default().insert(&declared(), item, &mut hops);
                key.into()
            }
            Message::Follow(feed, follow) => {
                self.feeds.entry(feed.to_string()).or_default().follow(&declared(), &follow, &mut hops);
                feed.into()
            }
            Message::News(home, news) => {
                let home = self.homes.entry(home.to_string()).or_default();
                let (before, would) = (home.clone(), home.would_change(KEEP, &news));
                assert_eq!((home.insert(KEEP, &news), would), (*home != before, *home != before));
                return Vec::new();
            }
            Message::Listed(news) => {
                let would = !self.list.lists(&news.feed);
                assert_eq!(self.list.list(&news.feed), would);
                return Vec::new();
            }
            Message::Excerpt(news) => {
                let excerpt = self.excerpts.entry(news.feed.to_string()).or_default();
                let would = excerpt.would_excerpt(&declared(), &news);
                assert_eq!(excerpt.excerpt(&declared(), &news), would);
                return Vec::new();
            }
        };
        hops.into_iter().flat_map(|hop| messages(hop, &feed)).collect()
    }

    /// What a home feed shows.
    fn shown(&self, home: &str) -> Vec<(i64, String, String, String)> {
        let Some(home) = self.homes.get(home) else { return Vec::new() };
        let great = home.great_feeds(&self.list);
        let by_hand: Vec<&str> =
            home.follows.there().map(|(feed, _)| &**feed).filter(|feed| self.list.lists(feed)).collect();
        assert_eq!(great.iter().map(|feed| &**feed).collect::<Vec<_>>(), by_hand);
        let items = |feed: &str| Some(self.excerpts.get(feed)?.items());
        let excerpts: Vec<(&Arc<str>, &Items)> = great.iter().filter_map(|feed| Some((feed, items(feed)?))).collect();
        let merged = home.merged(KEEP, excerpts.iter().copied());
        assert_eq!(merged.weight, merged.items.iter().map(Gathered::weight).sum::<usize>());
        assert_eq!(home.clone().with(KEEP, excerpts.iter().copied()).items, merged.items);
        let item = |Gathered { item, feed }: &Gathered| {
            (item.order, item.id().to_owned(), feed.to_string(), item.body().to_owned())
        };
        merged.items.iter().map(item).collect()
    }
}

fn messages(hop: Hop, feed: &Arc<str>) -> Vec<Message> {
    match hop {
        Hop::Follow { feed, follow } => vec![Message::Follow(feed, follow)],
        Hop::Items { to: Audience::Shards, items } => {
            let news = News { feed: feed.clone(), items: items.into() };
            vec![Message::Listed(news.clone()), Message::Excerpt(news)]
        }
        Hop::Items { to, items } => {
            let homes = match to {
                Audience::Shards => Vec::new(),
                Audience::One(home) => vec![home],
                Audience::All(followers) => followers.page(&Cursor::default(), usize::MAX, usize::MAX).0,
            };
            let news = News { feed: feed.clone(), items: items.into() };
            homes.into_iter().map(|home| Message::News(home, news.clone())).collect()
        }
    }
}

/// By the definition at the head of this file: the newest of the newest of all feeds that are followed.
fn model(acts: &[Act], home: u8) -> Vec<(i64, String, String, String)> {
    let mut newest: BTreeMap<u8, (i64, String, bool)> = BTreeMap::new();
    let mut posts: BTreeMap<u8, BTreeMap<(i64, String), String>> = BTreeMap::new();
    for act in acts {
        match act {
            Act::Point { home: whose, feed, order, id, is_followed } if *whose == home => {
                let event = (*order, id.to_string(), *is_followed);
                let kept = newest.entry(*feed).or_insert_with(|| event.clone());
                *kept = event.max(kept.clone());
            }
            Act::Point { .. } => {}
            Act::Post { feed, order, id, body } => {
                let body = format!("{{\"n\":{body}}}");
                let posts = posts.entry(*feed).or_default();
                let kept = posts.entry((*order, id.to_string())).or_insert_with(|| body.clone());
                *kept = body.max(kept.clone());
            }
        }
    }
    let mut ranked: Vec<_> =
        newest.into_iter().map(|(feed, (order, id, there))| (order, id, feed.to_string(), there)).collect();
    ranked.sort();
    let followed: BTreeSet<String> =
        ranked.into_iter().rev().take(FOLLOWS_MAX).filter(|(.., there)| *there).map(|(_, _, feed, _)| feed).collect();
    let mut items: Vec<(i64, String, String, String)> = Vec::new();
    for (feed, posts) in posts.into_iter().filter(|(feed, _)| followed.contains(&feed.to_string())) {
        let newest = posts.into_iter().rev().take(FEED_KEEP);
        items.extend(newest.map(|((order, id), body)| (order, id, feed.to_string(), body)));
    }
    items.sort();
    items.into_iter().rev().take(KEEP).collect()
}

fn act() -> impl Strategy<Value = Act> {
    let point = (0u8..2, 0u8..5, 0i64..12, 0u8..3, prop::bool::weighted(0.7))
        .prop_map(|(home, feed, order, id, is_followed)| Act::Point { home, feed, order, id, is_followed });
    let post =
        (0u8..5, 0i64..12, 0u8..3, 0u8..3).prop_map(|(feed, order, id, body)| Act::Post { feed, order, id, body });
    prop_oneof![point, post]
}

proptest! {
    /// Whatever overtakes what, and whatever comes twice: once all has arrived, each home feed is what it must be.
    #[test]
    fn home_feeds_come_to_the_same_in_the_end(
        acts in prop::collection::vec(act(), 0..60),
        picks in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.1)), 400),
    ) {
        let mut world = World::default();
        let mut bag: Vec<Message> = acts.iter().cloned().map(Message::Act).collect();
        let mut picks = picks.into_iter();
        while !bag.is_empty() {
            let (index, again) = picks.next().map_or((0, false), |(pick, again)| (pick.index(bag.len()), again));
            let message = bag.swap_remove(index);
            // Events are applied once; what documents tell each other may come again.
            if again && !matches!(message, Message::Act(_)) {
                bag.push(message.clone());
            }
            bag.extend(world.take(message));
        }
        for home in 0u8..2 {
            prop_assert_eq!(world.shown(&home.to_string()), model(&acts, home));
            let state = world.homes.remove(&home.to_string()).unwrap_or_default();
            let mut blob = Vec::new();
            state.put(&mut blob);
            prop_assert_eq!(Home::restore(&blob), Ok(state));
            for cut in 0..blob.len() {
                prop_assert!(Home::restore(&blob[..cut]).is_err());
            }
        }
        for state in world.feeds.into_values().chain([world.list]).chain(world.excerpts.into_values()) {
            let mut blob = Vec::new();
            state.put(&mut blob);
            let restored = if state.is_great() { Followed::restore_great(&blob) } else { Followed::restore(&blob) };
            prop_assert_eq!(restored, Ok(state));
        }
    }
}
