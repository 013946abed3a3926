//! The two tables, with everything written, nothing, and everything wrong.

use millpond_shared::config::Source;

use super::*;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    shard_map: Option<At<WrittenShardMap>>,
    shards: Option<At<WrittenShards>>,
}

fn judged(text: &str) -> (ShardMapConfig, Option<ShardsConfig>, String) {
    let (mut source, mut complaints) = (Source::default(), Complaints::default());
    let written: Written = source.read("m.toml", text, &mut complaints);
    let map = judge_map(written.shard_map.as_ref(), &mut complaints);
    let shards = written.shards.as_ref().and_then(|shards| judge_shards(shards, map.first, &mut complaints));
    (map, shards, complaints.in_words(&source))
}

#[test]
fn defaults_serve_all_four() {
    let (map, shards, words) = judged("[shards]\ndir = \"data\"\n");
    assert_eq!(words, "");
    assert_eq!((map.first, map.addresses.len()), (FirstMap { version: 1, shards: 4 }, 0));
    let shards = shards.expect("built");
    assert_eq!((shards.serve, shards.dir), (BTreeSet::from([0, 1, 2, 3]), PathBuf::from("data")));
    assert_eq!((shards.listen, shards.queue, shards.settings), (None, None, ShardSettings::default()));
}

#[test]
fn everything_written_is_used() {
    let (map, shards, words) = judged(
        r#"
        [shard_map]
        count = 3
        version = 7
        address = { "127.0.0.1:7101" = [0, 1], "b.example:7101" = [2, 1] }
        [shards]
        serve = [2, 0]
        dir = "/var/lib/millpond"
        listen = "127.0.0.1:7102"
        queue = "queue.example:7100"
        consumer = "spare-1"
        copy_from = "b.example:7101"
        memory = "64MiB"
        flush_every = "250ms"
        flush_bytes = "1MiB"
        flush_slice = "2MiB"
        render_cache = "0B"
        "#,
    );
    assert_eq!(words, "");
    assert_eq!(map.first, FirstMap { version: 7, shards: 3 });
    let addresses = |shard: ShardId| map.addresses.get(&shard).expect("there").join(" ");
    assert_eq!((addresses(1).as_str(), addresses(2).as_str()), ("127.0.0.1:7101 b.example:7101", "b.example:7101"));
    let shards = shards.expect("built");
    assert_eq!(shards.serve, BTreeSet::from([0, 2]));
    assert_eq!(shards.listen, Some(SocketAddr::from(([127, 0, 0, 1], 7102))));
    assert_eq!(shards.queue.as_deref(), Some("queue.example:7100"));
    assert_eq!(shards.copy_from.as_deref(), Some("b.example:7101"));
    let expected = ShardSettings {
        flush_every: Duration::from_millis(250),
        flush_bytes: 1 << 20,
        flush_slice: 2 << 20,
        memory: 32 << 20,
        render_cache: 0,
        consumer: "spare-1".to_owned(),
        ..ShardSettings::default()
    };
    assert_eq!(shards.settings, expected);
}

#[test]
fn all_mistakes_are_told_with_place_and_fix() {
    let (_, shards, words) = judged(
        r#"[shard_map]
count = 2
version = 0
address = { "nowhere" = [0], "a:1" = [1, 5, 1], "b:1" = [] }
[shards]
serve = [1, 1, 2]
listen = "localhost:1"
queue = "localhost"
consumer = "a b"
flush_every = "1ms"
flush_bytes = "1B"
flush = "1s"
memory = "1MiB"
flush_slice = "1GiB"
copy_from = "b"
"#,
    );
    assert!(shards.is_none());
    let lines: Vec<&str> = words.lines().collect();
    let expected = [
        "m.toml:3:11: shard_map.version: 0 is no version; fix: count versions from 1",
        "m.toml:4:25: shard_map.address.\"nowhere\": `nowhere` is no address; fix: write a host and a port, as in \"127.0.0.1:7101\"",
        "m.toml:4:42: shard_map.address.\"a:1\": there is no shard 5; fix: shards are numbered 0 to 1, as shard_map.count says",
        "m.toml:4:45: shard_map.address.\"a:1\": shard 1 stands in it twice; fix: remove one of them",
        "m.toml:4:57: shard_map.address.\"b:1\": names no shard; fix: list the shards that are there, as in [0, 1]",
        "m.toml:5:1: shards.dir: is missing; fix: say where the files go, as in dir = \"data/shards\"",
        "m.toml:6:13: shards.serve: shard 1 stands in it twice; fix: remove one of them",
        "m.toml:6:16: shards.serve: there is no shard 2; fix: shards are numbered 0 to 1, as shard_map.count says",
        "m.toml:7:10: shards.listen: `localhost:1` is no address; fix: write an IP address and a port, as in \"127.0.0.1:7101\"",
        "m.toml:8:9: shards.queue: `localhost` is no address; fix: write a host and a port, as in \"127.0.0.1:7100\"",
        "m.toml:9:12: shards.consumer: `a b` is no name; fix: use 1 to 64 letters, digits, - and _",
        "m.toml:10:15: shards.flush_every: 1ms is out of range; fix: use \"10ms\" to \"10m\"",
        "m.toml:11:15: shards.flush_bytes: 1B is too little; fix: use at least \"64KiB\"",
        "m.toml:12:1: shards.flush: unknown field `flush`; fix: remove it, or use one of serve, dir, listen, queue, consumer, copy_from, memory, flush_every, flush_bytes, flush_slice, render_cache",
        "m.toml:13:10: shards.memory: 1MiB is too little for the shards of this process; fix: use at least \"4MiB\"",
        "m.toml:14:15: shards.flush_slice: 1GiB is out of range; fix: use \"64KiB\" to \"64MiB\"",
        "m.toml:15:13: shards.copy_from: `b` is no address; fix: write a host and a port, as in \"127.0.0.1:7100\"",
    ];
    assert_eq!(lines, expected);
    let (_, _, words) = judged("[shards]\ndir = \"d\"\nserve = [0, 1]\nmemory = \"16MiB\"\nflush_bytes = \"5MiB\"\n");
    assert_eq!(
        words.trim_end(),
        "m.toml:5:15: shards.flush_bytes: 5MiB is more than half of what `memory` leaves for one shard; fix: use \
         less, or more `memory`: what is not written yet can't be dropped"
    );
    let (map, ..) = judged("[shard_map]\ncount = 2000\n");
    assert_eq!(map.first.shards, 4);
}
