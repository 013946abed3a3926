//! The whole pipeline as the examples in `config/` declare it, in one process or in one for each role, on ports of its
//! own that stay the same, so that a role which was killed comes back where it was.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::eventually;
use super::metrics::Metrics;
use super::nats::{self, NatsServer};
use super::process::{Lines, Millpond};
use super::relay::Relay;

/// A process: its configuration file below `config/`, and the sockets it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    pub file: &'static str,
    ready: &'static [&'static str],
    /// Where the others connect to it, as the examples have it; `""`: nobody does.
    at: &'static str,
}

pub const ALL: Part = Part { file: "local.toml", ready: &["proxy", "admin"], at: "127.0.0.1:8080" };
pub const QUEUE: Part = Part { file: "cluster/queue.toml", ready: &["queue", "admin"], at: "127.0.0.1:7001" };
pub const INGEST: Part = Part { file: "cluster/ingest.toml", ready: &["ingest", "admin"], at: "127.0.0.1:7002" };
pub const DISPATCHER: Part = Part { file: "cluster/dispatcher.toml", ready: &["admin"], at: "" };
/// The same as [`DISPATCHER`] at another address; no example, but made of it.
pub const DISPATCHER_2: Part = Part { file: "cluster/dispatcher-2.toml", ready: &["admin"], at: "" };
pub const SHARD_A: Part = Part { file: "cluster/shard-a.toml", ready: &["shards", "admin"], at: "127.0.0.1:7101" };
pub const SHARD_B: Part = Part { file: "cluster/shard-b.toml", ready: &["shards", "admin"], at: "127.0.0.1:7102" };
/// A spare of [`SHARD_A`].
pub const SPARE: Part = Part { file: "cluster/spare.toml", ready: &["shards", "admin"], at: "127.0.0.1:7103" };
pub const PROXY: Part = Part { file: "cluster/proxy.toml", ready: &["proxy", "admin"], at: "127.0.0.1:8080" };

/// The server that the parts below `nats/` share, in place of [`QUEUE`].
pub const NATS: Part = Part { file: "nats/nats-server.conf", ready: &[], at: "127.0.0.1:4222" };
pub const INGEST_ON_NATS: Part = Part { file: "nats/ingest.toml", ready: &["ingest", "admin"], at: "127.0.0.1:7002" };
pub const DISPATCHER_ON_NATS: Part = Part { file: "nats/dispatcher.toml", ready: &["admin"], at: "" };
/// The same as [`DISPATCHER_ON_NATS`] at another address; no example, but made of it.
pub const DISPATCHER_2_ON_NATS: Part = Part { file: "nats/dispatcher-2.toml", ready: &["admin"], at: "" };
pub const SHARD_A_ON_NATS: Part = Part { file: "nats/shard-a.toml", ready: &["shards", "admin"], at: "127.0.0.1:7101" };
pub const SHARD_B_ON_NATS: Part = Part { file: "nats/shard-b.toml", ready: &["shards", "admin"], at: "127.0.0.1:7102" };

/// A spare of [`SHARD_A_ON_NATS`]; no example, but made of it.
pub const SPARE_ON_NATS: Part = Part { file: "nats/spare.toml", ready: &["shards", "admin"], at: "127.0.0.1:7103" };

/// What is no example, but made of one.
struct Made {
    file: &'static str,
    of: &'static str,
    /// What stands there, and what in its place.
    other: &'static [(&'static str, &'static str)],
}

const MADE: [Made; 3] = [
    Made { file: "cluster/dispatcher-2.toml", of: "cluster/dispatcher.toml", other: &[(":9183\"", ":9193\"")] },
    Made { file: "nats/dispatcher-2.toml", of: "nats/dispatcher.toml", other: &[(":9183\"", ":9193\"")] },
    Made {
        file: "nats/spare.toml",
        of: "nats/shard-a.toml",
        other: &[
            ("listen = \"127.0.0.1:7101\"", "listen = \"127.0.0.1:7103\"\nconsumer = \"spare\""),
            ("dir = \"data/shards\"", "dir = \"data/spare\"\ncopy_from = \"127.0.0.1:7101\""),
            (":9184\"", ":9186\""),
        ],
    },
];

pub const ONE_PROCESS: [Part; 1] = [ALL];
pub const SEVERAL_PROCESSES: [Part; 6] = [QUEUE, INGEST, DISPATCHER, SHARD_A, SHARD_B, PROXY];
pub const ON_NATS: [Part; 7] =
    [NATS, INGEST_ON_NATS, DISPATCHER_ON_NATS, DISPATCHER_2_ON_NATS, SHARD_A_ON_NATS, SHARD_B_ON_NATS, PROXY];

/// A folder with a copy of the examples and the data of their roles, and the processes that run there.
pub struct Pipeline {
    dir: TempDir,
    /// Address as the examples have it → as it is here.
    addresses: BTreeMap<String, SocketAddr>,
    running: BTreeMap<Part, Millpond>,
    nats: Option<NatsServer>,
    /// Lines behind which others are put, in every file.
    insertions: Vec<(String, String)>,
    /// Lines in whose place others are put.
    replacements: Vec<(String, String)>,
    /// Between whom, and to which address as the examples have it.
    relays: BTreeMap<(Part, &'static str), Relay>,
}

impl Pipeline {
    /// The examples, with `insertions` of lines (behind which line, what); nothing runs yet.
    pub fn prepared(insertions: &[(&str, &str)]) -> Pipeline {
        Pipeline::changed(insertions, &[])
    }

    /// The examples, with other lines (in place of which, what); nothing runs yet.
    pub fn replacing(replacements: &[(&str, &str)]) -> Pipeline {
        Pipeline::changed(&[], replacements)
    }

    /// Both.
    pub fn changed(insertions: &[(&str, &str)], replacements: &[(&str, &str)]) -> Pipeline {
        let owned = |(line, text): &(&str, &str)| ((*line).to_owned(), (*text).to_owned());
        Pipeline {
            dir: tempfile::tempdir().expect("a temporary folder"),
            addresses: BTreeMap::new(),
            running: BTreeMap::new(),
            nats: None,
            insertions: insertions.iter().map(owned).collect(),
            replacements: replacements.iter().map(owned).collect(),
            relays: BTreeMap::new(),
        }
    }

    /// The examples as they are, running.
    pub fn of(parts: &[Part]) -> Pipeline {
        let mut pipeline = Pipeline::prepared(&[]);
        parts.iter().for_each(|part| pipeline.start(*part));
        pipeline
    }

    /// Starts a process, for the first time or again, and waits until it is ready.
    pub fn start(&mut self, part: Part) {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        for file in [part.file, "pipeline.toml", "cluster/shard-map.toml", "nats/queue.toml"] {
            let made = MADE.iter().find(|made| made.file == file);
            let (example, other) = made.map_or((file, [].as_slice()), |made| (made.of, made.other));
            let text = std::fs::read_to_string(examples.join(example)).expect("an example");
            let text = other.iter().fold(text, |text, (old, new)| text.replace(old, new));
            let copy = self.dir.path().join("config").join(file);
            std::fs::create_dir_all(copy.parent().expect("a folder")).expect("the folder can be made");
            std::fs::write(copy, self.adapted(&text, part)).expect("the folder can be written");
        }
        let template = "config/countries.html.j2";
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(template), self.dir.path().join(template))
            .expect("the folder can be written");
        let file = format!("config/{}", part.file);
        if part == NATS {
            let address = self.moved("127.0.0.1:4222").parse().expect("an address");
            self.nats = Some(NatsServer::start(self.dir.path(), &file, address));
            return;
        }
        let process = Millpond::start_in(self.dir.path(), &["run", "--config", &file], part.ready);
        self.running.insert(part, process);
    }

    /// On the addresses of this folder, with what is to be put in, and without a line for every request.
    fn adapted(&mut self, text: &str, part: Part) -> String {
        let mut adapted = String::new();
        for line in text.lines() {
            if line == "[proxy]" {
                adapted += "[log]\naccess = false\n\n";
            }
            let replaced = self.replacements.iter().find(|(old, _)| old == line).map(|(_, new)| new.clone());
            let line = replaced.as_deref().unwrap_or(line);
            let more = self.insertions.iter().filter(|(behind, _)| behind == line).map(|(_, more)| more.clone());
            for line in std::iter::once(line.to_owned()).chain(more.collect::<Vec<_>>()) {
                let listens = line.starts_with("listen");
                let moved = |piece| if listens { self.moved(piece) } else { self.reached(part, piece) };
                let pieces: Vec<String> = line.split('"').map(moved).collect();
                adapted += &format!("{}\n", pieces.join("\""));
            }
        }
        adapted
    }

    /// The same for whoever connects there: maybe by a relay.
    fn reached(&mut self, part: Part, text: &str) -> String {
        if let Some(address) = text.strip_prefix("nats://") {
            return format!("nats://{}", self.reached(part, address));
        }
        let relay = self.relays.iter().find(|((from, to), _)| (*from, *to) == (part, text));
        relay.map(|(_, relay)| relay.address().to_string()).unwrap_or_else(|| self.moved(text))
    }

    fn moved(&mut self, text: &str) -> String {
        let is_port = |(host, port): (&str, &str)| host == "127.0.0.1" && port.parse::<u16>().is_ok();
        if !text.rsplit_once(':').is_some_and(is_port) {
            return text.to_owned();
        }
        self.addresses.entry(text.to_owned()).or_insert_with(free_address).to_string()
    }

    /// What carries the connections of one part to another, once the one is started: from now on there is a relay.
    pub fn relay(&mut self, from: Part, to: Part) -> &Relay {
        let address = self.moved(to.at).parse().expect("others connect to it");
        self.relays.entry((from, to.at)).or_insert_with(|| Relay::to(address))
    }

    fn process(&self, part: Part) -> &Millpond {
        self.running.get(&part).unwrap_or_else(|| panic!("{} does not run", part.file))
    }

    /// Ends a process at once, as `kill -9` does.
    pub fn kill9(&mut self, part: Part) {
        if part == NATS {
            return self.nats.take().expect("it runs").kill9();
        }
        self.running.remove(&part).expect("it runs").kill9();
    }

    /// Ends a process at once, unless it has ended by itself; whether it had.
    pub fn end(&mut self, part: Part) -> bool {
        match self.running.remove(&part) {
            Some(mut process) => process.end(),
            None => {
                self.kill9(part);
                false
            }
        }
    }

    /// What a process has written to its log.
    pub fn log(&self, part: Part) -> &Lines {
        self.process(part).log()
    }

    /// The folder in which all of it is.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// From the next starts on, other lines are put in.
    pub fn insert_instead(&mut self, insertions: &[(&str, &str)]) {
        self.insertions = insertions.iter().map(|(line, text)| ((*line).to_owned(), (*text).to_owned())).collect();
    }

    /// What the kernel says of a process, by the name of the field.
    pub fn kernel_says(&self, part: Part, field: &str) -> String {
        self.process(part).kernel_says(field)
    }

    /// Memory that a process has in use, in MiB.
    pub fn resident_mib(&self, part: Part) -> usize {
        self.process(part).resident_mib()
    }

    /// Has the last frame that each event queue has in a shard queue come once more, on NATS: how many did.
    pub fn repeat_frames(&self, shard: u16) -> usize {
        nats::repeat_last_of_each_subject(self.addresses["127.0.0.1:4222"], &format!("millpond-shard-{shard}"))
    }

    /// The folder of the data that the roles keep.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn signal(&self, part: Part, name: &str) {
        match &self.nats {
            Some(server) if part == NATS => server.signal(name),
            _ => self.process(part).signal(name),
        }
    }

    /// Where clients connect, whether somebody listens there or not.
    pub fn proxy(&self) -> SocketAddr {
        *self.addresses.get("127.0.0.1:8080").expect("a proxy was started")
    }

    /// Where a role of a process is ready.
    pub fn address(&self, part: Part, role: &str) -> SocketAddr {
        self.process(part).address(role)
    }

    pub fn metrics(&self, part: Part) -> Metrics {
        Metrics::of(self.process(part).admin())
    }

    /// The sum of a metric over all processes.
    pub fn sum(&self, name: &str) -> f64 {
        self.running.values().map(|process| Metrics::of(process.admin()).sum(name, &[])).sum()
    }

    /// Waits until every event that was accepted is in its documents, and these are on disk. Takes as long as there is
    /// progress.
    #[track_caller]
    pub fn wait_until_applied(&self) {
        let mut before = None;
        loop {
            let now = eventually("another event to be applied", || {
                let now = self.undone();
                if now.is_done() || Some(now) != before { Ok(now) } else { Err(format!("{now:?}")) }
            });
            if now.is_done() {
                return;
            }
            before = Some(now);
        }
    }

    fn undone(&self) -> Undone {
        // In the order that events go: what is on its way is seen at one place at least.
        Undone {
            events: self.sum("millpond_queue_depth"),
            frames: self.sum("millpond_shard_queue_depth"),
            lag: self.sum("millpond_shard_lag_events"),
            position: self.sum("millpond_shard_version"),
        }
    }
}

/// What is still to be done, and how far the shards are.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Undone {
    /// Not filed by a dispatcher.
    events: f64,
    /// Not committed by their shard.
    frames: f64,
    /// Events in a shard queue that their shard has not applied.
    lag: f64,
    position: f64,
}

impl Undone {
    fn is_done(&self) -> bool {
        self.events + self.frames + self.lag == 0.0
    }
}

/// An address that nobody listens at, and that the kernel gives to nobody who asks for any: a process that was killed
/// must find it free.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    const BELOW_EPHEMERAL: std::ops::Range<usize> = 12_000..32_000;
    let start = std::process::id() as usize * 101;
    for _ in BELOW_EPHEMERAL {
        let step = start + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (BELOW_EPHEMERAL.start + step % BELOW_EPHEMERAL.len()) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port is free")
}
