//! What a stored response costs in memory: what the budget counts.

use std::ops::{Add, AddAssign, SubAssign};

/// Bytes charged for something, by what they are for; the sum is what the budget counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    pub body: u64,
    /// Head, times, selection and stamp.
    pub meta: u64,
    /// The key, and its place in the map.
    pub index: u64,
    /// Tags, and the way from them to the key.
    pub tags: u64,
}

impl Charge {
    pub fn total(&self) -> u64 {
        self.body + self.meta + self.index + self.tags
    }
}

impl Add for Charge {
    type Output = Charge;

    fn add(self, other: Charge) -> Charge {
        Charge {
            body: self.body + other.body,
            meta: self.meta + other.meta,
            index: self.index + other.index,
            tags: self.tags + other.tags,
        }
    }
}

impl AddAssign for Charge {
    fn add_assign(&mut self, other: Charge) {
        *self = *self + other;
    }
}

impl SubAssign for Charge {
    /// Saturating: a count that was off by a few bytes must not stop the proxy.
    fn sub_assign(&mut self, other: Charge) {
        self.body = self.body.saturating_sub(other.body);
        self.meta = self.meta.saturating_sub(other.meta);
        self.index = self.index.saturating_sub(other.index);
        self.tags = self.tags.saturating_sub(other.tags);
    }
}

impl std::iter::Sum for Charge {
    fn sum<I: Iterator<Item = Charge>>(parts: I) -> Charge {
        parts.fold(Charge::default(), Add::add)
    }
}

/// What is charged for an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overhead {
    /// All the memory that it takes.
    #[default]
    Product,
    /// Its body alone, to compare policies with simulations that know sizes only.
    None,
}

/// The two counts of an `Arc`.
pub const ARC: usize = 16;
/// The count that clones of `Bytes` share: 24 bytes.
pub const SHARED: u64 = 32;
/// A tag's place in its entry (16 bytes), and a key's place under it in the tag index: a bucket of at most 48 bytes, of
/// which a table that has just grown holds two for each that is used.
pub const TAG: u64 = 112;
/// A slot (64 bytes, an eighth in reserve, and what the allocator rounds up), and its number in the table: five bytes,
/// twice for a table that has just grown.
pub const SLOT: u64 = 96;
/// A node of the `lru` crate, and its place in that crate's table.
pub const LRU_NODE: u64 = 104;

/// Bytes that mimalloc takes for an allocation, with its part of what pages can't use, and of the blocks that stay free
/// among used ones once entries come and go: a 32nd, measured under a flood of evictions.
///
/// Blocks come in steps of 16 up to 64, then in four sizes for each power of two, from 512 KiB on in multiples of
/// 64 KiB. A page of 64 KiB begins with its own head, so that it holds 31 blocks of 2 KiB, not 32.
pub fn allocated(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    let step = match bytes {
        0 => return 0,
        1..=64 => 16,
        65..=LARGE => 1 << ((bytes - 1).ilog2() - 2),
        _ => 64 << 10,
    };
    let block = bytes.div_ceil(step).saturating_mul(step);
    // What a larger page can't use is never touched, and so takes no memory.
    let page = [(SMALL, 64 << 10), (MEDIUM, 512 << 10)].into_iter().find(|(most, _)| block <= *most);
    let taken = page.map_or(block, |(_, page): (u64, u64)| page / ((page - PAGE_HEAD) / block));
    taken.saturating_add(taken.div_ceil(32))
}

/// Largest blocks, in bytes, of the three kinds of pages, and what a page keeps for itself.
const SMALL: u64 = 10 << 10;
const MEDIUM: u64 = 84 << 10;
const LARGE: u64 = 512 << 10;
const PAGE_HEAD: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_rounded_as_the_allocator_does() {
        for (bytes, expected) in [
            (0, 0),
            (1, 17),
            (24, 33),
            (64, 66),
            (65, 83),
            (128, 132),
            (129, 165),
            (2048, 2181),
            (2049, 2703),
            (524288, 540672),
            (524289, 608256),
        ] {
            assert_eq!(allocated(bytes), expected, "{bytes}");
        }
        assert!(allocated(usize::MAX) >= usize::MAX as u64 / 2);
    }
}
