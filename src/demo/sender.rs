//! Sends events to ingest, through the proxy, as any producer would.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::{Method, Request, StatusCode, header};
use indicatif::{ProgressBar, ProgressStyle};
use millpond_origin::http::Client;
use prometheus::Registry;

use crate::Failure;

/// Events of one request.
const BATCH: usize = 100;
/// Longest that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether all is applied.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest that applying may take after the last event was taken.
const APPLY_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Sender {
    client: Client,
    host: String,
    path: String,
}

/// What was sent.
#[derive(Debug, Default)]
pub struct Sent {
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub took: Duration,
}

/// What ingest answers.
#[derive(serde::Deserialize)]
struct Receipt {
    accepted: u64,
    duplicates: u64,
    #[serde(default)]
    rejected: Vec<serde_json::Value>,
}

/// A file of events that was found good to read, and how many lines it has.
pub struct EventFile {
    lines: Box<dyn BufRead>,
    count: u64,
}

/// Opens a file and reads it through once, so that the bar knows its length.
pub fn check_file(path: &Path) -> Result<EventFile, Failure> {
    let refused = |error: std::io::Error| {
        Failure::Refused(format!(
            "{}: {error}; fix: name a file of JSON objects, one a line, plain or .gz",
            path.display()
        ))
    };
    let count =
        open(path).map_err(refused)?.lines().try_fold(0, |count, line| line.map(|_| count + 1)).map_err(refused)?;
    Ok(EventFile { lines: open(path).map_err(refused)?, count })
}

fn open(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let file = File::open(path)?;
    Ok(match path.extension().is_some_and(|extension| extension == "gz") {
        true => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        false => Box::new(BufReader::new(file)),
    })
}

impl Sender {
    pub fn new(proxy: SocketAddr, path: String) -> Sender {
        Sender { client: Client::new(proxy.to_string()), host: proxy.to_string(), path }
    }

    pub async fn send_file(&self, file: EventFile) -> Result<Sent, Failure> {
        let lines = file.lines.lines().map_while(Result::ok).filter(|line| !line.trim().is_empty());
        self.send(lines, file.count).await
    }

    /// Sends lines in batches; each is on disk before the next is sent.
    pub async fn send(&self, mut lines: impl Iterator<Item = String>, count: u64) -> Result<Sent, Failure> {
        let style = ProgressStyle::with_template("sending events  {bar:40} {pos}/{len}  {per_sec}  {elapsed}");
        let bar = ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let began = millpond_shared::clock::monotonic();
        let mut sent = Sent::default();
        loop {
            let batch: Vec<String> = lines.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let receipt = self.post(batch.join("\n")).await?;
            sent.accepted += receipt.accepted;
            sent.duplicates += receipt.duplicates;
            sent.rejected += receipt.rejected.len() as u64;
            bar.inc(batch.len() as u64);
        }
        bar.finish();
        sent.took = began.elapsed();
        Ok(sent)
    }

    async fn post(&self, body: String) -> Result<Receipt, Failure> {
        let body = Bytes::from(body);
        loop {
            let request = Request::builder()
                .method(Method::POST)
                .uri(&self.path)
                .header(header::HOST, &self.host)
                .header(header::CONTENT_TYPE, "application/x-ndjson")
                .body(body.clone())
                .map_err(Failure::from_display)?;
            let answer = self.client.call(request, REQUEST_TIMEOUT).await.map_err(Failure::from_display)?;
            match answer.status() {
                // Nothing is lost by sending it again: what was taken counts as a duplicate.
                StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(Duration::from_secs(1)).await,
                StatusCode::ACCEPTED => return serde_json::from_slice(answer.body()).map_err(Failure::from_display),
                status => {
                    let words = String::from_utf8_lossy(answer.body()).into_owned();
                    return Err(Failure::Failed(format!("the events were not taken: {status}: {words}")));
                }
            }
        }
    }

    /// Waits until the dispatcher has emptied the event queues and the shards have applied all they were given.
    pub async fn until_applied(&self, registry: &Registry) -> Result<(), Failure> {
        let applied = async {
            while left(registry) > 0.0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(APPLY_TIMEOUT, applied)
            .await
            .map_err(|_| Failure::Failed("the events were taken, but not applied within a minute".to_owned()))
    }
}

/// Events that are still under way, by the metrics.
fn left(registry: &Registry) -> f64 {
    let under_way = ["millpond_queue_depth", "millpond_shard_lag_events"];
    let families = registry.gather();
    let counted = families.iter().filter(|family| under_way.contains(&family.name()));
    counted.flat_map(|family| family.get_metric()).map(|metric| metric.get_gauge().get_value()).sum()
}
