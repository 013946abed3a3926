//! The thread that writes one file, and the bounded channel in which calls wait for it.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::QueueError;
use crate::store::StoreError;

/// Handle to the thread; `C` is what it is called with.
pub(super) struct WriterThread<C> {
    /// `None` once it is closed.
    calls: Mutex<Option<SyncSender<C>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<C: Send + 'static> WriterThread<C> {
    /// Starts a thread that runs `writer` until the channel is closed; at most `waiting_max_calls` wait in it.
    pub fn start(
        name: &str,
        waiting_max_calls: usize,
        writer: impl FnOnce(&Receiver<C>) + Send + 'static,
    ) -> Result<WriterThread<C>, StoreError> {
        let (sender, calls) = sync_channel(waiting_max_calls);
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || writer(&calls)).map_err(|error| StoreError::Open {
            file: name.to_owned(),
            problem: error.to_string(),
            fix: "allow the process more threads",
        })?;
        Ok(WriterThread { calls: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Leaves a call to the thread; [`QueueError::Busy`] if as many wait as may.
    pub fn call(&self, call: C) -> Result<(), QueueError> {
        let calls = self.calls.lock();
        calls.as_ref().ok_or(QueueError::Closed)?.try_send(call).map_err(|error| match error {
            TrySendError::Full(_) => QueueError::Busy,
            TrySendError::Disconnected(_) => QueueError::Closed,
        })
    }

    /// Takes no more calls, and returns when those that wait are answered and the thread has ended. Blocks.
    pub fn close(&self) {
        drop(self.calls.lock().take());
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}
