//! Which shards get what of a run of events, and where a run ends because slots move.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use millpond_shared::config::{At, Complaints, Source};
use millpond_shared::projection::{WrittenProjection, judge};
use millpond_shared::shard_map::{FirstMap, Slots};
use proptest::prelude::*;

use crate::projection::{Follow, GREAT_FEEDS, News, Told, excerpt_key};

use super::*;

/// By user; by page, robots left out.
pub fn routing(shards: u16) -> Routing {
    #[derive(Default, serde::Deserialize)]
    struct Written {
        projection: Vec<At<WrittenProjection>>,
    }
    let text = r#"
        [[projection]]
        name = "users"
        kind = "feed"
        key = "{data.user}"
        item = { id = "{id}" }
        [[projection.output]]
        path = "/users/{key}"
        format = "json"
        [[projection]]
        name = "pages"
        kind = "latest"
        where = { "data.robot" = false }
        key = "{data.page}"
        item = { id = "{id}" }
        [[projection.output]]
        path = "/pages/{key}"
        format = "json"
    "#;
    let (mut source, mut complaints) = (Source::default(), Complaints::default());
    let written: Written = source.read("m.toml", text, &mut complaints);
    let no_templates = |_: &At<PathBuf>| Err(("none".to_owned(), "none".to_owned()));
    let projections = judge(&written.projection, &no_templates, &mut complaints);
    assert!(complaints.is_empty(), "{}", complaints.in_words(&source));
    Routing::new(Arc::new(projections), Arc::new(MapState::first(FirstMap { version: 1, shards })))
}

pub fn event(n: u64, data: String) -> Event<'static> {
    Event {
        id: n.to_string().into(),
        source: "s".into(),
        kind: "k".into(),
        subject: None,
        time: 0,
        received: 0,
        data: data.into(),
    }
}

/// Frames as their shards pull them.
pub fn sent(routed: Routed) -> Vec<(ShardId, Bytes)> {
    routed.frames.into_iter().map(|frame| (frame.shard, frame.bytes)).collect()
}

/// (shard, offset, projection, key) of everything that was filed.
pub fn filed(frames: &[(ShardId, Bytes)]) -> Vec<(ShardId, Offset, String, String)> {
    let mut all = Vec::new();
    for (shard, bytes) in frames {
        let frame = ShardFrame::decode(bytes).unwrap();
        for filed in &frame.events {
            for (name, key) in &filed.routes {
                all.push((*shard, filed.offset, frame.projections[*name as usize].to_string(), key.to_string()));
            }
        }
    }
    all
}

#[test]
fn an_event_goes_once_to_every_shard_that_owns_a_document_of_it() {
    let routing = routing(2);
    let owner = |projection: &str, key: &str| routing.map.map.owner_of(projection, key).shard;
    // Keys chosen so that both cases occur: one shard for both documents, and two.
    let page = |shard| (0..).map(|n| format!("p{n}")).find(|key| owner("pages", key) == shard).unwrap();
    let (here, there) = (page(owner("users", "u")), page(1 - owner("users", "u")));
    let data = |page: &str, robot| format!(r#"{{"user":"u","page":"{page}","robot":{robot}}}"#);
    let events = vec![
        event(1, data(&here, false)),
        event(2, data(&there, false)),
        event(3, data(&here, true)),
        event(4, r#"{"robot":true}"#.to_owned()),
        event(5, "{\"user\":1e999}".to_owned()),
        event(6, data(&here, false)),
    ];
    let frame = EventFrame { queue: 3, first: 10, events };
    let routed = routing.route(&[frame], 10, 14, 7);
    assert_eq!(routed.dead.iter().map(|letter| letter.key.to_string()).collect::<Vec<_>>(), ["3:14"]);
    assert_eq!(routed.unrouted, 2, "one without a route, one unreadable; the sixth is not part of the round");
    let shard = owner("users", "u");
    let row = |shard, offset, name: &str, key: &str| (shard, offset, name.to_owned(), key.to_owned());
    let mut expected = vec![
        row(shard, 10, "users", "u"),
        row(shard, 10, "pages", &here),
        row(shard, 11, "users", "u"),
        row(shard, 12, "users", "u"),
        row(1 - shard, 11, "pages", &there),
    ];
    let counts: Vec<_> = routed.frames.iter().map(|frame| (frame.shard, frame.events)).collect();
    let frames = sent(routed);
    let mut found = filed(&frames);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    for ((_, bytes), (_, events)) in frames.iter().zip(&counts) {
        let frame = ShardFrame::decode(bytes).unwrap();
        assert_eq!(frame.events.len() as u64, *events);
        assert_eq!((frame.queue, frame.first, frame.last, frame.epoch, frame.map_version), (3, 10, 14, 7, 1));
    }
    assert!(counts.contains(&(shard, 3)), "an event with two documents in a shard is filed there once: {counts:?}");
}

#[test]
fn a_hop_goes_to_the_documents_that_it_names() {
    let routing = routing(3);
    let keys: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let follow = Follow { home: "h".into(), decision: 1, is_followed: true };
    let hop = |projection| Told::Follow(follow.clone()).event(projection, &names, 7);
    let events = vec![hop("users"), hop("gone")];
    let routed = routing.route(&[EventFrame { queue: 0, first: 1, events }], 1, 2, 1);
    assert_eq!(routed.unrouted, 1, "nobody is called so");
    let frames = sent(routed);
    let expected: BTreeSet<_> = keys
        .iter()
        .map(|key| (routing.map.map.owner_of("users", key).shard, 1, "users".to_owned(), key.clone()))
        .collect();
    assert_eq!(filed(&frames).into_iter().collect::<BTreeSet<_>>(), expected);
    for (_, bytes) in &frames {
        let frame = ShardFrame::decode(bytes).unwrap();
        assert_eq!((frame.events.len(), &frame.events[0].event.subject), (1, &None), "not each other's keys");
        assert_eq!(Told::of(&frame.events[0].event), Some(Told::Follow(follow.clone())));
    }
}

#[test]
fn what_a_great_feed_tells_goes_to_every_shard_that_has_slots_or_takes_some() {
    let routing = routing(3);
    let four = routing.map.with_shards(FirstMap { version: 1, shards: 4 }).unwrap();
    let news = Told::News(News { feed: "g".into(), items: Arc::new([]) });
    let events = vec![news.event("users", &[GREAT_FEEDS, &excerpt_key("g")], 7)];
    let frame = EventFrame { queue: 0, first: 1, events };
    let shards = |map: MapState| {
        let routing = Routing { map: Arc::new(map), ..routing.clone() };
        let frames = sent(routing.route(std::slice::from_ref(&frame), 1, 1, 1));
        let row = |shard, key: &str| (shard, 1, "users".to_owned(), key.to_owned());
        let shards: Vec<ShardId> = frames.iter().map(|(shard, _)| *shard).collect();
        let expected: Vec<_> = shards.iter().flat_map(|shard| [row(*shard, "*"), row(*shard, "*g")]).collect();
        assert_eq!(filed(&frames), expected);
        shards
    };
    assert_eq!(shards(four.clone()), [0, 1, 2], "the fourth has none yet");
    assert_eq!(shards(four.begin([Slot(0)].into_iter().collect(), 3).unwrap()), [0, 1, 2, 3]);
}

#[test]
fn a_run_without_routes_makes_no_frames() {
    let frame = EventFrame { queue: 0, first: 1, events: vec![event(1, "{}".to_owned())] };
    assert_eq!(routing(4).route(&[frame], 1, 1, 1), Routed { last: 1, unrouted: 1, ..Routed::default() });
}

#[test]
fn a_run_ends_before_an_event_whose_slot_moves() {
    let routing = routing(2);
    let slot = Slot::of("users", "u");
    let (from, slots) = (routing.map.map.owner(slot).shard, [slot].into_iter().collect::<Slots>());
    let held = routing.map.begin(slots, 1 - from).and_then(|state| state.hold(2, None)).unwrap();
    let routing = Routing { map: Arc::new(held), ..routing };
    let events = [r#"{"user":"v"}"#, r#"{"page":"p","robot":false}"#, r#"{"user":"u"}"#, r#"{"user":"v"}"#];
    let events = (1..).zip(events).map(|(n, data)| event(n, data.to_owned())).collect();
    let frame = EventFrame { queue: 0, first: 10, events };
    let routed = routing.route(std::slice::from_ref(&frame), 10, 13, 1);
    assert_eq!((routed.last, routed.frames.iter().map(|frame| frame.events).sum::<u64>()), (11, 2));
    assert_eq!(ShardFrame::decode(&routed.frames[0].bytes).unwrap().last, 11);
    assert_eq!(routing.route(&[frame], 12, 13, 1), Routed { last: 11, ..Routed::default() });
}

#[test]
fn a_run_ends_before_a_hop_of_which_a_single_slot_moves() {
    let routing = routing(2);
    let keys = ["u1", "u2", "u3"];
    let slot = Slot::of("users", "u3");
    assert!(keys[..2].iter().all(|key| Slot::of("users", key) != slot), "the others stay");
    let (from, slots) = (routing.map.map.owner(slot).shard, [slot].into_iter().collect::<Slots>());
    let held = routing.map.begin(slots, 1 - from).and_then(|state| state.hold(2, None)).unwrap();
    let routing = Routing { map: Arc::new(held), ..routing };
    let told = Told::Follow(Follow { home: "h".into(), decision: 1, is_followed: true });
    let events = vec![told.event("users", &keys[..2], 7), told.event("users", &keys, 7)];
    let frame = EventFrame { queue: 0, first: 10, events };
    let routed = routing.route(std::slice::from_ref(&frame), 10, 11, 1);
    assert_eq!((routed.last, filed(&sent(routed)).len()), (10, 2));
    assert_eq!(routing.route(&[frame], 11, 11, 1), Routed { last: 10, ..Routed::default() }, "not a part of it");
}

proptest! {
    /// However a run is cut into frames and rounds: every route of every event once, in the order of offsets.
    #[test]
    fn nothing_is_lost_doubled_or_reordered(
        events in prop::collection::vec((0u8..4, 0u8..4, any::<bool>()), 1..40),
        cuts in prop::collection::vec(1usize..6, 1..10),
        shards in 1u16..6,
    ) {
        let routing = routing(shards);
        let data = |(user, page, robot): &(u8, u8, bool)| {
            format!(r#"{{"user":"u{user}","page":"p{page}","robot":{robot}}}"#)
        };
        let events: Vec<_> = (1..).zip(&events).map(|(n, one)| event(n, data(one))).collect();
        let mut expected = BTreeSet::new();
        for (offset, event) in (1..).zip(&events) {
            let view = View::new(event).unwrap();
            for projection in routing.projections.iter() {
                if let Some(key) = projection.route(&view) {
                    let shard = routing.map.map.owner_of(&projection.name, &key).shard;
                    expected.insert((shard, offset, projection.name.clone(), key));
                }
            }
        }
        // Frames of the first cut, rounds of the others.
        let size = cuts[0];
        let frames: Vec<EventFrame<'_>> = events
            .chunks(size)
            .enumerate()
            .map(|(index, events)| EventFrame {
                queue: 0,
                first: (index * size) as u64 + 1,
                events: events.to_vec(),
            })
            .collect();
        let (mut found, mut first) = (Vec::new(), 1);
        let end = events.len() as u64;
        for cut in cuts.iter().cycle() {
            if first > end {
                break;
            }
            let last = (first + *cut as u64 - 1).min(end);
            found.extend(filed(&sent(routing.route(&frames, first, last, 1))));
            first = last + 1;
        }
        for shard in 0..shards {
            let offsets: Vec<u64> = found.iter().filter(|row| row.0 == shard).map(|row| row.1).collect();
            prop_assert!(offsets.is_sorted(), "{offsets:?}");
        }
        prop_assert_eq!(found.len(), expected.len(), "nothing twice");
        prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}
