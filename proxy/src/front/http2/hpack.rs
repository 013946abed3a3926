//! A second look at a field block that `h2` refused, or at trailers: is it the compression that is broken (RFC 7541),
//! or what was compressed? (pure)
//!
//! Only ever asked when something is wrong, or rare: it need not be fast, and it keeps no table. What an index of the
//! dynamic table stands for is not known here.

/// Entries of the static table (RFC 7541 appendix A). Below it stand the pseudo-fields, from 1 to the second number.
const STATIC_MAX: u64 = 61;
const STATIC_PSEUDO_MAX: u64 = 14;
/// What we let a table hold, in bytes: the default, which we do not change (RFC 9113 §6.5.2).
const TABLE_MAX: u64 = 4096;

/// What is wrong with a field block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It can't be decoded: COMPRESSION_ERROR (RFC 9113 §4.3).
    Compression,
    /// It can, and a name or a value is none.
    Field,
}

/// What is wrong with a block that was refused. An index of the dynamic table is taken for one that is not there, unless
/// something else explains the refusal.
pub(super) fn flaw(block: &[u8]) -> Option<Flaw> {
    let mut uses_table = false;
    for field in read(block) {
        let Ok(field) = field else { return Some(Flaw::Compression) };
        if field.name.as_deref().is_some_and(|name| !is_name(name)) || !field.value.iter().all(|b| is_value_byte(*b)) {
            return Some(Flaw::Field);
        }
        uses_table |= field.index > STATIC_MAX;
    }
    uses_table.then_some(Flaw::Compression)
}

/// Whether a pseudo-field stands in the block, as far as can be told without the dynamic table.
pub(super) fn has_pseudo_field(block: &[u8]) -> bool {
    read(block).map_while(Result::ok).any(|field| match field.name {
        Some(name) => name.starts_with(b":"),
        None => (1..=STATIC_PSEUDO_MAX).contains(&field.index),
    })
}

/// One field as it stands in a block.
struct Field {
    /// Place in the tables of the name, or of both; 0 where the name is literal.
    index: u64,
    /// `None`: it stands in a table.
    name: Option<Vec<u8>>,
    /// Empty where it stands in a table.
    value: Vec<u8>,
}

struct Broken;

/// The fields of a block up to the first that can't be decoded.
fn read(block: &[u8]) -> impl Iterator<Item = Result<Field, Broken>> {
    let (mut rest, mut begun, mut broken) = (block, false, false);
    std::iter::from_fn(move || {
        while !broken && !rest.is_empty() {
            match take_field(&mut rest, &mut begun) {
                Ok(Some(field)) => return Some(Ok(field)),
                // The size of the table was changed.
                Ok(None) => {}
                Err(Broken) => {
                    broken = true;
                    return Some(Err(Broken));
                }
            }
        }
        None
    })
}

/// Takes one representation off the front (RFC 7541 §6). `begun`: a field stood before it.
fn take_field(rest: &mut &[u8], begun: &mut bool) -> Result<Option<Field>, Broken> {
    let first = *rest.first().ok_or(Broken)?;
    if first & 0xe0 == 0x20 {
        let size = take_integer(rest, 5)?;
        return if *begun || size > TABLE_MAX { Err(Broken) } else { Ok(None) };
    }
    *begun = true;
    if first & 0x80 != 0 {
        let index = take_integer(rest, 7)?;
        return if index == 0 { Err(Broken) } else { Ok(Some(Field { index, name: None, value: Vec::new() })) };
    }
    let index = take_integer(rest, if first & 0x40 != 0 { 6 } else { 4 })?;
    let name = if index == 0 { Some(take_string(rest)?) } else { None };
    Ok(Some(Field { index, name, value: take_string(rest)? }))
}

/// An integer whose first byte has a prefix of so many bits (RFC 7541 §5.1).
fn take_integer(rest: &mut &[u8], prefix: u32) -> Result<u64, Broken> {
    let mut take = || {
        let (&first, behind) = rest.split_first().ok_or(Broken)?;
        *rest = behind;
        Ok(u64::from(first))
    };
    let most = (1 << prefix) - 1;
    let mut value = take()? & most;
    if value < most {
        return Ok(value);
    }
    // Five bytes tell more than any length or index can be.
    for shift in [0, 7, 14, 21, 28] {
        let byte = take()?;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Broken)
}

fn take_string(rest: &mut &[u8]) -> Result<Vec<u8>, Broken> {
    let is_coded = rest.first().ok_or(Broken)? & 0x80 != 0;
    let length = usize::try_from(take_integer(rest, 7)?).map_err(|_| Broken)?;
    let (text, behind) = rest.split_at_checked(length).ok_or(Broken)?;
    *rest = behind;
    if is_coded { decoded(text) } else { Ok(text.to_vec()) }
}

/// A string in the code of RFC 7541 §5.2, appendix B.
fn decoded(text: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut decoded = Vec::new();
    let (mut code, mut length) = (0u32, 0u8);
    for bit in text.iter().flat_map(|byte| (0..8).rev().map(move |at| u32::from(byte >> at & 1))) {
        (code, length) = (code << 1 | bit, length + 1);
        match symbol(code, length) {
            Some(END) => return Err(Broken),
            Some(symbol) => {
                decoded.push(u8::try_from(symbol).map_err(|_| Broken)?);
                (code, length) = (0, 0);
            }
            None if length == LENGTH_MAX => return Err(Broken),
            None => {}
        }
    }
    // What is left is the beginning of the end symbol, which is ones, and less than a byte of it.
    if length < 8 && code == (1 << length) - 1 { Ok(decoded) } else { Err(Broken) }
}

/// The symbol of a code. The code is canonical: of each length the codes are one run, in the order of their symbols,
/// behind those of the lengths before.
fn symbol(code: u32, length: u8) -> Option<usize> {
    let of = |wanted: u8| LENGTHS.iter().filter(move |length| **length == wanted).count() as u32;
    let first = (1..=length).fold(0, |first, shorter| (first + of(shorter - 1)) << 1);
    let place = usize::try_from(code.checked_sub(first)?).ok()?;
    let mut run = LENGTHS.iter().enumerate().filter(|(_, other)| **other == length);
    run.nth(place).map(|(symbol, _)| symbol)
}

/// The symbol that must not stand in a string.
const END: usize = 256;
const LENGTH_MAX: u8 = 30;

/// Bits of each symbol's code; the last is [`END`].
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6,
    12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15,
    5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20,
    22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22,
    23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26,
    27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// A name as HTTP/2 has it: a token in lower case (RFC 9113 §8.2.1), or a pseudo-field of requests.
fn is_name(name: &[u8]) -> bool {
    let is_token_byte = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(b);
    let pseudo: [&[u8]; 6] = [b":authority", b":method", b":path", b":protocol", b":scheme", b":status"];
    (!name.is_empty() && name.iter().all(is_token_byte)) || pseudo.contains(&name)
}

fn is_value_byte(b: u8) -> bool {
    b == b'\t' || (b >= 0x20 && b != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(name: &str, value: &str) -> Vec<u8> {
        let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
        [vec![0], text(name), text(value)].concat()
    }

    #[test]
    fn the_code_is_that_of_the_appendix() {
        // RFC 7541 §C.4.1, §C.6.1.
        for (coded, text) in [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0xae, 0xc3, 0x77, 0x1a, 0x4b], "private"),
            (&[], ""),
        ] {
            assert!(decoded(coded).is_ok_and(|found| found == text.as_bytes()), "{text}");
        }
        // The end symbol, padding of zeros, and of more than seven bits.
        for broken in [&[0xff, 0xff, 0xff, 0xff][..], &[0x18], &[0x1f, 0xff], &[0xff]] {
            assert!(decoded(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn a_flaw_of_the_coding_is_told_from_one_of_a_field() {
        let sound = literal("x", "y");
        let with = |bytes: &[u8]| [sound.as_slice(), bytes].concat();
        for (block, expected) in [
            (sound.clone(), None),
            (with(&[0x82, 0x44, 1, b'/']), None),
            (with(&literal(":method", "GET")), None),
            (with(&literal("X", "y")), Some(Flaw::Field)),
            (with(&literal("", "y")), Some(Flaw::Field)),
            (with(&literal(":x", "y")), Some(Flaw::Field)),
            (with(&literal("x", "y\n")), Some(Flaw::Field)),
            (with(&[0x80]), Some(Flaw::Compression)),
            (with(&[0xc6]), Some(Flaw::Compression)),
            ([&literal("X", "y")[..], &[0xc6]].concat(), Some(Flaw::Field)),
            (with(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), Some(Flaw::Compression)),
            (with(&[0, 5, b'a']), Some(Flaw::Compression)),
            (with(&[0, 1, b'a']), Some(Flaw::Compression)),
            (with(&[0, 1, b'a', 0x81, 0x18]), Some(Flaw::Compression)),
            (with(&[0x20]), Some(Flaw::Compression)),
            ([&[0x3f, 0xe1, 0x1f], &sound[..]].concat(), None),
            ([&[0x3f, 0xe2, 0x1f], &sound[..]].concat(), Some(Flaw::Compression)),
        ] {
            assert_eq!(flaw(&block), expected, "{block:02x?}");
        }
    }

    #[test]
    fn pseudo_fields_are_found_by_name_and_by_index() {
        for (block, expected) in [
            (literal("x", "y"), false),
            (literal(":path", "/"), true),
            (vec![0x84], true),
            (vec![0x44, 1, b'/'], true),
            (vec![0x8f], false),
            // `:path`, coded.
            (vec![0, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 1, b'/'], true),
        ] {
            assert_eq!(has_pseudo_field(&block), expected, "{block:02x?}");
        }
    }
}
