//! The access log, off the hot path: requests are put into a bounded queue, and a thread of its own writes them. A
//! reader of the log that is too slow costs lines, which are counted, and never holds a request up.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use millpond_shared::http1::RequestHead;
use parking_lot::{Mutex, RwLock};
use prometheus::IntCounter;

use crate::record::Record;

/// Name of the log target of access lines.
pub const ACCESS_TARGET: &str = "millpond::access";

/// Lines that wait to be written, at most.
const QUEUE_MAX: usize = 65_536;

/// One request.
pub struct Access<'a> {
    /// `None`: the head could not be read.
    pub head: Option<&'a RequestHead>,
    pub peer: Option<SocketAddr>,
    pub record: &'a Record,
    pub took: Duration,
}

/// What is told of one request.
struct Line {
    peer: Option<SocketAddr>,
    asked: Option<Asked>,
    record: Record,
    took: Duration,
}

struct Asked {
    method: http::Method,
    host: Box<str>,
    path: Box<str>,
}

pub struct AccessLog {
    /// `None` once it is closed.
    lines: RwLock<Option<SyncSender<Box<Line>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    dropped: IntCounter,
}

impl AccessLog {
    /// `dropped` counts the lines for which there was no room.
    pub fn start(dropped: IntCounter) -> std::io::Result<AccessLog> {
        let (lines, waiting) = sync_channel(QUEUE_MAX);
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&waiting))?;
        Ok(AccessLog { lines: RwLock::new(Some(lines)), writer: Mutex::new(Some(writer)), dropped })
    }

    /// Puts a line into the queue if there is room.
    pub fn add(&self, access: &Access<'_>) {
        let asked = access.head.map(|head| Asked {
            method: head.method.clone(),
            host: head.authority.as_str().into(),
            path: head.target.path_and_query().into(),
        });
        let line = Line { peer: access.peer, asked, record: access.record.clone(), took: access.took };
        let sent = self.lines.read().as_ref().is_some_and(|lines| lines.try_send(Box::new(line)).is_ok());
        if !sent {
            self.dropped.inc();
        }
    }

    /// Takes no more lines, and returns once all that wait are written.
    pub fn close(&self) {
        self.lines.write().take();
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            tracing::error!("the thread of the access log panicked");
        }
    }
}

fn write(lines: &Receiver<Box<Line>>) {
    for line in lines {
        let Line { peer, asked, record, took } = *line;
        tracing::info!(
            target: ACCESS_TARGET,
            client = peer.map(|peer| peer.to_string()),
            method = asked.as_ref().map(|asked| asked.method.as_str()),
            host = asked.as_ref().map(|asked| &*asked.host),
            // Not `target`, which is what the log calls the module a line comes from.
            path = asked.as_ref().map(|asked| &*asked.path),
            status = record.status.as_u16(),
            rule = record.rule_name(),
            outcome = record.outcome.as_str(),
            reason = record.reason.map(|reason| reason.as_str()),
            bytes = record.bytes,
            microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            broken_off = record.broken_off.then_some(true),
        );
    }
}
