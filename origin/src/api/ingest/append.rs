//! A batch on its way into the queues.

use futures_util::future::join_all;
use millpond_shared::version::QueueId;

use super::parts::{Batch, Sent};
use super::report::Report;
use super::source::Source;
use crate::queue::{EventQueues, Fate, QueueError};

const FULL: &str = "its event queue is full: send it again later";
const TOO_LARGE: &str =
    "it is larger than a message of the queue's engine may be: make it smaller, or raise max_payload there";

/// Appends to all queues concerned at once; what may go anywhere goes where there is room.
pub async fn append(queues: &dyn EventQueues, count: u16, source: &Source, batch: Batch) -> Report {
    // Its share of the memory goes back when all of it is stored.
    let Batch { mut pinned, anywhere, first_try: first, mut report, share: _share, verified: _ } = batch;
    if !anywhere.is_empty() {
        pinned.entry(first).or_default().extend(anywhere);
    }
    let mut homeless = Vec::new();
    if pinned.len() > 1 {
        let appended = pinned.into_iter().map(|(queue, sent)| append_to(queues, queue, source, sent));
        for outcome in join_all(appended).await {
            outcome.tell(&mut report, &mut homeless);
        }
    } else if let Some((queue, sent)) = pinned.pop_first() {
        append_to(queues, queue, source, sent).await.tell(&mut report, &mut homeless);
    }
    for queue in (1..count).map(|step| (first + step) % count) {
        if homeless.is_empty() {
            break;
        }
        let sent = std::mem::take(&mut homeless);
        append_to(queues, queue, source, sent).await.tell(&mut report, &mut homeless);
    }
    for sent in homeless {
        report.refused(sent.index, FULL);
    }
    report
}

/// Appends to one queue, in the order they were sent.
async fn append_to(queues: &dyn EventQueues, queue: QueueId, source: &Source, sent: Vec<Sent>) -> Outcome {
    let window = sent.iter().any(|sent| sent.repeatable).then_some(source.window);
    let kept = sent.iter().map(|sent| (sent.index, sent.movable.then(|| sent.clone()))).collect();
    let events: Vec<_> = sent.into_iter().map(|sent| sent.event).collect();
    let fates = if events.is_empty() { Ok(Vec::new()) } else { queues.append(queue, window, events).await };
    Outcome { queue, kept, fates }
}

/// What became of an append to one queue.
struct Outcome {
    queue: QueueId,
    /// The index of each event, and the event itself if another queue may take it.
    kept: Vec<(usize, Option<Sent>)>,
    fates: Result<Vec<Fate>, QueueError>,
}

impl Outcome {
    /// Tells the report; what found no room and may go elsewhere becomes homeless.
    fn tell(self, report: &mut Report, homeless: &mut Vec<Sent>) {
        let fates = match self.fates {
            Ok(fates) => fates,
            // Whether it was stored nobody knows: another queue could store it twice, the producer must ask again.
            Err(error) => {
                return self.kept.iter().for_each(|(index, _)| report.refused(*index, error.to_string()));
            }
        };
        for ((index, movable), fate) in self.kept.into_iter().zip(fates) {
            match (fate, movable) {
                (Fate::Stored { offset }, _) => report.stored(self.queue, offset),
                (Fate::Duplicate, _) => report.duplicates += 1,
                (Fate::TooLarge, _) => report.rejected(index, TOO_LARGE),
                (Fate::Full, Some(sent)) => homeless.push(sent),
                (Fate::Full, None) => report.refused(index, FULL),
            }
        }
    }
}
