//! The files in `config/` are what people start from: each is good, starts, and ends when told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::harness::client::{Client, Request, get};
use crate::harness::eventually;
use crate::harness::process::{Millpond, finish};

/// The folder of the examples.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

/// All TOML files, named from the folder of the examples, in the order of their names.
fn files() -> Vec<String> {
    let mut files = Vec::new();
    for folder in ["", "cluster/", "nats/"] {
        let entries = std::fs::read_dir(examples().join(folder)).expect("the examples are there");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        files.extend(names.filter(|name| name.ends_with(".toml")).map(|name| format!("{folder}{name}")));
    }
    files.sort();
    files
}

/// The files that others include: parts, which declare no role.
const PARTS: [&str; 3] = ["cluster/shard-map.toml", "nats/queue.toml", "pipeline.toml"];

#[test]
fn all_are_good() {
    let mut told = Vec::new();
    for file in files().iter().filter(|file| !PARTS.contains(&file.as_str())) {
        let finished = finish(&["check", file], &examples());
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{file}");
        told.push(finished.stdout);
    }
    assert_eq!(
        told,
        [
            "cluster/dispatcher.toml: good; roles: dispatcher\n",
            "cluster/ingest.toml: good; roles: ingest\n",
            "cluster/proxy.toml: good; roles: proxy\n",
            "cluster/queue.toml: good; roles: queue\n",
            "cluster/shard-a.toml: good; roles: shards\n",
            "cluster/shard-b.toml: good; roles: shards\n",
            "cluster/spare.toml: good; roles: shards\n",
            "demo.toml: good; roles: proxy, ingest, queue, dispatcher, shards\n",
            "existing-api.toml: good; roles: proxy\n",
            "homes.toml: good; roles: proxy, ingest, queue, dispatcher, shards\n",
            "local.toml: good; roles: proxy, ingest, queue, dispatcher, shards\n",
            "nats/dispatcher.toml: good; roles: queue, dispatcher\n",
            "nats/ingest.toml: good; roles: ingest, queue\n",
            "nats/shard-a.toml: good; roles: queue, shards\n",
            "nats/shard-b.toml: good; roles: queue, shards\n",
        ]
    );
}

#[test]
fn each_that_stands_alone_starts_and_ends() {
    let place = Place::new();
    for file in ["demo.toml", "existing-api.toml", "homes.toml", "local.toml"] {
        let mut pond = place.start(file, &["proxy", "admin"]);
        is_ready(&pond);
        pond.signal("TERM");
        assert_eq!(pond.wait(), Some(0), "{file}: {}", pond.log().text());
    }
}

/// The events that the file's own comment shows come to the home feed that it names.
#[test]
fn a_home_feed_gathers_what_its_example_says() {
    let place = Place::new();
    let pond = place.start("homes.toml", &["proxy", "admin"]);
    let text = std::fs::read_to_string(examples().join("homes.toml")).expect("an example");
    let mut client = Client::of(pond.address("proxy"));
    let mut posted = 0;
    for event in text.lines().filter_map(|line| line.strip_prefix("#   ")).filter(|line| line.starts_with('{')) {
        let answer = client.ask(&Request::post("/events/social", event));
        assert_eq!((answer.status(), answer.json()["accepted"].as_u64()), (202, Some(1)), "{}", answer.text());
        posted += 1;
    }
    assert_eq!(posted, 2);
    eventually("the post", || match client.get("/users/ann/home.json") {
        home if home.status() == 200 && home.json()["items"][0]["content_text"] == "hello" => Ok(()),
        home => Err(home.text()),
    });
}

#[test]
fn those_of_the_cluster_start_together_and_end() {
    let mut place = Place::new();
    let mut cluster = Vec::new();
    for (file, roles) in [
        ("cluster/queue.toml", &["queue", "admin"][..]),
        ("cluster/ingest.toml", &["ingest", "admin"]),
        ("cluster/dispatcher.toml", &["admin"]),
        ("cluster/shard-a.toml", &["shards", "admin"]),
        ("cluster/shard-b.toml", &["shards", "admin"]),
        ("cluster/proxy.toml", &["proxy", "admin"]),
    ] {
        let pond = place.start(file, roles);
        place.is_at(file, &pond, roles[0]);
        cluster.push((file, pond));
    }
    cluster.iter().for_each(|(_, pond)| is_ready(pond));
    let (_, proxy) = cluster.last().expect("the proxy");
    assert_eq!(get(proxy.proxy(), "/users/nobody/feed.json").status(), 404, "a shard was asked, and answered");
    // Those that ask end before those that answer.
    for (file, pond) in cluster.iter_mut().rev() {
        pond.signal("TERM");
        assert_eq!(pond.wait(), Some(0), "{file}: {}", pond.log().text());
    }
}

fn is_ready(pond: &Millpond) {
    eventually("/readyz", || match get(pond.admin(), "/readyz") {
        ready if ready.status() == 200 => Ok(()),
        other => Err(other.text()),
    });
}

/// A folder with a copy of the examples, on ports of our own.
struct Place {
    dir: TempDir,
    /// Address as it is written → as it is.
    real: BTreeMap<String, SocketAddr>,
}

impl Place {
    fn new() -> Place {
        Place { dir: tempfile::tempdir().expect("a temporary folder"), real: BTreeMap::new() }
    }

    /// Starts the program with a file, as the file's own comment says.
    fn start(&self, file: &str, roles: &[&str]) -> Millpond {
        for file in files() {
            let text = std::fs::read_to_string(examples().join(&file)).expect("an example");
            let copy = self.dir.path().join("config").join(&file);
            std::fs::create_dir_all(copy.parent().expect("a folder")).expect("the folder can be made");
            std::fs::write(copy, self.moved(&text)).expect("the folder can be written");
        }
        let template = "countries.html.j2";
        std::fs::copy(examples().join(template), self.dir.path().join("config").join(template)).expect("a template");
        Millpond::start_in(self.dir.path(), &["run", "--config", &format!("config/{file}")], roles)
    }

    /// Remembers where a process of the cluster really listens.
    fn is_at(&mut self, file: &str, pond: &Millpond, role: &str) {
        let text = std::fs::read_to_string(examples().join(file)).expect("an example");
        let written = text.lines().find(|line| is_listen(line)).and_then(|line| line.split('"').nth(1));
        self.real.insert(written.expect("it listens").to_owned(), pond.address(role));
    }

    /// The text with every `listen` on port 0, and every address of another process where that process is.
    fn moved(&self, text: &str) -> String {
        let mut moved = String::new();
        for line in text.lines() {
            let line = match is_listen(line) {
                true => on_port_0(line),
                false => self.real.iter().fold(line.to_owned(), |line, (written, real)| {
                    line.replace(&format!("\"{written}\""), &format!("\"{real}\""))
                }),
            };
            moved += &format!("{line}\n");
        }
        moved
    }
}

fn is_listen(line: &str) -> bool {
    line.starts_with("listen = ")
}

/// Every `ADDRESS:PORT"` with port 0.
fn on_port_0(line: &str) -> String {
    let parts: Vec<&str> = line.split('"').collect();
    let moved = parts.iter().enumerate().map(|(index, part)| match part.rsplit_once(':') {
        Some((host, _)) if index % 2 == 1 => format!("{host}:0"),
        _ => (*part).to_owned(),
    });
    moved.collect::<Vec<_>>().join("\"")
}
