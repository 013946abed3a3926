//! Where a page of a document begins (pure).
//!
//! Items are listed by (order, id), the greatest first. A page begins behind a place in that order, not behind so many
//! items: so items that come in at the top, and such that go, move nothing, whoever reads on sees no item twice and
//! misses none that was there and stays. It makes no difference whether an item still stands at the place.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Item;

/// A place among items: a page has the items below it. Its text is the cursor that clients hand back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Before {
    order: i64,
    id: Box<str>,
}

/// The text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no cursor of this server")]
pub struct NoCursor;

/// How a cursor begins before it is encoded; what follows is the order, the greatest byte first, then the id. It is in
/// the hands of clients: a number is never given another meaning.
const FORMAT: u8 = 1;

impl Before {
    /// The place of `item`.
    pub fn of(item: &Item) -> Before {
        Before { order: item.order, id: item.id().into() }
    }

    /// To be compared with [`Item::rank`].
    pub fn rank(&self) -> (i64, &str) {
        (self.order, &self.id)
    }

    /// What the place takes in memory beside itself, in bytes.
    pub fn weight(&self) -> usize {
        self.id.len()
    }
}

/// The text has letters, digits, `-` and `_` only (RFC 4648 §5): it needs no encoding in a URL. One place has one text.
impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[FORMAT], &self.order.to_be_bytes()[..], self.id.as_bytes()].concat();
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Before {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Before, NoCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NoCursor)?;
        let (order, id) = match bytes.split_first() {
            Some((&FORMAT, rest)) => rest.split_first_chunk().ok_or(NoCursor)?,
            _ => return Err(NoCursor),
        };
        let id = std::str::from_utf8(id).map_err(|_| NoCursor)?;
        Ok(Before { order: i64::from_be_bytes(*order), id: id.into() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn before(order: i64, id: &str) -> Before {
        Before::of(&Item::new(order, id, ""))
    }

    #[test]
    fn a_cursor_is_what_it_was() {
        // In the hands of clients: it is understood for ever.
        assert_eq!(before(1_442_018_818_771_000_000, "e-1").to_string(), "ARQDFHm8RhrAZS0x");
        assert_eq!(before(0, "").to_string(), "AQAAAAAAAAAA");
    }

    #[test]
    fn what_is_none_is_refused() {
        for wrong in [
            "",
            "x",
            "AA",
            "AQAAAAAAAAA",
            // Of another format.
            "AgAAAAAAAAAA",
            // Padded, of the other alphabet, with bits left over, with a blank, percent-encoded.
            "ARQDFHm8RhrAZS0x=",
            "AQAAAAAAAAAA+w",
            "AQAAAAAAAAAAYR",
            "AQAAAAAAAAAA ",
            "%41QAAAAAAAAAA",
            // An id that is no text.
            "AQAAAAAAAAAA_w",
        ] {
            assert_eq!(wrong.parse::<Before>(), Err(NoCursor), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_place_has_one_text(order: i64, id in ".{0,40}") {
            let place = before(order, &id);
            let text = place.to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{}", text);
            prop_assert_eq!(text.parse::<Before>(), Ok(place));
        }

        #[test]
        fn every_text_is_that_of_its_place(text in "A[QRST][A-Za-z0-9_-]{8,24}") {
            if let Ok(place) = text.parse::<Before>() {
                prop_assert_eq!(place.to_string(), text);
            }
        }
    }
}
