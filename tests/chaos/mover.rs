//! Who moves slots to other shards while things go wrong.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Scope, ScopedJoinHandle};

use super::plan::Give;
use crate::crash::moves;

/// Has one move made after the other, each as soon as the queues take it.
pub struct Mover<'scope> {
    wanted: Sender<Give>,
    thread: ScopedJoinHandle<'scope, usize>,
}

impl<'scope> Mover<'scope> {
    /// `desk`: the admin socket that is asked.
    pub fn start(scope: &'scope Scope<'scope, '_>, desk: SocketAddr) -> Mover<'scope> {
        let (wanted, asked) = mpsc::channel();
        Mover { wanted, thread: scope.spawn(move || work(desk, &asked)) }
    }

    pub fn ask(&self, give: Give) {
        self.wanted.send(give).expect("the mover is at work");
    }

    /// Waits for the end of all moves; how many they were.
    pub fn end(self) -> usize {
        drop(self.wanted);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn work(desk: SocketAddr, asked: &Receiver<Give>) -> usize {
    let mut moved = 0;
    for Give { from, to } in asked {
        moves::begin(desk, from, to);
        moves::wait_for_the_end(desk);
        moved += 1;
    }
    moved
}
