//! `millpond shards`: slots move to another shard, and clients see no more of it than a higher version.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::edges::FOLLOWS;
use super::feeds::{compare, hit, version};
use super::model::{Fate, Model};
use crate::harness::client::{Client, Request, get};
use crate::harness::eventually;
use crate::harness::pipeline::{
    ALL, INGEST_ON_NATS, ON_NATS, ONE_PROCESS, Part, Pipeline, QUEUE, SEVERAL_PROCESSES, SHARD_A, SHARD_B,
};
use crate::harness::process::{Finished, finish, kernel_says};
use crate::harness::random::Random;

fn shards(pipeline: &Pipeline, part: Part, args: &[&str]) -> Finished {
    let at = pipeline.address(part, "admin").to_string();
    finish(&[&["shards", "--at", at.as_str()], args].concat(), Path::new("."))
}

fn post(client: &mut Client, model: &mut Model, user: usize, round: usize) {
    let event = json!({ "time": round, "user": format!("user{user}"), "channel": "#c", "page": "p", "comment": "x",
        "isRobot": false, "delta": round })
    .to_string();
    let answer = client.ask(&Request::post("/events/wiki", &event));
    assert_eq!((answer.status(), answer.json()["accepted"].as_u64()), (202, Some(1)), "{}", answer.text());
    assert_eq!(model.take(&event), Fate::Accepted);
}

/// By huge pages more memory would be touched than documents take.
#[test]
fn processes_without_a_proxy_have_no_huge_pages() {
    let pages = "THP_enabled";
    let pipeline = Pipeline::of(&[QUEUE, SHARD_A]);
    assert_eq!([QUEUE, SHARD_A].map(|part| pipeline.kernel_says(part, pages)), ["0", "0"]);
    assert_eq!(
        Pipeline::of(&[ALL]).kernel_says(ALL, pages),
        kernel_says("self", pages),
        "as whoever started it has it"
    );
}

const USERS: usize = 60;

#[test]
fn slots_move_and_their_documents_with_them() {
    for (parts, desk) in [(&ONE_PROCESS[..], ALL), (&SEVERAL_PROCESSES[..], QUEUE), (&ON_NATS[..], INGEST_ON_NATS)] {
        let mut pipeline = Pipeline::of(parts);
        let (mut client, mut model) = (Client::of(pipeline.proxy()), Model::default());
        (0..USERS).for_each(|user| post(&mut client, &mut model, user, 1));
        pipeline.wait_until_applied();
        let url = |user: usize| format!("/users/user{user}/feed.json");
        let before: Vec<(u64, u64)> = (0..USERS).map(|user| version(&hit(&mut client, &url(user), 200))).collect();

        // To the other process, where there are several.
        let done = shards(&pipeline, desk, &["move", "--from", "0", "--count", "256", "--to", "3"]);
        assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
        let listed = shards(&pipeline, desk, &["ls"]);
        let rows: Vec<Vec<&str>> = listed.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((&rows[1][..], &rows[4][..2]), (&["0", "0"][..], &["3", "512"][..]), "{}", listed.stdout);

        let mut moved = 0;
        for (user, before) in before.iter().enumerate() {
            let answer = eventually("a fresh answer", || {
                let answer = client.get(&url(user));
                if answer.status() == 200 && answer.outcome() != "stale" { Ok(answer) } else { Err(answer.text()) }
            });
            let now = version(&answer);
            assert!(now >= *before, "{user}: {now:?} after {before:?}");
            moved += usize::from(now > *before);
        }
        assert!((1..USERS).contains(&moved), "about a quarter has moved: {moved}");

        (0..USERS).for_each(|user| post(&mut client, &mut model, user, 2));
        pipeline.wait_until_applied();
        for (url, document) in model.documents() {
            eventually(&format!("{url} as it must be"), || compare(&client.get(&url), &document));
            hit(&mut client, &url, 200);
        }
        let refused = shards(&pipeline, desk, &["move", "--slots", "0-300", "--to", "1"]);
        assert_eq!(refused.code, Some(1), "{}", refused.stdout);
        assert!(refused.stderr.contains("stays as it is"), "{}", refused.stderr);
        if parts.contains(&SHARD_A) {
            survives_a_restart(&mut pipeline, &url);
        }
    }
}

/// A shard server that is started while nobody can say anything of the shard map goes by what it has heard before.
fn survives_a_restart(pipeline: &mut Pipeline, url: &impl Fn(usize) -> String) {
    [QUEUE, SHARD_A, SHARD_B].into_iter().for_each(|part| pipeline.kill9(part));
    [SHARD_A, SHARD_B].into_iter().for_each(|part| pipeline.start(part));
    for user in 0..USERS {
        let answers = [SHARD_A, SHARD_B].map(|part| get(pipeline.address(part, "shards"), &url(user)).status());
        assert!(matches!(answers, [200, 421] | [421, 200]), "{user}: {answers:?}");
    }
    pipeline.start(QUEUE);
}

/// Those who post, and those who follow some of them.
const AUTHORS: usize = 6;
const FOLLOWERS: usize = 30;
/// Items that a home feed keeps.
const HOME_KEEP: usize = 3;
/// Events in one request.
const BATCH: usize = 8;

#[test]
fn home_feeds_gather_while_slots_move() {
    for (parts, desk) in [(&SEVERAL_PROCESSES[..], QUEUE), (&ON_NATS[..], INGEST_ON_NATS)] {
        let mut pipeline = Pipeline::prepared(&[FOLLOWS]);
        parts.iter().for_each(|part| pipeline.start(*part));
        let (over, mut random) = (AtomicBool::new(false), Random::told("e2e::shards"));
        let (proxy, seed, other_seed) = (pipeline.proxy(), random.next(), random.next());
        let (moves, homes) = thread::scope(|scope| {
            let _ends = Ends(&over);
            let producing = scope.spawn(|| produce(proxy, &over, Random::from(seed)));
            let reading = scope.spawn(|| watch(proxy, &over, Random::from(other_seed)));
            let moves = [("0", "3"), ("1", "2"), ("3", "0"), ("2", "1"), ("0", "2")]
                .map(|(from, to)| shards(&pipeline, desk, &["move", "--from", from, "--count", "200", "--to", to]));
            over.store(true, Ordering::SeqCst);
            reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (moves, producing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        for done in moves {
            assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
        }
        pipeline.wait_until_applied();
        let mut client = Client::of(proxy);
        for (url, ids) in homes.documents() {
            let items: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
            eventually(&format!("{url} as it must be"), || match client.get(&url) {
                answer if answer.status() == 200 && answer.json()["items"] == json!(items) => Ok(()),
                answer if answer.status() == 404 && items.is_empty() => Ok(()),
                answer => Err(format!("{}, not {items:?}", answer.text())),
            });
        }
    }
}

/// Says that it is over, also where the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What home feeds must come to, worked out the naive way.
#[derive(Default)]
struct Homes {
    /// By author, oldest first.
    posts: BTreeMap<usize, Vec<usize>>,
    follows: BTreeMap<usize, BTreeSet<usize>>,
}

impl Homes {
    /// The newest posts of whom a user follows, by URL.
    fn documents(&self) -> impl Iterator<Item = (String, Vec<String>)> {
        self.follows.iter().map(|(user, authors)| {
            let mut posts: Vec<usize> =
                authors.iter().filter_map(|author| self.posts.get(author)).flatten().copied().collect();
            posts.sort_unstable_by(|one, other| other.cmp(one));
            (home(*user), posts.iter().take(HOME_KEEP).map(|n| format!("post {n}")).collect())
        })
    }
}

fn home(user: usize) -> String {
    format!("/home/user%20{user}.json")
}

/// Authors post, and users follow them and stop following, until it is over.
fn produce(proxy: SocketAddr, over: &AtomicBool, mut random: Random) -> Homes {
    let (mut homes, mut client, mut n) = (Homes::default(), Client::of(proxy), 0);
    while !over.load(Ordering::SeqCst) {
        let mut lines = Vec::new();
        for _ in 0..BATCH {
            n += 1;
            let (author, user) = (random.below(AUTHORS), random.below(FOLLOWERS));
            let (who, page, comment) = match random.below(4) {
                0 | 1 => {
                    homes.posts.entry(author).or_default().push(n);
                    (format!("author {author}"), "post", format!("post {n}"))
                }
                2 => {
                    homes.follows.entry(user).or_default().insert(author);
                    (format!("user {user}"), "follow", format!("author {author}"))
                }
                _ => {
                    homes.follows.entry(user).or_default().remove(&author);
                    (format!("user {user}"), "unfollow", format!("author {author}"))
                }
            };
            let time = 1_442_016_000_000 + n;
            lines.push(
                json!({ "time": time, "user": who, "channel": "c", "page": page, "comment": comment }).to_string(),
            );
        }
        let request = Request::post("/events/wiki", lines.join("\n"));
        // A batch whose answer was lost is a duplicate the next time.
        eventually("an acknowledgement", || match client.try_ask(&request) {
            Ok(answer) if answer.status() == 202 => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        });
        // No faster than they are applied: a move waits for its shard to keep up.
        if let Some((author, posts)) = homes.posts.iter().max_by_key(|(_, posts)| posts.last())
            && let Some(newest) = posts.last()
        {
            let (url, id) = (format!("/posts/author%20{author}.json"), format!("post {newest}"));
            eventually("the newest post", || match client.get(&url) {
                answer if answer.status() == 200 && answer.json()["items"][0]["id"] == id.as_str() => Ok(()),
                answer => Err(answer.text()),
            });
        }
    }
    homes
}

/// Reads home feeds until it is over: none goes back.
fn watch(proxy: SocketAddr, over: &AtomicBool, mut random: Random) {
    let (mut client, mut seen) = (Client::of(proxy), BTreeMap::new());
    while !over.load(Ordering::SeqCst) {
        let url = home(random.below(FOLLOWERS));
        let answer = client.get(&url);
        match answer.status() {
            200 => {
                let now = version(&answer);
                let before = seen.insert(url, now).unwrap_or_default();
                assert!(now >= before, "{now:?} after {before:?}: {:?}", answer.head);
            }
            404 => assert!(!seen.contains_key(&url), "{url} was there: {:?}", answer.head),
            other => panic!("{url}: {other}: {:?}, {}", answer.head, answer.text()),
        }
    }
}

#[test]
fn a_configuration_that_does_not_fit_the_map_is_refused_in_words() {
    let count = ("[shards]", "[shard_map]\ncount = 5\n\n[shards]");
    let mut pipeline = Pipeline::replacing(&[count]);
    pipeline.start(ALL);
    let told = shards(&pipeline, ALL, &["ls", "--json"]).stdout;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["first"], json!({ "version": 1, "shards": 5 }));
    pipeline.kill9(ALL);
    let data = pipeline.data();
    let text = std::fs::read_to_string(data.with_file_name("config").join("local.toml")).expect("a file");
    std::fs::write(data.with_file_name("config").join("local.toml"), text.replace("count = 5", "count = 4"))
        .expect("the folder can be written");
    let done = finish(&["run", "--config", "config/local.toml"], data.parent().expect("a folder"));
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let words = "the configuration has 4 shards, but the shard map at the queues has 5 since some were added: set \
                 shard_map.count to 5";
    assert!(done.stderr.contains(words), "{}", done.stderr);
}
