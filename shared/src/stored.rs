//! Values as bytes on disk and on the wire: `postcard`, a stable and specified encoding.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Appends the `postcard` encoding of `value` to `out`.
pub fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    // Writing to a Vec fails only for types that postcard can't know the length of: for none of ours.
    let _ = postcard::serialize_with_flavor(value, Appended(out));
}

/// A format number, and the `postcard` encoding of `value` behind it.
pub fn with_format<T: Serialize + ?Sized>(format: u8, value: &T) -> Vec<u8> {
    let mut out = vec![format];
    append(value, &mut out);
    out
}

/// Texts are copied in one piece; `postcard::to_extend` copies them byte by byte.
struct Appended<'a>(&'a mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_what_postcard_reads() {
        let value = (7u16, "text".to_owned(), vec![1i64, -300], Some(false));
        let mut out = b"before".to_vec();
        append(&value, &mut out);
        let (before, encoded) = out.split_at(6);
        assert_eq!((before, encoded), (&b"before"[..], postcard::to_allocvec(&value).expect("encoded").as_slice()));
        assert_eq!(postcard::from_bytes::<(u16, String, Vec<i64>, Option<bool>)>(encoded), Ok(value.clone()));
        assert_eq!(with_format(9, &value), [&[9], encoded].concat());
    }
}
