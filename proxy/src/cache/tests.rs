//! The store against its promises: the budget, the index, purges, variants.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::http1::Fields;
use millpond_shared::version::Version;

use super::{Cause, Entry, Lookup, Mark, Mode, Original, Part, PartTags, Stamp, Store, StoreLimits};
use crate::key::Key;
use crate::rules::Rule;
use crate::semantics::freshness::Times;
use crate::semantics::vary::Selection;

/// Of a response that is fresh for a minute.
fn times() -> Times {
    Times { lifetime: 60, ..Times::default() }
}

pub fn key(path: &str) -> Key {
    let rule = Rule::everything("r", "api");
    Key::build(&rule, "http", "example.com", path)
}

pub fn request(language: &str) -> Fields {
    [("Accept-Language", language)].into_iter().collect()
}

pub fn entry(size: usize, language: Option<&str>, tags: &[&str]) -> Arc<Entry> {
    let names: Vec<String> = language.map(|_| "accept-language".to_owned()).into_iter().collect();
    let selection = Selection::of(&names, &request(language.unwrap_or("")));
    let tags = tags.iter().map(|tag| Box::from(*tag)).collect();
    let body = Bytes::from(vec![b'x'; size]);
    Arc::new(Entry::new(StatusCode::OK, Fields::default(), body, times(), selection, tags, None))
}

fn store(budget: u64) -> Store {
    Store::new(StoreLimits { object_max_bytes: budget, variants_max: 3, ..StoreLimits::with_budget(budget) })
}

fn body_of(store: &Store, path: &str, language: &str) -> Option<usize> {
    match store.lookup(&key(path), &request(language)) {
        Lookup::Found(entry) => Some(entry.body.len()),
        Lookup::Part(_) | Lookup::OtherVariant | Lookup::Nothing => None,
    }
}

#[test]
fn the_budget_holds_and_the_least_recently_used_goes_first() {
    let store = store(200_000);
    for index in 0..1_000 {
        let path = format!("/{index}");
        assert!(store.admit(&key(&path), entry(1_000, None, &["all"]), store.purge_seq(), || false));
        assert!(store.bytes() <= 200_000, "{}", store.bytes());
        // The first is asked for again and again.
        assert_eq!(body_of(&store, "/0", ""), Some(1_000), "after {index}");
    }
    assert!(store.evicted(Cause::Budget) > 500);
    assert_eq!(store.objects() + store.evicted(Cause::Budget), 1_000);
    assert_eq!(body_of(&store, "/1", ""), None);
    assert_eq!(store.purge_tag("all", Mode::Delete).objects, store.evicted(Cause::Budget).abs_diff(1_000));
    assert_eq!((store.objects(), store.bytes()), (0, 0), "nothing is left over in the counts");
}

#[test]
fn one_object_may_take_nearly_all_of_the_budget_but_not_more() {
    let store = store(1_000_000);
    for index in 0..500 {
        store.admit(&key(&format!("/{index}")), entry(1_000, None, &[]), store.purge_seq(), || false);
    }
    assert!(
        store.admit(&key("/large"), entry(900_000, None, &[]), store.purge_seq(), || false),
        "the budget is not sliced"
    );
    assert_eq!(body_of(&store, "/large", ""), Some(900_000));
    assert!(!store.admit(&key("/larger"), entry(1_000_001, None, &[]), store.purge_seq(), || false));
    assert!(store.bytes() <= 1_000_000);
}

#[test]
fn variants_live_under_their_key_and_die_with_it() {
    let store = store(1_000_000);
    let admit = |size, language| {
        store.admit(&key("/v"), entry(size, Some(language), &[language, "v"]), store.purge_seq(), || false)
    };
    assert!(admit(1, "de") && admit(2, "en"));
    assert_eq!((body_of(&store, "/v", "de"), body_of(&store, "/v", "en")), (Some(1), Some(2)));
    assert!(matches!(store.lookup(&key("/v"), &request("fr")), Lookup::OtherVariant));
    assert!(admit(3, "en"), "replaces its own variant only");
    assert_eq!((body_of(&store, "/v", "de"), body_of(&store, "/v", "en")), (Some(1), Some(3)));
    assert_eq!(store.purge_tag("de", Mode::Delete).objects, 1);
    assert_eq!((body_of(&store, "/v", "de"), body_of(&store, "/v", "en")), (None, Some(3)));
    assert_eq!(
        store.purge_tag("v", Mode::Stale).objects,
        1,
        "a tag shared with a deleted variant still finds the other"
    );
    assert!(admit(4, "fr") && admit(5, "es") && admit(6, "it"));
    assert_eq!(body_of(&store, "/v", "en"), None, "a fourth variant pushes the oldest out");
    assert_eq!(store.purge_key(&key("/v"), Mode::Delete).objects, 3);
    assert_eq!((store.objects(), store.bytes()), (0, 0));
}

#[test]
fn a_part_is_not_taken_for_the_whole() {
    let store = store(1_000_000);
    let admit = |entry: Entry| assert!(store.admit(&key("/p"), Arc::new(entry), store.purge_seq(), || false));
    let whole = |size: usize, language| Arc::try_unwrap(entry(size, language, &["p"])).expect("nobody else has it");
    let part = |language| whole(5, language).holding(Part::of(3..8, 20).expect("a part"));
    admit(part(Some("de")));
    let found = store.lookup(&key("/p"), &request("de"));
    assert!(matches!(found, Lookup::Part(part) if part.complete_length() == 20));
    assert!(matches!(store.lookup(&key("/p"), &request("en")), Lookup::OtherVariant));
    let selection = Selection::of(&["accept-language".to_owned()], &request("de"));
    assert!(store.of_selection(&key("/p"), &selection).is_some_and(|held| held.part().is_some()));
    admit(whole(20, Some("de")));
    assert_eq!(body_of(&store, "/p", "de"), Some(20), "the whole takes its place");
    assert_eq!((body_of(&store, "/p", "de"), store.objects()), (Some(20), 1));
    admit(part(Some("en")));
    assert_eq!(store.purge_tag("p", Mode::Delete).objects, 2);
    assert_eq!((store.objects(), store.bytes()), (0, 0), "what it takes was counted");
}

#[test]
fn a_purge_hits_what_was_fetched_before_it() {
    let store = store(1_000_000);
    let began = store.purge_seq();
    assert_eq!(store.purge_tag("news", Mode::Stale).objects, 0, "nothing is stored yet");
    let slow = entry(1, None, &["news"]);
    store.admit(&key("/news"), Arc::clone(&slow), began, || false);
    assert_eq!(slow.mark(), Mark::Purged);
    let next = entry(1, None, &["news"]);
    store.admit(&key("/news"), Arc::clone(&next), store.purge_seq(), || false);
    assert_eq!(next.mark(), Mark::None);
    store.purge_all(Mode::Stale);
    assert_eq!(next.mark(), Mark::Purged);
}

#[test]
fn a_changed_document_marks_older_copies_only() {
    let store = store(1_000_000);
    let copy = |position: u64| {
        let stamp = Stamp {
            shard: 0,
            tag: "p/k".into(),
            parts: PartTags::NONE,
            version: Version::new(1, position),
            at: position,
            generation: 0,
            lags_until: 0,
        };
        let selection = Selection::of(&[], &Fields::default());
        let body = Bytes::from_static(b"x");
        Arc::new(Entry::new(
            StatusCode::OK,
            Fields::default(),
            body,
            times(),
            selection,
            vec!["p/k".into()],
            Some(stamp),
        ))
    };
    let (old, new) = (copy(3), copy(5));
    store.admit(&key("/k.json"), Arc::clone(&old), store.purge_seq(), || false);
    store.admit(&key("/k.xml"), Arc::clone(&new), store.purge_seq(), || false);
    store.document_changed("p/k", Version::new(1, 5));
    assert_eq!((old.mark(), new.mark()), (Mark::Changed, Mark::None));
}

/// Whatever is admitted, evicted and purged: index and counts agree with what can be found.
#[test]
fn a_seeded_history_leaves_index_and_counts_in_agreement() {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7u64);
    println!("SEED={seed}");
    let mut random = seed;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let store = store(60_000);
    let mut tag_of: HashMap<String, String> = HashMap::new();
    for _ in 0..20_000 {
        let (path, tag) = (format!("/{}", next(80)), format!("t{}", next(10)));
        match next(10) {
            0 => {
                store.purge_tag(&tag, Mode::Delete);
                for (path, own) in &tag_of {
                    assert!(*own != tag || body_of(&store, path, "").is_none(), "{path} survived the purge of {tag}");
                }
            }
            1 => {
                store.purge_key(&key(&path), Mode::Delete);
                assert_eq!(body_of(&store, &path, ""), None);
            }
            _ => {
                store.admit(&key(&path), entry(next(3_000) as usize, None, &[&tag]), store.purge_seq(), || false);
                tag_of.insert(path, tag);
            }
        }
        assert!(store.bytes() <= 60_000);
    }
    let found = (0..80).filter(|index| body_of(&store, &format!("/{index}"), "").is_some()).count() as u64;
    assert_eq!(store.objects(), found);
    let purged: u64 = (0..10).map(|tag| store.purge_tag(&format!("t{tag}"), Mode::Delete).objects).sum();
    assert_eq!(purged, found);
    assert_eq!((store.objects(), store.bytes()), (0, 0));
}

/// RFC 9111 §4, §4.1: not the one that was stored last.
#[test]
fn of_several_that_answer_the_one_that_varies_and_was_generated_last_is_chosen() {
    let store = store(100_000);
    let both = [("Accept", "a"), ("Foo", "1")].into_iter().collect::<Fields>();
    let varying = |size: usize, names: &[&str], initial_age: u64| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let times = Times { received: 1_000, initial_age, ..times() };
        let body = Bytes::from(vec![b'x'; size]);
        let selection = Selection::of(&names, &both);
        Arc::new(Entry::new(StatusCode::OK, Fields::default(), body, times, selection, Vec::new(), None))
    };
    let chosen = || match store.lookup(&key("/a"), &both) {
        Lookup::Found(entry) => entry.body.len(),
        other => panic!("{other:?}"),
    };
    for (entry, expected) in [
        (varying(1, &["accept"], 10), 1),
        (varying(2, &["foo"], 20), 1),
        (varying(3, &[], 0), 1),
        (varying(2, &["foo"], 5), 2),
    ] {
        assert!(store.admit(&key("/a"), entry, store.purge_seq(), || false));
        assert_eq!(chosen(), expected);
    }
}

#[test]
fn tags_of_a_key_and_what_the_origin_said_otherwise() {
    let store = store(100_000);
    assert!(store.tags_of(&key("/a")).is_empty());
    let plain = Entry::new(StatusCode::OK, Fields::default(), Bytes::new(), times(), Selection::NONE, Vec::new(), None);
    let before = plain.charge().total();
    let said = [("CACHE-control", &b"max-age=5"[..])];
    let restated = plain.instead_of(Original::of(&["Cache-Control", "Vary"], said));
    assert_eq!(restated.original_fields().iter().collect::<Vec<_>>(), said);
    assert!(restated.charge().total() > before, "it is counted");
    store.admit(&key("/a"), entry(1, Some("en"), &["x"]), store.purge_seq(), || false);
    store.admit(&key("/a"), entry(1, Some("de"), &["y"]), store.purge_seq(), || false);
    assert_eq!(store.tags_of(&key("/a")), ["x".into(), "y".into()]);
}
