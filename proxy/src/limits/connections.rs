//! How many connections one client may have.

use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::Arc;

use parking_lot::Mutex;

use super::client::ClientId;

/// Counts the connections of each client. There is an entry only for who has one, so that there are never more of them
/// than connections.
#[derive(Debug)]
pub struct Connections {
    max: u32,
    held: Mutex<HashMap<ClientId, Held>>,
}

/// What one client has.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    open: u32,
    /// Connections that are being told that they are too many.
    refused: u32,
}

/// What becomes of a new connection.
#[derive(Debug)]
pub enum Entered {
    Open(Entry),
    /// It is one too many, and may be told so. Of these there are at most as many as of the others.
    Refused(Entry),
    /// It is to be closed without a word.
    Closed,
}

/// A connection, counted until this is dropped.
#[derive(Debug)]
pub struct Entry {
    connections: Arc<Connections>,
    client: ClientId,
    refused: bool,
}

impl Connections {
    pub fn new(max: u32) -> Connections {
        Connections { max, held: Mutex::default() }
    }

    pub fn enter(self: &Arc<Self>, client: ClientId) -> Entered {
        let mut all = self.held.lock();
        let held = all.entry(client).or_default();
        let entry = |refused| Entry { connections: Arc::clone(self), client, refused };
        if held.open < self.max {
            held.open += 1;
            Entered::Open(entry(false))
        } else if held.refused < self.max {
            held.refused += 1;
            Entered::Refused(entry(true))
        } else {
            Entered::Closed
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut all = self.connections.held.lock();
        if let hash_map::Entry::Occupied(mut occupied) = all.entry(self.client) {
            let held = occupied.get_mut();
            let count = if self.refused { &mut held.refused } else { &mut held.open };
            *count = count.saturating_sub(1);
            if held.open == 0 && held.refused == 0 {
                occupied.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_as_many_as_it_may_and_leaves_nothing_behind() {
        let connections = Arc::new(Connections::new(2));
        let client = |address: &str| ClientId::of(address.parse().ok());
        let enter = |address: &str| connections.enter(client(address));
        let (first, _second) = (enter("10.0.0.1"), enter("10.0.0.1"));
        assert!(matches!(first, Entered::Open(_)));
        let refused = [enter("10.0.0.1"), enter("10.0.0.1"), enter("10.0.0.1")];
        assert!(matches!(refused, [Entered::Refused(_), Entered::Refused(_), Entered::Closed]));
        let other = enter("10.0.0.2");
        assert!(matches!(other, Entered::Open(_)), "it has its own");
        drop(first);
        assert!(matches!(enter("10.0.0.1"), Entered::Open(_)), "those that are refused do not count");
        drop((refused, _second, other));
        assert!(connections.held.lock().is_empty());
    }
}
