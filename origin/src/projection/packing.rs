//! States in LZ4 blocks: their length, little-endian in four bytes, and the block (pure).

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress, get_maximum_output_size, uncompressed_size,
};

/// A state of fewer bytes is not packed: it shares a page of the file with others anyway.
const PACK_MIN_BYTES: usize = 1_024;
/// No LZ4 block stands for more than so many times its own bytes (its format: a length grows by 255 a byte at most).
const LZ4_RATIO_MAX: usize = 255;
/// The length in front of a block.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Packs one state after the other with the same memory. What comes out depends on nothing that was packed before.
#[derive(Default)]
pub struct Packer {
    /// For inputs below 64 KiB, and for others: with another table a block would be another.
    small: Option<CompressTable>,
    large: Option<CompressTable>,
    packed: Vec<u8>,
}

impl Packer {
    /// `None`: it gets no smaller by it.
    pub fn pack(&mut self, state: &[u8]) -> Option<&[u8]> {
        if state.len() < PACK_MIN_BYTES {
            return None;
        }
        let length = u32::try_from(state.len()).ok()?;
        let table = if state.len() < usize::from(u16::MAX) {
            self.small.get_or_insert_with(CompressTable::small)
        } else {
            self.large.get_or_insert_with(CompressTable::large)
        };
        let room = LENGTH_BYTES + get_maximum_output_size(state.len());
        if self.packed.len() < room {
            self.packed.resize(room, 0);
        }
        let (front, block) = self.packed.split_first_chunk_mut::<LENGTH_BYTES>()?;
        *front = length.to_le_bytes();
        let bytes = compress_into_with_table(state, block, table).ok()?;
        self.packed.get(..LENGTH_BYTES + bytes).filter(|packed| packed.len() < state.len())
    }
}

/// What was packed; why it can't be, in words.
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    let (bytes, packed) = uncompressed_size(packed).map_err(|error| error.to_string())?;
    if bytes / LZ4_RATIO_MAX > packed.len() {
        return Err(format!("{} bytes can't be {bytes} packed ones", packed.len()));
    }
    decompress(packed, bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use lz4_flex::block::compress_prepend_size;
    use millpond_shared::splitmix::SplitMix64;

    use super::*;

    #[test]
    fn what_is_packed_depends_on_nothing_before_it() {
        let mut random = SplitMix64::new(7);
        let mut packer = Packer::default();
        for bytes in [4_096, 9_000, 65_534, 200_000, 1_024, 65_535, 65_536, 4_097, 300_000, 1_023, 9_000] {
            // Half of it repeats.
            let state: Vec<u8> = (0..bytes / 16)
                .flat_map(|_| [random.draw().to_le_bytes(), *b"the same"].concat())
                .chain(std::iter::repeat_n(b'.', bytes % 16))
                .collect();
            let packed = packer.pack(&state).map(<[u8]>::to_vec);
            let expected = (bytes >= PACK_MIN_BYTES).then(|| compress_prepend_size(&state));
            assert!(packed == expected, "{bytes} bytes");
            assert!(packed.is_none_or(|packed| unpack(&packed).as_deref() == Ok(&state)), "{bytes} bytes");
        }
    }

    #[test]
    fn what_gets_no_smaller_is_not_packed() {
        let mut random = SplitMix64::new(7);
        let noise: Vec<u8> = (0..1_000).flat_map(|_| random.draw().to_le_bytes()).collect();
        assert_eq!(Packer::default().pack(&noise), None);
    }
}
