//! Shows what became of the events: URLs of the busiest documents, and what the cache does with them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, header};
use millpond_origin::http::Client;
use millpond_shared::projection::Projection;
use millpond_shared::version::ShardId;
use millpond_shared::wire::{ChangeMessage, Changes, Follow};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::sender::Sent;
use crate::Failure;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Prints one URL per output, with what the first and the second GET say.
pub async fn show(
    proxy: SocketAddr,
    projections: &[Projection],
    busiest: &Busiest,
    sent: &Sent,
) -> Result<(), Failure> {
    let per_second = sent.accepted as f64 / sent.took.as_secs_f64().max(0.001);
    println!(
        "{} events accepted ({per_second:.0} a second, each on disk before it was acknowledged), {} duplicates, {} rejected\n",
        sent.accepted, sent.duplicates, sent.rejected
    );
    let client = Client::new(proxy.to_string());
    for projection in projections {
        let Some(key) = busiest.key(&projection.name) else {
            println!("{:<8} no document of it changed in this run", projection.name);
            continue;
        };
        for output in &projection.outputs {
            let path = output.path.path_of(&key);
            println!("{:<8} http://{proxy}{path}", output.format.as_str());
            for visit in ["first", "second"] {
                let request = Request::get(&path).header(header::HOST, proxy.to_string()).body(Bytes::new());
                let request = request.map_err(Failure::from_display)?;
                let answer = client.call(request, REQUEST_TIMEOUT).await.map_err(Failure::from_display)?;
                let said =
                    answer.headers().get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or("nothing");
                println!(
                    "         {visit:<6} GET: {}, {} bytes, Cache-Status: {said}",
                    answer.status(),
                    answer.body().len()
                );
            }
        }
    }
    Ok(())
}

/// Counts how often each document changed, by following the change streams as a proxy does.
pub struct Busiest {
    counts: Arc<Mutex<HashMap<String, u64>>>,
}

impl Busiest {
    /// Follows the streams of `shards` for as long as they go on.
    pub fn follow(runtime: &Runtime, changes: &Arc<dyn Changes>, shards: &[ShardId]) -> Busiest {
        let counts: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
        for &shard in shards {
            let Some(mut stream) = changes.follow(shard, Follow::default()) else { continue };
            let counts = Arc::clone(&counts);
            runtime.spawn(async move {
                while let Some(message) = stream.next().await {
                    if let ChangeMessage::Changes { documents, .. } = message {
                        let mut counts = counts.lock();
                        documents.into_iter().for_each(|change| *counts.entry(change.tag).or_default() += 1);
                    }
                }
            });
        }
        Busiest { counts }
    }

    /// Key of the projection's document that changed most often; of equals the first by name.
    fn key(&self, projection: &str) -> Option<String> {
        let counts = self.counts.lock();
        let own = counts.iter().filter_map(|(tag, count)| {
            let key = tag.strip_prefix(projection)?.strip_prefix('/')?;
            Some((*count, std::cmp::Reverse(key)))
        });
        own.max().map(|(_, std::cmp::Reverse(key))| key.to_owned())
    }
}
