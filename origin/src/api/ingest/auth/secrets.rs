//! Secrets, and the signatures they make: HMAC-SHA256 (RFC 2104), compared in constant time (pure).

use std::fmt;
use std::ops::RangeInclusive;

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::URL_SAFE_NO_PAD};
use ring::hmac::{Context, HMAC_SHA256, Key};
use subtle::{Choice, ConstantTimeEq};

/// Bytes that a secret has: 192 bits at least, since whoever has one signed request can try secrets at home; no more
/// than a block of SHA-256. Both as Standard Webhooks has them.
pub const SECRET_BYTES: RangeInclusive<usize> = 24..=64;
/// Most secrets of one source: each costs a hash of every forged request.
pub const SECRETS_MAX: usize = 8;
/// Bytes of a signature.
pub const TAG_BYTES: usize = 32;

/// A signature.
pub type Tag = [u8; TAG_BYTES];

/// Base64 as producers write it: with padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One secret. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Reads `whsec_` and base64, or base64 alone. `Err` says what is wrong with it, and not what it is.
    pub fn parse(text: &str) -> Result<Secret, String> {
        let encoded = text.trim().strip_prefix("whsec_").unwrap_or(text.trim());
        let bytes =
            LENIENT.decode(encoded).map_err(|_| "is not base64, with or without whsec_ before it".to_owned())?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            return Err(format!("has {} bytes, and a secret has {least} to {most}", bytes.len()));
        }
        Ok(Secret(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The secrets of a source, any of which will do: so they can be changed one after the other. At least one.
#[derive(Clone)]
pub struct Secrets {
    secrets: Vec<Secret>,
    keys: Vec<Key>,
}

impl Secrets {
    pub fn new(secrets: Vec<Secret>) -> Secrets {
        let keys = secrets.iter().map(|Secret(bytes)| Key::new(HMAC_SHA256, bytes)).collect();
        Secrets { secrets, keys }
    }

    /// Whether one of `offered` is what a secret makes of `parts`, one behind the other; then the signature that the
    /// first secret makes of them: the same request has always the same.
    pub fn verify(&self, parts: &[&[u8]], offered: &[Tag]) -> Option<Tag> {
        let mut first = None;
        for key in &self.keys {
            let tag = sign(key, parts);
            let first = *first.get_or_insert(tag);
            let matches = offered.iter().fold(Choice::from(0), |any, other| any | other.ct_eq(&tag));
            if bool::from(matches) {
                return Some(first);
            }
        }
        None
    }

    /// The signature that the first secret makes.
    pub fn sign(&self, parts: &[&[u8]]) -> Option<Tag> {
        self.keys.first().map(|key| sign(key, parts))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.secrets.fmt(f)
    }
}

impl PartialEq for Secrets {
    fn eq(&self, other: &Secrets) -> bool {
        self.secrets == other.secrets
    }
}

fn sign(key: &Key, parts: &[&[u8]]) -> Tag {
    let mut context = Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    let tag = context.sign();
    let mut bytes = [0; TAG_BYTES];
    bytes.iter_mut().zip(tag.as_ref()).for_each(|(byte, made)| *byte = *made);
    bytes
}

/// Reads a signature in base64; `None` if it is none.
pub fn tag_of_base64(text: &str) -> Option<Tag> {
    let mut bytes = [0; TAG_BYTES + 1];
    let length = LENIENT.decode_slice(text, &mut bytes).ok()?;
    bytes.get(..length)?.try_into().ok()
}

/// Reads a signature in the base64 of URLs; `None` if it is none.
pub fn tag_of_base64_url(text: &str) -> Option<Tag> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Writes a signature in the base64 of URLs.
#[cfg(test)]
pub fn base64_url(tag: &Tag) -> String {
    URL_SAFE_NO_PAD.encode(tag)
}

/// Writes a signature in base64.
pub fn base64(tag: &Tag) -> String {
    LENIENT.encode(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_and_never_shown() {
        let bare = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let secret = Secret::parse(&format!(" whsec_{bare}\n")).unwrap();
        assert_eq!(Secret::parse(bare).unwrap(), secret);
        let shown = format!("{:?} {:?}", secret, Secrets::new(vec![secret.clone()]));
        assert_eq!(shown, "Secret(…) [Secret(…)]");
        for (wrong, why) in [
            ("whsec_***", "is not base64"),
            ("", "has 0 bytes, and a secret has 24 to 64"),
            ("MfKQ9r8GKYqrTwjUPD8ILA==", "has 16 bytes"),
            (&"AAAA".repeat(22), "has 66 bytes"),
        ] {
            assert!(Secret::parse(wrong).unwrap_err().starts_with(why), "{wrong}");
        }
    }

    #[test]
    fn parts_are_signed_as_if_joined() {
        let secrets = Secrets::new(vec![Secret(vec![0x0b; 32])]);
        let whole = secrets.sign(&[b"a.b.c"]).unwrap();
        assert_eq!(secrets.sign(&[b"a", b".", b"b", b".", b"c"]), Some(whole));
        assert_eq!(tag_of_base64(&base64(&whole)), Some(whole));
        assert_eq!(tag_of_base64(base64(&whole).trim_end_matches('=')), Some(whole));
        assert_eq!(tag_of_base64_url(&base64_url(&whole)), Some(whole));
        for wrong in ["", "AA", &"A".repeat(100), "é"] {
            assert_eq!((tag_of_base64(wrong), tag_of_base64_url(wrong)), (None, None), "{wrong}");
        }
    }

    #[test]
    fn any_secret_and_any_signature_will_do() {
        let (old, new) = (Secret(vec![1; 24]), Secret(vec![2; 24]));
        let by = |secret: &Secret| Secrets::new(vec![secret.clone()]).sign(&[b"m"]).unwrap();
        let both = Secrets::new(vec![new.clone(), old.clone()]);
        assert_eq!(both.verify(&[b"m"], &[by(&new)]), Some(by(&new)));
        assert_eq!(both.verify(&[b"m"], &[[0; 32], by(&old)]), Some(by(&new)), "one request, one signature");
        assert_eq!(both.verify(&[b"n"], &[by(&new), by(&old)]), None);
        assert_eq!(both.verify(&[b"m"], &[]), None);
    }
}
