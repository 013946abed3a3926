//! The keys of many events in one piece.

/// Keys, one behind the other.
#[derive(Debug, Default)]
pub struct Keys(String);

/// Where a key begins and ends among others, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct KeyPlace(usize, usize);

impl Keys {
    /// With room for so many bytes.
    pub fn with_room(bytes: usize) -> Keys {
        Keys(String::with_capacity(bytes))
    }

    pub fn push(&mut self, key: &str) -> KeyPlace {
        let start = self.0.len();
        self.0.push_str(key);
        KeyPlace(start, self.0.len())
    }

    pub fn get(&self, KeyPlace(start, end): KeyPlace) -> &str {
        self.0.get(start..end).unwrap_or_default()
    }
}
