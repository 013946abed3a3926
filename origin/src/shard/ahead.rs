//! Reading ahead: while a batch is applied, the next ones are pulled; and where documents may have to be read from the
//! file, these batches are prepared and that is read.
//!
//! What is read this way counts as what a reader brings back: nothing depends on it, and what a commit comes between is
//! read again when the batch is applied.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, MaybeDone, maybe_done, ready};
use millpond_shared::version::Position;
use tokio::task::JoinError;

use super::prepare::Ready;
use super::pull::{Batch, PULL_BYTES};
use super::{Shard, ShardError};
use crate::blocking::apart;
use crate::queue::{Pulled, QueueError};
use crate::timing::timeout;

/// Batches ahead of the one that is applied. Where they are made ready, each is by a thread of its own: that takes longer than
/// merging them.
const BATCHES_AHEAD: usize = 2;
/// Documents that are read between two looks at whether a commit came in between.
const READ_AT_ONCE: usize = 64;
/// How long a queue that holds more is given to hand it out. If it takes longer it is asked again.
const AHEAD_WAIT: Duration = Duration::from_secs(5);

/// A pull; `None` if the queue takes too long.
type Pulling = BoxFuture<'static, Option<Result<Pulled, QueueError>>>;
/// A batch that is being made ready.
type Making = BoxFuture<'static, Result<Batch, JoinError>>;

/// Batches on their way from the queue to the state.
#[derive(Default)]
pub(super) struct Ahead {
    /// Position of the last frame that was pulled, and of the last that the queue is known to hold.
    reached: Position,
    last: Position,
    /// The pull that is under way.
    pulling: Option<Pulling>,
    /// In their order.
    batches: VecDeque<Pin<Box<MaybeDone<Making>>>>,
    /// What became of the last pull, to be told behind the batches.
    failed: Option<QueueError>,
}

impl Ahead {
    /// A pull has brought this.
    pub(super) fn note(&mut self, pulled: &Pulled) {
        let reached = pulled.frames.last().map(|(position, _)| *position);
        (self.reached, self.last) = reached.map_or_else(Default::default, |reached| (reached, pulled.last));
    }

    /// Whether there is something to pull ahead.
    fn goes_on(&self) -> bool {
        self.pulling.is_some() || (self.reached < self.last && self.failed.is_none())
    }

    /// Waits for what is being read: until then the file is in use.
    pub(super) async fn end(self) {
        for batch in self.batches {
            batch.await;
        }
    }
}

impl Shard {
    /// Pulls batches while the queue is known to hold more, and begins to make them ready, until there are as many as there
    /// may be. May be dropped, and called again.
    pub(super) async fn read_ahead(self: &Arc<Self>, ahead: &mut Ahead) {
        self.fill(ahead, BATCHES_AHEAD).await;
    }

    async fn fill(self: &Arc<Self>, ahead: &mut Ahead, most: usize) {
        while ahead.batches.len() < most && ahead.goes_on() {
            let (shard, after) = (self.clone(), ahead.reached);
            let pulling = ahead.pulling.get_or_insert_with(|| {
                let pull = async move { shard.queues.pull(shard.id, after, PULL_BYTES, Duration::ZERO).await };
                timeout(AHEAD_WAIT, pull).map(Result::ok).boxed()
            });
            let pulled = pulling.await;
            ahead.pulling = None;
            match pulled {
                Some(Ok(pulled)) if !pulled.frames.is_empty() => {
                    ahead.note(&pulled);
                    let shard = self.clone();
                    // Where nothing is to be read, one thread prepares and merges with less work than two.
                    let making = if self.state.read().is_cold() {
                        apart(move || shard.made_ready(pulled)).boxed()
                    } else {
                        ready(Ok(Batch::from(pulled))).boxed()
                    };
                    let mut batch = Box::pin(maybe_done(making));
                    // It begins when it is polled first.
                    poll_fn(|context| Poll::Ready(batch.as_mut().poll(context).is_ready())).await;
                    ahead.batches.push_back(batch);
                }
                Some(Err(error)) => ahead.failed = Some(error),
                // It does not hold what it is known to hold: it is asked for it without being known to.
                Some(Ok(_)) | None => ahead.last = ahead.reached,
            }
        }
    }

    /// The first of the batches ahead, or what became of the pull behind the last; `None` if nothing is known to come.
    /// May be dropped, and called again.
    pub(super) async fn next_ahead(self: &Arc<Self>, ahead: &mut Ahead) -> Option<Result<Batch, ShardError>> {
        self.fill(ahead, 1).await;
        if let Some(batch) = ahead.batches.front_mut() {
            batch.as_mut().await;
        }
        match ahead.batches.pop_front() {
            Some(mut batch) => Some(batch.as_mut().take_output()?.map_err(ShardError::from)),
            None => {
                let error = ahead.failed.take()?;
                // The next pull is one behind a pause.
                ahead.last = ahead.reached;
                Some(Err(error.into()))
            }
        }
    }

    /// Makes a batch ready to be merged: prepares its frames, and reads their documents that are not in memory.
    fn made_ready(&self, pulled: Pulled) -> Batch {
        let mut prepared = self.prepare(&pulled.frames);
        self.bring_ahead(&mut prepared.ready);
        Batch { pulled, prepared: Some(prepared) }
    }

    /// Reads documents of these frames that are not in memory, as far as there is room.
    fn bring_ahead(&self, frames: &mut [Ready]) {
        let mut missing = Vec::new();
        for frame in frames {
            // Documents that are handed over come with the frame; that they replace others is rare.
            if let Ready::Events(prepared) = frame {
                missing.append(&mut self.state.read().find(prepared));
            }
        }
        // In the order of the file.
        missing.sort_unstable();
        missing.dedup();
        for wanted in missing.chunks(READ_AT_ONCE) {
            let (commits, bytes) = {
                let state = self.state.read();
                (state.commits(), state.bytes())
            };
            if bytes >= self.settings.memory {
                return;
            }
            // What can't be read is told when the batch is applied.
            let Ok(rows) = self.file.read(wanted) else { return };
            self.metrics.read.inc_by(rows.len() as u64);
            let mut state = self.state.write();
            for row in rows {
                state.bring_back(row, commits, self.settings.memory);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::super::state::Looked;
    use super::super::testing::{Call, Site};
    use super::*;
    use crate::projection::testing::{declared, event};

    /// A site whose file holds documents `u0` to `u8`, and whose queue holds three batches more about them.
    async fn site() -> (Site, Position) {
        let site = Site::new(declared(
            "name = \"p\"\nkind = \"feed\"\nkeep = 2\nkey = \"{data.user}\"\nitem = { id = \"{id}\", text = \"{data.text}\" }",
        ));
        let about = |id: &str, n: i64, text: &str| event(id, n, &format!(r#"{{"user":"u{n}","text":"{text}"}}"#));
        let all: Vec<_> = (0..9).map(|n| about("a", n, "")).collect();
        let committed = site.queue.push(&site.frame(0, 1, &all));
        let shard = site.open();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn({
            let shard = shard.clone();
            async move { shard.run(stopped).await }
        });
        shard.applied().wait_for(|applied| *applied == committed).await.expect("applied");
        stop.send_replace(true);
        running.await.expect("no panic").expect("stopped");
        let text = "x".repeat(PULL_BYTES / 3);
        for n in 0..9 {
            site.queue.push(&site.frame(0, 10 + n as u64, &[about("b", n, &text)]));
        }
        (Site { disk: site.disk.crash(), ..site }, committed)
    }

    fn positions(batch: &Batch) -> Vec<Position> {
        batch.pulled.frames.iter().map(|frame| frame.0).collect()
    }

    #[tokio::test]
    async fn the_next_batches_are_pulled_and_what_they_need_is_in_memory_before_they_are_applied() {
        let (site, committed) = site().await;
        let shard = site.open();
        let mut ahead = Ahead::default();
        assert!(shard.next_ahead(&mut ahead).await.is_none(), "it does not know that there is more");
        ahead.note(&site.queue.pulled(committed, 2));
        shard.read_ahead(&mut ahead).await;
        assert_eq!(ahead.batches.len(), BATCHES_AHEAD, "no more than there may be");
        let mut taken = Vec::new();
        while let Some(batch) = shard.next_ahead(&mut ahead).await {
            let batch = batch.expect("pulled");
            assert_eq!(batch.prepared.as_ref().map(|prepared| prepared.ready.len()), Some(batch.pulled.frames.len()));
            taken.push(positions(&batch));
        }
        assert_eq!(taken.concat(), (committed + 3..=committed + 9).collect::<Vec<_>>());
        let is_here = |key: &str| matches!(shard.state.read().look(0, key), Looked::Here(_));
        assert_eq!(["u1", "u2", "u3", "u8"].map(is_here), [false, true, true, true]);
        assert_eq!(*shard.applied().borrow(), committed, "nothing is applied");
        ahead.note(&site.queue.pulled(committed, usize::MAX));
        assert!(shard.next_ahead(&mut ahead).await.is_none(), "there is nothing behind it");
    }

    #[tokio::test]
    async fn what_needs_nothing_of_the_file_is_left_to_the_thread_that_merges() {
        let (site, committed) = site().await;
        let site = Site { disk: crate::store::forgetful::Forgetful::new(), ..site };
        let shard = site.open();
        let mut ahead = Ahead::default();
        ahead.note(&site.queue.pulled(committed, 2));
        let batch = shard.next_ahead(&mut ahead).await.expect("there is more").expect("pulled");
        assert_eq!((positions(&batch)[0], batch.prepared.is_none()), (committed + 3, true));
    }

    /// What was read before it is applied first.
    #[tokio::test]
    async fn a_pull_that_fails_is_told_behind_the_batches_before_it() {
        let (site, committed) = site().await;
        let shard = site.open();
        let mut ahead = Ahead::default();
        ahead.note(&site.queue.pulled(committed, 2));
        shard.fill(&mut ahead, 1).await;
        site.queue.errors.lock().push(QueueError::Busy);
        shard.read_ahead(&mut ahead).await;
        let batch = shard.next_ahead(&mut ahead).await.expect("there is more").expect("pulled");
        assert_eq!(positions(&batch)[0], committed + 3);
        let failed = shard.next_ahead(&mut ahead).await.expect("it is told");
        assert!(matches!(failed, Err(ShardError::Queue(QueueError::Busy))));
        let pulls = site.queue.calls.lock().len();
        assert!(shard.next_ahead(&mut ahead).await.is_none(), "it is not asked again at once");
        assert_eq!(site.queue.calls.lock().len(), pulls);
    }

    #[tokio::test]
    async fn batches_that_are_read_ahead_give_the_same_documents() {
        let (site, committed) = site().await;
        let shard = site.open();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn({
            let shard = shard.clone();
            async move { shard.run(stopped).await }
        });
        let last = committed + 9;
        shard.applied().wait_for(|applied| *applied == last).await.expect("applied");
        for n in 0..9 {
            let state = shard.state.read();
            let Looked::Here(document) = state.look(0, &format!("u{n}")) else { panic!("u{n} is not there") };
            assert_eq!(document.items().map(|item| item.id()).collect::<Vec<_>>(), ["b", "a"], "u{n}");
            assert_eq!(document.version.position, committed + 1 + n);
        }
        assert_eq!(shard.metrics.read.get(), 9, "each was read once");
        stop.send_replace(true);
        running.await.expect("no panic").expect("stopped");
        let pulls: Vec<_> = (site.queue.calls.lock().iter())
            .filter_map(|call| if let Call::Pull { after } = call { Some(*after) } else { None })
            .collect();
        let again = pulls.iter().rposition(|after| *after == committed).expect("pulled from there");
        assert!(pulls[again..].windows(2).all(|pair| pair[0] < pair[1]), "nothing is pulled twice: {pulls:?}");
    }
}
