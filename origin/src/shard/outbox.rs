//! Sends what was committed to other databases: behind the commits, at least once, in no order but that of the keys.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use millpond_shared::shard_map::{MapState, Slot};
use millpond_shared::template::decode_key;

use super::{Shard, ShardError};
use crate::blocking::apart;
use crate::database::{Database, DatabaseError, DatabaseRow, postgres};
use crate::render::plain_json;
use crate::store::outbox::Sent;
use crate::store::shard_file::Row;
use crate::timing::sleep;

/// Documents of one statement, and their bytes as they are stored.
const PAGE_DOCUMENTS: usize = 500;
const PAGE_BYTES: usize = 4 << 20;
/// Pause after a database could not be written: the first, and the longest.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A database that documents of a shard are sent to.
#[derive(Clone)]
pub struct Attached {
    pub name: String,
    /// Indexes of the projections whose documents go there.
    pub projections: Vec<u16>,
    pub database: Arc<dyn Database>,
}

/// What is to be done with a document that waits.
enum Turn {
    Send,
    /// Another shard sends it.
    Leave,
    /// It was handed over by a map that is not known here yet.
    Wait,
}

enum Failed {
    Shard(ShardError),
    Database(DatabaseError),
}

impl Shard {
    /// Sends to all attached databases, each in its own time.
    pub(super) async fn send_out(self: &Arc<Self>) -> Result<Infallible, ShardError> {
        let sending = self.attached.iter().map(|attached| self.send_to(attached));
        match futures_util::future::try_join_all(sending).await {
            Err(error) => Err(error),
            // There is none.
            Ok(_) => std::future::pending().await,
        }
    }

    /// Ends only if the shard's own file fails.
    async fn send_to(self: &Arc<Self>, attached: &Attached) -> Result<Infallible, ShardError> {
        let (mut committed, mut map) = (self.committed.subscribe(), self.kept_map.subscribe());
        let mut pause: Option<Duration> = None;
        loop {
            match self.send_page(attached).await {
                Ok(count) => {
                    if pause.take().is_some() {
                        tracing::info!(shard = self.id, database = attached.name, "the database can be written again");
                    }
                    if count == 0 {
                        // What waits for the end of a move can go then. The shard has both ends of these.
                        tokio::select! {
                            _ = committed.changed() => {}
                            _ = map.changed() => {}
                        }
                    }
                }
                Err(Failed::Shard(error)) => return Err(error),
                Err(Failed::Database(error)) => {
                    if pause.is_none() {
                        tracing::warn!(
                            shard = self.id, database = attached.name, %error,
                            "the database can't be written; trying again"
                        );
                    }
                    let next = pause.map_or(RETRY_PAUSE.0, |pause| (pause * 2).min(RETRY_PAUSE.1));
                    pause = Some(next);
                    sleep(next).await;
                }
            }
        }
    }

    /// Sends some of what waits; how many documents that were.
    async fn send_page(self: &Arc<Self>, attached: &Attached) -> Result<usize, Failed> {
        let (shard, projections) = (self.clone(), attached.projections.clone());
        let reading = apart(move || {
            let map = shard.kept_map();
            let comes = |projection, key: &str| shard.comes(projection, key, map.as_deref());
            let page = shard.file.outbox(&projections, comes, PAGE_DOCUMENTS, PAGE_BYTES)?;
            let (mut rows, mut done) = (Vec::new(), Vec::new());
            for row in &page {
                match shard.turn(row, map.as_deref()) {
                    Turn::Send => rows.extend(shard.database_row(row)),
                    Turn::Leave => {}
                    Turn::Wait => continue,
                }
                done.push(row);
            }
            let sent: Vec<Sent> = done
                .into_iter()
                .map(|(projection, key, document)| (*projection, key.clone(), document.version.position))
                .collect();
            let waiting = shard.file.outbox_len()?;
            shard.metrics.outbox.set(i64::try_from(waiting).unwrap_or(i64::MAX));
            Ok::<_, ShardError>((rows, sent))
        });
        let (rows, sent) = reading.await.map_err(ShardError::from).flatten().map_err(Failed::Shard)?;
        if sent.is_empty() {
            return Ok(0);
        }
        let count = sent.len();
        if !rows.is_empty() {
            attached.database.put(&rows).await.map_err(Failed::Database)?;
        }
        let shard = self.clone();
        let removing = apart(move || Ok(shard.file.sent(&sent)?));
        removing.await.map_err(ShardError::from).flatten().map_err(Failed::Shard)?;
        Ok(count)
    }

    /// Whether a document is of those that are being handed over to this shard.
    fn comes(&self, projection: u16, key: &str, map: Option<&MapState>) -> bool {
        let moving = map.and_then(|state| state.moving.as_ref()).filter(|moving| moving.to == self.id);
        let (Some(moving), Some(declared)) = (moving, self.projections.get(usize::from(projection))) else {
            return false;
        };
        moving.slots.contains(Slot::of(&declared.name, key))
    }

    fn turn(&self, (projection, key, document): &Row, map: Option<&MapState>) -> Turn {
        let (Some(declared), Some(state)) = (self.projections.get(usize::from(*projection)), map) else {
            return Turn::Send;
        };
        if document.version.epoch > state.version() {
            Turn::Wait
        } else if state.map.owner_of(&declared.name, key).shard == self.id {
            Turn::Send
        } else {
            Turn::Leave
        }
    }

    /// A document as databases get it: in the form of the output `json`, whatever outputs it has. `None` if it can't be made,
    /// as of a damaged one.
    fn database_row(&self, (projection, key, document): &Row) -> Option<DatabaseRow> {
        let declared = self.projections.get(usize::from(*projection))?;
        let made = plain_json(declared, key, document);
        let made = made
            .inspect_err(|error| tracing::warn!(shard = self.id, %error, "a document is not sent to its database"))
            .ok()?;
        let plain = decode_key(key);
        Some(DatabaseRow {
            projection: declared.name.clone(),
            key: if plain.contains('\0') { key.to_string() } else { plain },
            version: document.version,
            document: postgres::storable(&made)?,
        })
    }
}
