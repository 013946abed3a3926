//! `millpond replay-trace`: the store without the proxy around it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::process::finish;
use crate::harness::random::Random;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn replayed(folder: &Path, args: &[&str]) -> Value {
    let finished = finish(&[&["replay-trace"], args].concat(), folder);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{args:?}");
    let line = finished.stdout.strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n'), "one line: {line}");
    serde_json::from_str(line).expect("a JSON object")
}

/// Eleven keys where ten fit: counted by hand.
#[test]
fn lru_is_exact() {
    let args = ["--trace", "trace.csv", "--capacity", "1000", "--policy", "lru", "--overhead", "none"];
    let expected = json!({
        "trace": "trace.csv",
        "policy": "lru",
        "capacity": 1000,
        "requests": 18,
        // k0, k0, k10 and, until its five seconds are over, k9.
        "hits": 4,
        "object_hit_ratio": 4.0 / 18.0,
        "bytes_requested": 1801,
        "bytes_hit": 400,
        "byte_hit_ratio": 400.0 / 1801.0,
        // k1 for k10, k2 for k1, k3 for the new k9, which comes before the old one goes.
        "evicted": 3,
        "rejected": 1,
        "expired": 1,
        "peak_bytes": 1000,
        "peak_entries": 10,
        "entry_overhead_bytes": 0,
    });
    assert_eq!(replayed(&data(), &args), expected);
    let for_ever = replayed(&data(), &[&args[..], &["--ttl", "none"]].concat());
    assert_eq!((&for_ever["hits"], &for_ever["expired"]), (&json!(5), &json!(0)));
    let briefly = replayed(&data(), &[&args[..], &["--ttl", "1"]].concat());
    assert_eq!(briefly["hits"], json!(0), "nothing is asked for within a second of being stored, but k9");
}

#[test]
fn the_same_seed_gives_the_same_result_and_the_capacity_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let random = &mut Random::from(3);
    let mut trace = String::from("time,key_hash,size\n");
    for time in 0..20_000 {
        // Many keys that are rarely asked for, few that often are.
        let key = random.below(2_000) * random.below(2_000) / 2_000;
        trace.push_str(&format!("{time},{key:016x},{}\n", 50 + key * 7_919 % 3_000));
    }
    std::fs::write(folder.path().join("t.csv"), trace).expect("the folder can be written");
    let run = |more: &[&str]| {
        let told = replayed(folder.path(), &[&["--trace", "t.csv", "--capacity", "400000"], more].concat());
        assert_eq!(told["requests"], json!(20_000), "{more:?}");
        assert!(told["peak_bytes"].as_u64() <= Some(400_000), "{told}");
        told
    };
    let product = run(&[]);
    assert_eq!((&product["policy"], &product["rejected"]), (&json!("gdsf"), &json!(0)));
    assert_eq!(product, run(&["--seed", "1", "--threads", "1"]), "the same again");
    assert!((200..2_000).contains(&product["entry_overhead_bytes"].as_u64().unwrap_or(0)), "{product}");
    let none = run(&["--overhead", "none"]);
    assert_eq!(none["entry_overhead_bytes"], json!(0));
    assert!(none["hits"].as_u64() > product["hits"].as_u64(), "{none} {product}");
    let lru = run(&["--overhead", "none", "--policy", "lru"]);
    assert!(none["hits"].as_u64() > lru["hits"].as_u64(), "{none} {lru}");
    run(&["--threads", "4", "--shards", "4"]);
}

#[test]
fn mistakes_are_told_with_the_exit_code_of_their_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = "time,key_hash,size\n1,ab,10\n2,ab,ten\n";
    std::fs::write(folder.path().join("broken.csv"), broken).expect("the folder can be written");
    std::fs::write(folder.path().join("no.csv.gz"), broken).expect("the folder can be written");
    for (args, code, words) in [
        (&["--trace", "broken.csv", "--capacity", "100"][..], 1, "broken.csv: line 3: size `ten`"),
        (&["--trace", "missing.csv", "--capacity", "100"], 1, "missing.csv: "),
        (&["--trace", "no.csv.gz", "--capacity", "100"], 1, "no.csv.gz: line 1: "),
        (&["--trace", "broken.csv"], 2, "--capacity"),
        (&["--trace", "broken.csv", "--capacity", "0"], 2, "--capacity"),
        (&["--trace", "broken.csv", "--capacity", "9", "--policy", "fifo"], 2, "gdsf, lru"),
        (&["--trace", "broken.csv", "--capacity", "9", "--overhead", "half"], 2, "product, none"),
        (&["--trace", "broken.csv", "--capacity", "9", "--ttl", "soon"], 2, "--ttl"),
        (&["--trace", "broken.csv", "--capacity", "9", "--threads", "0"], 2, "--threads"),
    ] {
        let finished = finish(&[&["replay-trace"], args].concat(), folder.path());
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(code), ""), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(words), "{args:?}: {}", finished.stderr);
    }
}
