//! `[ingest]`, `[queue]` and `[dispatcher]`: one section for each role.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millpond_shared::config::{At, Complaints, Seconds, Size};
use schemars::JsonSchema;
use serde::Deserialize;

use super::engine::{self, Engine, WrittenEngine};
use super::section::Section;
use crate::api::ingest::BATCH_EVENTS_DEFAULT;
use crate::dispatch::DispatcherSettings;
use crate::queue::lease::{HOLDER_MAX, TTL_MAX};
use crate::queue::{EVENT_QUEUES_MAX, Limits};

/// The ingest role: takes events from producers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ingest")]
pub struct WrittenIngest {
    /// Address that producers reach it at: `"127.0.0.1:7000"`. Not needed where a proxy in this process forwards to it.
    pub listen: Option<At<String>>,
    /// `"host:port"` of the queue role, if it is another process.
    pub queue: Option<At<String>>,
    /// Most events in one request; 10000 unless given. One more is answered 413.
    pub batch_max_events: Option<At<usize>>,
}

/// The queue role: keeps events and frames on disk until they are delivered.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Queue")]
pub struct WrittenQueue {
    /// `embedded` (the default): files of this process. `nats`: NATS JetStream; every process with an origin role then
    /// has this section, and all of them the same.
    pub engine: Option<At<WrittenEngine>>,
    /// Directory of the queues' files (`embedded`).
    pub dir: Option<At<PathBuf>>,
    /// The servers (`nats`): `["nats://127.0.0.1:4222"]`, with `tls://` for TLS.
    pub servers: Option<At<Vec<At<String>>>>,
    /// What the names of streams and subjects begin with (`nats`), so that ponds can share servers; `millpond` unless
    /// given.
    pub pond: Option<At<String>>,
    /// Servers that keep a copy of everything (`nats`): 1, 3 or 5; 1 unless given.
    pub replicas: Option<At<usize>>,
    /// File with the credentials (`nats`), as `nsc` makes them. None unless given.
    pub credentials: Option<At<PathBuf>>,
    /// PEM file of the authority that signed the servers' certificates (`nats`); the system's unless given.
    pub ca: Option<At<PathBuf>>,
    /// Number of event queues: 1 to 64; 4 unless given. Each has a file and a thread, or two streams.
    pub event_queues: Option<At<u16>>,
    /// Address that roles in other processes reach it at: `"127.0.0.1:7100"`. None unless given.
    pub listen: Option<At<String>>,
    /// Most events of one event queue that wait for the dispatcher; 1000000 unless given. Further ones are answered 503.
    pub depth_max_events: Option<At<u64>>,
    /// Most bytes of the same; `256MiB` unless given.
    pub depth_max_bytes: Option<At<Size>>,
    /// Most bytes of one shard queue that its consumers have not committed; `1GiB` unless given. Then dispatch stops
    /// until they have, and the event queues fill up.
    pub shard_depth_max_bytes: Option<At<Size>>,
    /// Most ids of past events that one event queue remembers; 4000000 unless given (20 to 39 bytes of memory each).
    /// Beyond it the oldest are forgotten before their source's `dedupe` is over.
    pub ids_max: Option<At<usize>>,
}

/// The dispatcher role: files events from event queues in shard queues.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Dispatcher")]
pub struct WrittenDispatcher {
    /// `"host:port"` of the queue role, if it is another process.
    pub queue: Option<At<String>>,
    /// Most events filed in one round; 2000 unless given.
    pub max_events: Option<At<usize>>,
    /// How long its claim on an event queue outlives it; `10s` unless given. It renews the claim at a third of that.
    pub lease_ttl: Option<At<Seconds>>,
    /// Name of this dispatcher in leases; a random one unless given.
    pub holder: Option<At<String>>,
}

/// The ingest role as it is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestConfig {
    pub listen: Option<SocketAddr>,
    pub queue: Option<String>,
    pub batch_max_events: usize,
}

/// The queue role as it is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    pub engine: Engine,
    pub event_queues: u16,
    pub listen: Option<SocketAddr>,
    pub limits: Limits,
}

/// The dispatcher role as it is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatcherConfig {
    pub queue: Option<String>,
    pub settings: DispatcherSettings,
}

const EVENT_QUEUES_DEFAULT: u16 = 4;
/// Holds the largest body that a source may take.
const DEPTH_MIN_BYTES: u64 = 64 << 20;
const DEPTH_MAX_BYTES: u64 = 64 << 30;
/// Shorter, and a pause of the machine would cost the lease.
const TTL_MIN: Duration = Duration::from_secs(1);

pub fn judge_ingest(at: &At<WrittenIngest>, complaints: &mut Complaints) -> Option<IngestConfig> {
    let before = complaints.len();
    let written = &at.value;
    let mut section = Section::new("ingest", at, complaints);
    let config = IngestConfig {
        listen: section.listen("listen", written.listen.as_ref()),
        queue: section.peer("queue", written.queue.as_ref()),
        batch_max_events: section.number(
            "batch_max_events",
            written.batch_max_events.as_ref(),
            BATCH_EVENTS_DEFAULT,
            1..=100_000,
        ),
    };
    (complaints.len() == before).then_some(config)
}

pub fn judge_queue(at: &At<WrittenQueue>, complaints: &mut Complaints) -> Option<QueueConfig> {
    let before = complaints.len();
    let written = &at.value;
    let mut section = Section::new("queue", at, complaints);
    let event_queues =
        section.number("event_queues", written.event_queues.as_ref(), EVENT_QUEUES_DEFAULT, 1..=EVENT_QUEUES_MAX);
    let engine = engine::judge(&mut section, written, event_queues);
    let defaults = Limits::default();
    let mut size = |field, written: Option<&At<Size>>, default| {
        let range = DEPTH_MIN_BYTES..=DEPTH_MAX_BYTES;
        section.in_range(field, written, |size| size.0, default, range, |bytes| format!("\"{}\"", Size(bytes)))
    };
    let depth_max_bytes = size("depth_max_bytes", written.depth_max_bytes.as_ref(), defaults.depth_max_bytes);
    let shard_depth_max_bytes =
        size("shard_depth_max_bytes", written.shard_depth_max_bytes.as_ref(), defaults.shard_depth_max_bytes);
    let depth_max_events = section.number(
        "depth_max_events",
        written.depth_max_events.as_ref(),
        defaults.depth_max_events,
        1..=100_000_000,
    );
    let ids_max = section.number("ids_max", written.ids_max.as_ref(), defaults.ids_max, 1_000..=100_000_000);
    let listen = section.listen("listen", written.listen.as_ref());
    let limits = Limits { depth_max_events, depth_max_bytes, shard_depth_max_bytes, ids_max, ..defaults };
    let config = QueueConfig { engine: engine?, event_queues, listen, limits };
    (complaints.len() == before).then_some(config)
}

pub fn judge_dispatcher(at: &At<WrittenDispatcher>, complaints: &mut Complaints) -> Option<DispatcherConfig> {
    let before = complaints.len();
    let written = &at.value;
    let mut section = Section::new("dispatcher", at, complaints);
    let defaults = DispatcherSettings::default();
    let max_events = section.number("max_events", written.max_events.as_ref(), defaults.max_events, 1..=100_000);
    let ttl_range = TTL_MIN..=TTL_MAX;
    let lease_ttl = section.in_range(
        "lease_ttl",
        written.lease_ttl.as_ref(),
        |ttl| ttl.0,
        defaults.lease_ttl,
        ttl_range,
        |ttl| format!("\"{}s\"", ttl.as_secs_f64()),
    );
    let queue = section.peer("queue", written.queue.as_ref());
    let holder = written.holder.as_ref().map(|holder| {
        if holder.value.is_empty() || holder.value.len() > HOLDER_MAX {
            section.wrong("holder", holder, "is empty or too long", format!("use 1 to {HOLDER_MAX} bytes"));
        }
        holder.value.clone()
    });
    let holder = holder.unwrap_or_else(|| defaults.holder.clone());
    let config = DispatcherConfig { queue, settings: DispatcherSettings { max_events, lease_ttl, holder, ..defaults } };
    (complaints.len() == before).then_some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        ingest: Option<At<WrittenIngest>>,
        queue: Option<At<WrittenQueue>>,
        dispatcher: Option<At<WrittenDispatcher>>,
    }

    type Judged = (Option<IngestConfig>, Option<QueueConfig>, Option<DispatcherConfig>);

    fn judged(text: &str) -> (Judged, Vec<String>) {
        let (mut source, mut complaints) = (millpond_shared::config::Source::default(), Complaints::default());
        let written: Written = source.read("m.toml", text, &mut complaints);
        let judged = (
            written.ingest.as_ref().and_then(|at| judge_ingest(at, &mut complaints)),
            written.queue.as_ref().and_then(|at| judge_queue(at, &mut complaints)),
            written.dispatcher.as_ref().and_then(|at| judge_dispatcher(at, &mut complaints)),
        );
        let words = complaints.in_words(&source);
        (judged, words.lines().map(str::to_owned).collect())
    }

    #[test]
    fn little_need_be_said() {
        let ((ingest, queue, dispatcher), words) = judged("[ingest]\n[queue]\ndir = \"q\"\n[dispatcher]\n");
        assert_eq!(words, [""; 0]);
        assert_eq!(ingest.unwrap(), IngestConfig { listen: None, queue: None, batch_max_events: 10_000 });
        let queue = queue.unwrap();
        assert_eq!((queue.event_queues, queue.limits, queue.listen), (4, Limits::default(), None));
        let settings = dispatcher.unwrap().settings;
        assert_eq!((settings.max_events, settings.lease_ttl), (2000, Duration::from_secs(10)));
        assert!(!settings.holder.is_empty() && settings.holder != DispatcherSettings::default().holder);
    }

    #[test]
    fn everything_can_be_said() {
        let ((ingest, queue, dispatcher), words) = judged(
            "[ingest]\nlisten = \"127.0.0.1:7000\"\nqueue = \"queue.internal:7100\"\nbatch_max_events = 5\n\
             [queue]\ndir = \"q\"\nevent_queues = 64\nlisten = \"[::1]:0\"\ndepth_max_events = 7\n\
             depth_max_bytes = \"64MiB\"\nshard_depth_max_bytes = \"2GiB\"\nids_max = 1000\n\
             [dispatcher]\nqueue = \"localhost:1\"\nmax_events = 9\nlease_ttl = \"2s\"\nholder = \"d1\"\n",
        );
        assert_eq!(words, [""; 0]);
        assert_eq!(ingest.unwrap().queue.as_deref(), Some("queue.internal:7100"));
        let limits = queue.unwrap().limits;
        assert_eq!((limits.depth_max_events, limits.depth_max_bytes, limits.ids_max), (7, 64 << 20, 1000));
        assert_eq!(limits.shard_depth_max_bytes, 2 << 30);
        let settings = dispatcher.unwrap().settings;
        assert_eq!((settings.max_events, settings.lease_ttl.as_secs(), settings.holder.as_str()), (9, 2, "d1"));
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_fix() {
        let (judged, words) = judged(
            "[ingest]\nlisten = \"localhost\"\nqueue = \"queue\"\nbatch_max_events = 0\n\
             [queue]\nevent_queues = 65\ndepth_max_events = 0\ndepth_max_bytes = \"1MiB\"\nids_max = 1\n\
             [dispatcher]\nmax_events = 0\nlease_ttl = \"1h\"\nholder = \"\"\n",
        );
        assert_eq!(judged, (None, None, None));
        assert_eq!(
            words,
            [
                "m.toml:2:10: ingest.listen: `localhost` is no address; fix: write an IP address and a port, as in \
                 \"127.0.0.1:7100\"",
                "m.toml:3:9: ingest.queue: `queue` is no address; fix: write a host and a port, as in \"127.0.0.1:7100\"",
                "m.toml:4:20: ingest.batch_max_events: 0 is out of range; fix: use 1 to 100000",
                "m.toml:5:1: queue.dir: is missing; fix: say where the files go, as in dir = \"data/queue\"",
                "m.toml:6:16: queue.event_queues: 65 is out of range; fix: use 1 to 64",
                "m.toml:7:20: queue.depth_max_events: 0 is out of range; fix: use 1 to 100000000",
                "m.toml:8:19: queue.depth_max_bytes: \"1MiB\" is out of range; fix: use \"64MiB\" to \"64GiB\"",
                "m.toml:9:11: queue.ids_max: 1 is out of range; fix: use 1000 to 100000000",
                "m.toml:11:14: dispatcher.max_events: 0 is out of range; fix: use 1 to 100000",
                "m.toml:12:13: dispatcher.lease_ttl: \"3600s\" is out of range; fix: use \"1s\" to \"300s\"",
                "m.toml:13:10: dispatcher.holder: is empty or too long; fix: use 1 to 128 bytes",
            ]
        );
    }

    #[test]
    fn queues_can_be_on_nats() {
        let ((_, queue, _), words) = judged(
            "[queue]\nengine = \"nats\"\nservers = [\"nats://127.0.0.1:4222\", \"tls://n:4222\"]\nreplicas = 3\n\
             pond = \"p-1\"\ncredentials = \"m.creds\"\nca = \"ca.pem\"\nevent_queues = 2\n",
        );
        assert_eq!(words, [""; 0]);
        let Some(QueueConfig { engine: Engine::Nats(nats), event_queues: 2, .. }) = queue else { panic!("{queue:?}") };
        assert_eq!(nats.servers.urls, ["nats://127.0.0.1:4222", "tls://n:4222"]);
        assert_eq!((nats.pond.as_str(), nats.replicas, nats.event_queues), ("p-1", 3, 2));
        assert!(nats.servers.credentials.is_some() && nats.servers.ca.is_some());

        let ((_, queue, _), words) = judged(
            "[queue]\nengine = \"nats\"\ndir = \"q\"\nservers = [\"127.0.0.1:4222\"]\npond = \"a.b\"\nreplicas = 2\n",
        );
        assert_eq!(queue, None);
        assert_eq!(
            words,
            [
                "m.toml:3:7: queue.dir: has no effect with engine = \"nats\": the servers have the files; fix: remove it",
                "m.toml:4:12: queue.servers: `127.0.0.1:4222` is no address of a NATS server; fix: write a scheme, a \
                 host and a port, as in \"nats://127.0.0.1:4222\" or \"tls://nats.internal:4222\"",
                "m.toml:5:8: queue.pond: `a.b` is no name of a pond; fix: use 1 to 32 letters, digits, `-` and `_`",
                "m.toml:6:12: queue.replicas: 2 is out of range; fix: use 1, 3 or 5",
            ]
        );
        let (_, words) = judged("[queue]\ndir = \"q\"\npond = \"p\"\n");
        let expected = "m.toml:3:8: queue.pond: has no effect without engine = \"nats\"; fix: remove it, or add that";
        assert_eq!(words, [expected]);
    }
}
