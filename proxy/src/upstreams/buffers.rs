//! Buffers for heads and reads, used again by the thread that used them last.
//!
//! A connection that waits holds none: what is read lands in the buffer that the last exchange on this thread left,
//! which is still in the processor's cache. Ten thousand requests that wait for an origin take no buffer at all.

use std::cell::RefCell;

use bytes::BytesMut;

/// Room in each buffer, in bytes.
pub(super) const BUFFER_BYTES: usize = 16 * 1024;
/// Buffers that a thread keeps; those that are more are freed.
const KEPT_MAX: usize = 8;

thread_local! {
    static KEPT: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with [`BUFFER_BYTES`] of room.
pub(super) fn take() -> BytesMut {
    let mut buf = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    buf.clear();
    // Takes the same memory again, unless a piece of it is still in use somewhere: then it is that piece's alone.
    buf.reserve(BUFFER_BYTES);
    buf
}

/// Gives a buffer back. Pieces that were split off it stay as they are.
pub(super) fn give_back(buf: BytesMut) {
    KEPT.with_borrow_mut(|kept| {
        if kept.len() < KEPT_MAX {
            kept.push(buf);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_once_nothing_points_into_it() {
        let mut first = take();
        first.extend_from_slice(b"head and body");
        let at = first.as_ptr();
        let (head, body) = (first.split_to(4).freeze(), first.split().freeze());
        give_back(first);
        drop(head);
        let second = take();
        assert_ne!(second.as_ptr(), at, "the body is still there");
        assert_eq!(body, " and body");
        drop(body);
        let at = second.as_ptr();
        give_back(second);
        let third = take();
        assert_eq!(third.as_ptr(), at);
        assert!(third.is_empty() && third.capacity() >= BUFFER_BYTES);
    }

    #[test]
    fn no_more_than_a_few_are_kept() {
        let taken: Vec<_> = (0..=KEPT_MAX).map(|_| take()).collect();
        taken.into_iter().for_each(give_back);
        assert_eq!(KEPT.with_borrow(Vec::len), KEPT_MAX);
    }
}
