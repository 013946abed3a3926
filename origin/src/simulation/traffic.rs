//! Producers: few users, ids that are sent again, events that can't be filed or applied.

use std::sync::Arc;
use std::time::Duration;

use millpond_shared::event::Event;
use millpond_shared::version::QueueId;
use parking_lot::Mutex;
use serde_json::json;

use super::ledger::Ledger;
use super::scheduler::Simulation;
use super::tally::Befell;
use super::wire::Wire;
use crate::queue::{EventQueues, Fate};
use crate::timing::sleep;

/// Everybody that documents are about. The events of one user go to one event queue.
pub const USERS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Longer than any history.
const WINDOW: Duration = Duration::from_secs(86_400);

/// What producers have sent, and how many of them are not done.
pub struct Traffic {
    /// Whether users follow each other.
    follows: bool,
    sent: Mutex<Vec<Event<'static>>>,
    working: Mutex<usize>,
}

impl Traffic {
    pub fn new(follows: bool) -> Arc<Traffic> {
        Arc::new(Traffic { follows, sent: Mutex::default(), working: Mutex::default() })
    }

    /// Every event that was sent, once. All of them are acknowledged when no producer works any more.
    pub fn sent(&self) -> Vec<Event<'static>> {
        self.sent.lock().clone()
    }

    pub fn is_over(&self) -> bool {
        *self.working.lock() == 0
    }

    /// Sends the events of an event queue's users in `batches`, each until it is acknowledged.
    pub async fn produce(
        self: Arc<Self>,
        queue: QueueId,
        queues: u16,
        batches: u64,
        wire: Arc<Wire>,
        ledger: Arc<Ledger>,
    ) {
        *self.working.lock() += 1;
        let users: Vec<&str> = USERS.into_iter().skip(queue.into()).step_by(queues.into()).collect();
        let mut acknowledged: Vec<Event<'static>> = Vec::new();
        for _ in 0..batches {
            sleep(Duration::from_millis(Simulation::below(800))).await;
            let mut batch = Vec::new();
            for _ in 0..=Simulation::below(4) {
                let event = self.event(users[Simulation::below(users.len() as u64) as usize]);
                batch.push((event, false));
            }
            if !acknowledged.is_empty() && Simulation::one_in(4) {
                let again = acknowledged[Simulation::below(acknowledged.len() as u64) as usize].clone();
                batch.push((again, true));
            }
            acknowledged.extend(batch.iter().filter(|(_, again)| !again).map(|(event, _)| event.clone()));
            while !batch.is_empty() {
                let events = batch.iter().map(|(event, _)| event.clone()).collect();
                let Ok(fates) = wire.append(queue, Some(WINDOW), events).await else {
                    // Nobody knows whether they are there: sent again, with the same ids.
                    batch.iter_mut().for_each(|(_, again)| *again = true);
                    sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let mut full = Vec::new();
                for ((event, again), fate) in batch.into_iter().zip(fates) {
                    match fate {
                        Fate::Stored { offset } => ledger.stored(queue, offset, &event.id),
                        Fate::Duplicate => {
                            assert!(again, "event {} was never sent before", event.id);
                            Simulation::befell(Befell::Repeat);
                        }
                        Fate::Full => {
                            Simulation::befell(Befell::QueueFull);
                            full.push((event, again));
                        }
                        Fate::TooLarge => panic!("event {} is small", event.id),
                    }
                }
                batch = full;
                if !batch.is_empty() {
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
        *self.working.lock() -= 1;
    }

    /// Few times and numbers, so that many collide; some numbers that are none, some data that can't be read. Where
    /// users follow each other, every other event says whom its user follows, or no longer.
    fn event(&self, user: &str) -> Event<'static> {
        let mut sent = self.sent.lock();
        let seq = sent.len() as u64 + 1;
        let n = if Simulation::one_in(12) { json!("none") } else { json!(Simulation::below(6)) };
        let mut data = json!({ "user": user, "n": n, "seq": seq });
        if self.follows && Simulation::one_in(2) {
            data["what"] = json!(["follow", "follow", "unfollow"][Simulation::below(3) as usize]);
            data["whom"] = json!(USERS[Simulation::below(USERS.len() as u64) as usize]);
        }
        let mut data = data.to_string();
        if Simulation::one_in(16) {
            data.truncate(data.len() - 1);
        }
        let event = Event {
            id: seq.to_string().into(),
            source: "s".into(),
            kind: "t".into(),
            subject: None,
            time: Simulation::below(9) as i64 * 1_000_000_000,
            received: 1_000 * seq,
            data: data.into(),
        };
        sent.push(event.clone());
        event
    }
}
