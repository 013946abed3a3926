//! The thread that writes one file, and the bounded channel in which calls wait for it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::QueueError;
use crate::store::StoreError;

/// What the thread does with the calls.
pub(super) trait Writer: Send + 'static {
    type Call: Send + 'static;

    /// How often [`write`](Writer::write) is called when nobody calls.
    fn tidy_every(&self) -> Duration;

    /// `first`, and those of the waiting calls that are to be written together with it.
    fn gather(&mut self, first: Self::Call, waiting: &Receiver<Self::Call>) -> Vec<Self::Call>;

    /// Commits the calls, and what is to be tidied, in one transaction; then answers, whatever came of it. After an error
    /// it is not called again.
    fn write(&mut self, calls: Vec<Self::Call>) -> Result<(), StoreError>;

    /// Tells whoever runs the role that it is over: the outcome of the commit is unknown, and whatever is asked from now
    /// on, this file can't tell the truth. Why calls are refused from now on.
    fn fail(&self, error: &StoreError) -> QueueError;

    fn refuse(call: Self::Call, error: QueueError);
}

/// Handle to the thread.
pub(super) struct WriterThread<C> {
    /// `None` once it is closed.
    calls: Mutex<Option<SyncSender<C>>>,
    thread: Mutex<Option<Thread>>,
}

/// What takes the turns.
enum Thread {
    OfItsOwn(JoinHandle<()>),
    #[cfg(test)]
    Simulated(crate::simulation::Turns),
}

impl<C: Send + 'static> WriterThread<C> {
    /// Starts a thread that has `writer` write until the channel is closed; at most `waiting_max_calls` wait in it.
    pub fn start(
        name: &str,
        waiting_max_calls: usize,
        writer: impl Writer<Call = C>,
    ) -> Result<WriterThread<C>, StoreError> {
        let (sender, calls) = sync_channel(waiting_max_calls);
        let thread = Thread::start(name, Turns { writer, calls, failed: None })?;
        Ok(WriterThread { calls: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Leaves a call to the thread; [`QueueError::Busy`] if as many wait as may.
    pub fn call(&self, call: C) -> Result<(), QueueError> {
        let calls = self.calls.lock();
        calls.as_ref().ok_or(QueueError::Closed)?.try_send(call).map_err(|error| match error {
            TrySendError::Full(_) => QueueError::Busy,
            TrySendError::Disconnected(_) => QueueError::Closed,
        })?;
        #[cfg(test)]
        if let Some(Thread::Simulated(turns)) = &*self.thread.lock() {
            turns.wake();
        }
        Ok(())
    }

    /// Takes no more calls, and returns when those that wait are answered and the thread has ended. Blocks.
    pub fn close(&self) {
        drop(self.calls.lock().take());
        let thread = self.thread.lock().take();
        match thread {
            Some(Thread::OfItsOwn(thread)) => drop(thread.join()),
            #[cfg(test)]
            Some(Thread::Simulated(turns)) => turns.end(),
            None => {}
        }
    }
}

/// A writer at work.
struct Turns<W: Writer> {
    writer: W,
    calls: Receiver<W::Call>,
    /// Why calls are refused, after a commit has failed.
    failed: Option<QueueError>,
}

impl<W: Writer> Turns<W> {
    /// Waits for a call and writes it with those behind it; false when the channel was closed and every call is answered.
    fn turn(&mut self) -> bool {
        let first = match self.failed {
            None => self.calls.recv_timeout(self.writer.tidy_every()),
            Some(_) => self.calls.recv().map_err(RecvTimeoutError::from),
        };
        self.take(first)
    }

    fn take(&mut self, first: Result<W::Call, RecvTimeoutError>) -> bool {
        match (first, &self.failed) {
            (Ok(first), Some(failed)) => W::refuse(first, failed.clone()),
            (Ok(first), None) => {
                let calls = self.writer.gather(first, &self.calls);
                self.write(calls);
            }
            (Err(RecvTimeoutError::Timeout), None) => self.write(Vec::new()),
            (Err(RecvTimeoutError::Timeout), Some(_)) => {}
            (Err(RecvTimeoutError::Disconnected), None) => {
                // What is tidied now need not be read by the next opening. Nothing is lost if it fails.
                let _ = self.writer.write(Vec::new());
                return false;
            }
            (Err(RecvTimeoutError::Disconnected), Some(_)) => return false,
        }
        true
    }

    fn write(&mut self, calls: Vec<W::Call>) {
        if let Err(error) = self.writer.write(calls) {
            self.failed = Some(self.writer.fail(&error));
        }
    }
}

impl Thread {
    fn start(name: &str, mut turns: Turns<impl Writer>) -> Result<Thread, StoreError> {
        #[cfg(test)]
        if crate::simulation::Simulation::is_running() {
            let tidy_every = turns.writer.tidy_every();
            let turn = move || {
                let first = turns.calls.try_recv().map_err(|error| match error {
                    std::sync::mpsc::TryRecvError::Empty => RecvTimeoutError::Timeout,
                    std::sync::mpsc::TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                });
                turns.take(first)
            };
            return Ok(Thread::Simulated(crate::simulation::Turns::start(tidy_every, turn)));
        }
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || while turns.turn() {});
        thread.map(Thread::OfItsOwn).map_err(|error| StoreError::Open {
            file: name.to_owned(),
            problem: error.to_string(),
            fix: "allow the process more threads",
        })
    }
}
