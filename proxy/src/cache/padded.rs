//! Keeps apart in memory what different cores write.

/// Alone on its cache lines: two of them, since processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);
