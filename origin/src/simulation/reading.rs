//! Documents as clients of shards ask for them, and what they are answered.

use std::sync::{Arc, LazyLock, Weak};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use millpond_shared::projection::document_tag;
use millpond_shared::shard_map::{ShardMap, Slot};
use millpond_shared::version::{Position, ShardId, Version};
use millpond_shared::wire::{Origin, headers};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::pond::{Open, Pond, projections};
use super::scheduler::{Process, Simulation};
use super::traffic::USERS;

/// A document that there can be.
pub struct Named {
    /// Index of its projection.
    pub projection: usize,
    pub tag: String,
    pub slot: Slot,
    path: String,
}

/// Every document that there can be.
pub fn documents() -> &'static [Named] {
    static ALL: LazyLock<Vec<Named>> = LazyLock::new(|| {
        let of_one = |(projection, declared): (usize, &millpond_shared::projection::Projection)| {
            let (name, output) = (declared.name.clone(), declared.outputs.first().expect("an output").path.clone());
            USERS.map(|user| Named {
                projection,
                tag: document_tag(&name, user),
                slot: Slot::of(&name, user),
                path: output.as_str().replace("{key}", user),
            })
        };
        projections().iter().enumerate().flat_map(of_one).collect()
    });
    &ALL
}

/// Who answers for each shard at the moment, as clients know it.
#[derive(Default)]
pub struct Directory(Mutex<Vec<Replica>>);

/// A replica that runs.
#[derive(Clone)]
pub struct Replica {
    pub shard: ShardId,
    process: Process,
    pub open: Weak<Open>,
}

impl Directory {
    pub fn update(&self, pond: &Pond) {
        let up = pond.replicas.iter().filter_map(|replica| {
            let open = replica.open.lock().clone();
            Some(Replica { shard: replica.shard, process: replica.up?, open })
        });
        *self.0.lock() = up.filter(|replica| replica.open.strong_count() > 0).collect();
    }

    pub fn any(&self, shard: ShardId) -> Option<Replica> {
        self.any_of(|replica| replica.shard == shard)
    }

    /// The shard map as one of them tells of it at the moment.
    pub fn heard_map(&self) -> Option<Arc<ShardMap>> {
        let state = self.any_of(|_| true)?.open.upgrade()?.shard.kept_map()?;
        Some(Arc::new(state.map.clone()))
    }

    /// All that run.
    pub fn all(&self) -> Vec<Replica> {
        self.0.lock().clone()
    }

    fn any_of(&self, is_one: impl Fn(&Replica) -> bool) -> Option<Replica> {
        let all = self.0.lock();
        let found: Vec<&Replica> = all.iter().filter(|replica| is_one(replica)).collect();
        let chosen = Simulation::below(found.len().max(1) as u64) as usize;
        found.get(chosen).map(|replica| Replica::clone(replica))
    }
}

/// What a reader wants of a document.
#[derive(Clone, Copy)]
pub struct Wish {
    pub least: Position,
    /// All that the queue holds.
    pub newest: bool,
    /// Version of the shard map by which the replica is asked.
    pub map_version: u32,
}

/// What a replica answers.
#[derive(Debug)]
pub enum Answer {
    Given(Given),
    /// The document is another shard's, by this version of the shard map.
    Elsewhere(u32),
    /// Not now.
    Refused,
}

/// A document, or the word that there is none.
#[derive(Debug)]
pub struct Given {
    pub shard: ShardId,
    pub version: Version,
    /// What the replica had applied.
    pub position: Position,
    /// That it may be older than what was given before.
    pub behind: Option<String>,
    /// Where the queue ended, and the version of the shard map that held, for those who wanted that.
    pub newest: Option<(Position, u32)>,
    /// Tags of what it was merged from, beside itself.
    pub parts: Vec<String>,
    pub copy: Option<Copy>,
}

/// A document as it is at a version, or is shown at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub version: Version,
    pub etag: String,
    pub body: Bytes,
}

impl Copy {
    /// Whether it is what the document is at its version.
    pub fn is_settled(&self) -> bool {
        self.etag.starts_with(&format!("\"{}-", self.version))
    }
}

impl Replica {
    /// Asks for a document; `None` if the replica dies meanwhile.
    pub async fn ask(&self, document: &Named, wish: Wish) -> Option<Answer> {
        let mut request = Request::get(&document.path).header(headers::MAP_VERSION, wish.map_version);
        if wish.least > 0 {
            request = request.header(headers::LEAST_POSITION, wish.least);
        }
        if wish.newest {
            request = request.header(headers::NEWEST, "?1");
        }
        let request = request.body(Bytes::new()).expect("a request");
        let (answer, answered) = oneshot::channel();
        let open = self.open.clone();
        Simulation::spawn(self.process, async move {
            let Some(open) = open.upgrade() else { return };
            let _ = answer.send(open.documents.answer(request).await);
        });
        let response = answered.await.ok()?;
        let (status, fields) = (response.status(), response.headers());
        Some(match status {
            StatusCode::MISDIRECTED_REQUEST => {
                Answer::Elsewhere(number(fields, headers::MAP_VERSION).expect("the version by which it is"))
            }
            StatusCode::OK | StatusCode::NOT_FOUND => Answer::Given(given(fields, status, response.body())),
            _ => Answer::Refused,
        })
    }
}

fn given(fields: &HeaderMap, status: StatusCode, body: &Bytes) -> Given {
    let version = number(fields, headers::VERSION).expect("a version");
    let copy = || Copy { version, etag: text(fields, "etag").expect("an ETag").to_owned(), body: body.clone() };
    let tags = text(fields, headers::CACHE_TAG).expect("tags");
    Given {
        shard: number(fields, headers::SHARD).expect("its shard"),
        version,
        position: number(fields, headers::POSITION).expect("a position"),
        behind: text(fields, headers::BEHIND).map(str::to_owned),
        newest: number(fields, headers::NEWEST).zip(number(fields, headers::MAP_VERSION)),
        parts: tags.split(", ").skip(1).map(str::to_owned).collect(),
        copy: (status == StatusCode::OK).then(copy),
    }
}

fn text<'a>(fields: &'a HeaderMap, name: &str) -> Option<&'a str> {
    fields.get(name)?.to_str().ok()
}

fn number<T: std::str::FromStr>(fields: &HeaderMap, name: &str) -> Option<T> {
    text(fields, name)?.parse().ok()
}
