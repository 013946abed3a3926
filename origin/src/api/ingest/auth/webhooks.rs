//! Signed requests as Standard Webhooks 1.0.0 describes them (pure).
//!
//! `webhook-id`, `webhook-timestamp` (seconds since 1970) and `webhook-signature` (one or more `v1,` and base64,
//! separated by spaces): HMAC-SHA256 over `id.timestamp.body`, the body as it is sent, before any content coding is
//! undone.

use std::time::Duration;

use super::Unverified;
use super::secrets::{Secrets, Tag, base64, tag_of_base64};
use crate::api::ingest::asked::Fields;

/// Longest `webhook-id`, in bytes; a longer one is answered 400. Leaves room for an index behind it in the id of an
/// event.
pub const WEBHOOK_ID_MAX_BYTES: usize = 200;
/// Most signatures of one request that are looked at.
const SIGNATURES_MAX: usize = 16;

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// A source whose requests are signed.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhooks {
    pub secrets: Secrets,
    /// How far the timestamp may be from now, both ways.
    pub tolerance: Duration,
}

/// What a request says of itself, not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    id: String,
    timestamp: u64,
    /// The timestamp as it was written: that is what is signed.
    timestamp_text: String,
    signatures: Vec<Tag>,
}

/// A request that is from who has a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub id: String,
    /// When it was signed: seconds since the Unix epoch.
    pub timestamp: u64,
    /// The same for the same request, and for no other.
    pub fingerprint: u64,
}

impl Webhooks {
    /// Reads what can be known before the body is there.
    pub fn claim(&self, fields: &dyn Fields, now_s: u64) -> Result<Claim, Unverified> {
        let id = text(fields, ID)?;
        let malformed = |what, problem| Err(Unverified::Malformed { what, problem });
        if id.is_empty() || id.len() > WEBHOOK_ID_MAX_BYTES {
            return malformed(ID, "has not between 1 and 200 bytes");
        }
        // With a dot in it `id.timestamp.body` could be read in two ways.
        if !id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.') {
            return malformed(ID, "holds a dot, a blank, or what is not ASCII");
        }
        let timestamp_text = text(fields, TIMESTAMP)?;
        let digits = timestamp_text.len() <= 20 && timestamp_text.bytes().all(|byte| byte.is_ascii_digit());
        let Some(timestamp) = timestamp_text.parse::<u64>().ok().filter(|_| digits) else {
            return malformed(TIMESTAMP, "is not a number of seconds since 1970");
        };
        let limit_seconds = self.tolerance.as_secs();
        let (age, lead) = (now_s.saturating_sub(timestamp), timestamp.saturating_sub(now_s));
        if age > limit_seconds {
            return Err(Unverified::Late { seconds: age, limit_seconds });
        }
        if lead > limit_seconds {
            return Err(Unverified::Early { seconds: lead, limit_seconds });
        }
        let versions = text(fields, SIGNATURE)?.split(' ').filter_map(|one| one.strip_prefix("v1,"));
        let signatures: Vec<Tag> = versions.filter_map(tag_of_base64).take(SIGNATURES_MAX).collect();
        if signatures.is_empty() {
            return malformed(SIGNATURE, "holds no v1 signature: `v1,` and the base64 of 32 bytes");
        }
        Ok(Claim { id: id.to_owned(), timestamp, timestamp_text: timestamp_text.to_owned(), signatures })
    }

    /// Whether the claim holds for this body.
    pub fn verify(&self, claim: Claim, body: &[u8]) -> Result<Verified, Unverified> {
        let parts: [&[u8]; 5] = [claim.id.as_bytes(), b".", claim.timestamp_text.as_bytes(), b".", body];
        let tag = self.secrets.verify(&parts, &claim.signatures).ok_or(Unverified::Forged)?;
        let fingerprint = tag.iter().take(8).fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        Ok(Verified { id: claim.id, timestamp: claim.timestamp, fingerprint })
    }
}

/// `webhook-signature` of a request, by the first secret. Empty without one.
pub fn signature(secrets: &Secrets, id: &str, timestamp: u64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let tag = secrets.sign(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
    tag.map(|tag| format!("v1,{}", base64(&tag))).unwrap_or_default()
}

fn text<'a>(fields: &'a dyn Fields, name: &'static str) -> Result<&'a str, Unverified> {
    let value = fields.get(name).ok_or(Unverified::Missing(name))?;
    std::str::from_utf8(value).map_err(|_| Unverified::Malformed { what: name, problem: "is not text" })
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::*;

    /// The example of the specification and of its libraries' tests.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const MESSAGE: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP_S: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn webhooks() -> Webhooks {
        let secrets = Secrets::new(vec![Secret::parse(SECRET).unwrap()]);
        Webhooks { secrets, tolerance: Duration::from_secs(300) }
    }

    fn fields(pairs: &[(&str, &str)]) -> millpond_shared::http1::Fields {
        pairs.iter().copied().collect()
    }

    fn judged(id: &str, timestamp: &str, signature: &str, body: &[u8], now_s: u64) -> Result<Verified, Unverified> {
        let fields = fields(&[(ID, id), (TIMESTAMP, timestamp), (SIGNATURE, signature)]);
        let claim = webhooks().claim(&fields, now_s)?;
        webhooks().verify(claim, body)
    }

    #[test]
    fn the_example_of_the_specification_holds() {
        let at = TIMESTAMP_S.to_string();
        let verified = judged(MESSAGE, &at, SIGNED, BODY, TIMESTAMP_S).unwrap();
        assert_eq!((verified.id.as_str(), verified.timestamp), (MESSAGE, TIMESTAMP_S));
        assert_eq!(signature(&webhooks().secrets, MESSAGE, TIMESTAMP_S, BODY), SIGNED);
        let several = format!("v1a,AAAA v1,AAAA= v2,x v1,{} {SIGNED}", "A".repeat(43));
        assert_eq!(judged(MESSAGE, &at, &several, BODY, TIMESTAMP_S), Ok(verified));
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let at = TIMESTAMP_S.to_string();
        let later = (TIMESTAMP_S + 1).to_string();
        for (id, timestamp, body) in [
            ("msg_p5jXN8AQM9LWM0D4loKWxJel", at.as_str(), BODY),
            (MESSAGE, later.as_str(), BODY),
            (MESSAGE, at.as_str(), br#"{"test": 2432232315}"#.as_slice()),
            (MESSAGE, at.as_str(), b"".as_slice()),
        ] {
            assert_eq!(judged(id, timestamp, SIGNED, body, TIMESTAMP_S), Err(Unverified::Forged), "{id} {timestamp}");
        }
        let padded = format!("0{at}");
        assert_eq!(judged(MESSAGE, &padded, SIGNED, BODY, TIMESTAMP_S), Err(Unverified::Forged), "signed as written");
    }

    #[test]
    fn what_can_not_be_verified_is_told_before_the_body() {
        let at = TIMESTAMP_S.to_string();
        let dotted = "msg.1";
        for (pairs, expected) in [
            (vec![(TIMESTAMP, at.as_str()), (SIGNATURE, SIGNED)], Unverified::Missing(ID)),
            (vec![(ID, MESSAGE), (SIGNATURE, SIGNED)], Unverified::Missing(TIMESTAMP)),
            (vec![(ID, MESSAGE), (TIMESTAMP, &at)], Unverified::Missing(SIGNATURE)),
            (
                vec![(ID, dotted), (TIMESTAMP, &at), (SIGNATURE, SIGNED)],
                Unverified::Malformed { what: ID, problem: "holds a dot, a blank, or what is not ASCII" },
            ),
            (
                vec![(ID, MESSAGE), (TIMESTAMP, "-1"), (SIGNATURE, SIGNED)],
                Unverified::Malformed { what: TIMESTAMP, problem: "is not a number of seconds since 1970" },
            ),
            (
                vec![(ID, MESSAGE), (TIMESTAMP, &at), (SIGNATURE, "v2,AAAA")],
                Unverified::Malformed {
                    what: SIGNATURE,
                    problem: "holds no v1 signature: `v1,` and the base64 of 32 bytes",
                },
            ),
        ] {
            assert_eq!(webhooks().claim(&fields(&pairs), TIMESTAMP_S), Err(expected));
        }
    }

    #[test]
    fn the_tolerance_is_as_wide_both_ways() {
        let at = TIMESTAMP_S.to_string();
        let judged_at = |now_s| judged(MESSAGE, &at, SIGNED, BODY, now_s);
        assert!(judged_at(TIMESTAMP_S + 300).is_ok() && judged_at(TIMESTAMP_S - 300).is_ok());
        assert_eq!(judged_at(TIMESTAMP_S + 301), Err(Unverified::Late { seconds: 301, limit_seconds: 300 }));
        assert_eq!(judged_at(TIMESTAMP_S - 301), Err(Unverified::Early { seconds: 301, limit_seconds: 300 }));
        assert_eq!(judged_at(u64::MAX), Err(Unverified::Late { seconds: u64::MAX - TIMESTAMP_S, limit_seconds: 300 }));
    }
}
