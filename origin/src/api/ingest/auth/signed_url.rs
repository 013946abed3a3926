//! Impressions: whoever gets a URL that was signed for them is counted. A browser holds no secret (pure).
//!
//! `PATH/e.gif?campaign=7&user=u1&exp=1767225600&sig=…`: `exp` is when the URL ends to hold, in seconds since 1970; the
//! other parameters are the event's data. `sig` is the base64 of URLs, without padding, of HMAC-SHA256 over
//! `PATH/e.gif?QUERY`, QUERY in canonical form: every parameter but `sig`, sorted by name, everything but letters,
//! digits, `-`, `.`, `_` and `~` percent-encoded. So a proxy may sort or recode the query.

use std::collections::BTreeMap;

use millpond_shared::template::encode_key_part;
use percent_encoding::percent_decode_str;

use super::Unverified;
use super::secrets::{Secrets, tag_of_base64_url};

/// Most parameters of a URL; one more is answered 400.
const PARAMETERS_MAX: usize = 64;
const EXPIRY: &str = "exp";
const SIGNATURE: &str = "sig";

/// A source whose events are signed URLs that somebody gets.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedUrl {
    pub secrets: Secrets,
}

/// A URL that was signed, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impression {
    /// The parameters as one JSON object of strings, sorted by name.
    pub data: String,
}

impl SignedUrl {
    /// Reads and verifies the target of a request. `path` as it is declared, `e.gif` included.
    pub fn read(&self, path: &str, query: &str, now_s: u64) -> Result<Impression, Unverified> {
        let mut parameters = parameters(query)?;
        let signature = parameters.remove(SIGNATURE).ok_or(Unverified::Missing("the parameter `sig`"))?;
        let expiry = parameters.get(EXPIRY).ok_or(Unverified::Missing("the parameter `exp`"))?;
        let malformed = |what, problem| Unverified::Malformed { what, problem };
        let expiry_s: u64 = expiry.parse().map_err(|_| malformed("exp", "is not a number of seconds since 1970"))?;
        let tag = tag_of_base64_url(&signature)
            .ok_or_else(|| malformed("sig", "is not 32 bytes in the base64 of URLs, without padding"))?;
        let signed = canonical(path, &parameters);
        self.secrets.verify(&[signed.as_bytes()], &[tag]).ok_or(Unverified::Forged)?;
        if now_s > expiry_s {
            return Err(Unverified::Late { seconds: now_s - expiry_s, limit_seconds: 0 });
        }
        parameters.remove(EXPIRY);
        Ok(Impression { data: serde_json::to_string(&parameters).unwrap_or_default() })
    }
}

type Parameters = BTreeMap<String, String>;

/// `+` is a blank, as browsers write forms.
fn parameters(query: &str) -> Result<Parameters, Unverified> {
    let malformed = |problem| Unverified::Malformed { what: "the query", problem };
    let mut parameters = Parameters::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| {
            let text = text.replace('+', " ");
            let decoded = percent_decode_str(&text).decode_utf8().map(String::from);
            decoded.map_err(|_| malformed("is not UTF-8"))
        };
        if parameters.insert(decoded(name)?, decoded(value)?).is_some() {
            return Err(malformed("has a parameter twice"));
        }
        if parameters.len() > PARAMETERS_MAX {
            return Err(malformed("has more than 64 parameters"));
        }
    }
    Ok(parameters)
}

/// What is signed.
fn canonical(path: &str, parameters: &Parameters) -> String {
    let pairs = parameters.iter().map(|(name, value)| format!("{}={}", encode_key_part(name), encode_key_part(value)));
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// A transparent image of one pixel.
pub const GIF: &[u8; 43] =
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00\x21\xf9\x04\x01\x00\x00\x00\x00\
    \x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::super::secrets::base64_url;
    use super::*;

    const PATH: &str = "/events/ads/e.gif";

    fn source() -> SignedUrl {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        SignedUrl { secrets: Secrets::new(vec![secret]) }
    }

    fn signature(canonical: &str) -> String {
        base64_url(&source().secrets.sign(&[canonical.as_bytes()]).unwrap())
    }

    #[test]
    fn a_signed_url_holds_however_it_is_written() {
        // Python: base64.urlsafe_b64encode(hmac.digest(base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        // b"/events/ads/e.gif?campaign=7&exp=2000&user=J%C3%BCrgen%20X", "sha256")).rstrip(b"=")
        let sig = signature("/events/ads/e.gif?campaign=7&exp=2000&user=J%C3%BCrgen%20X");
        for query in [
            format!("campaign=7&exp=2000&user=J%C3%BCrgen%20X&sig={sig}"),
            format!("sig={sig}&user=J%c3%bcrgen+X&exp=2000&&%63ampaign=7"),
        ] {
            let impression = source().read(PATH, &query, 2_000).unwrap();
            assert_eq!(impression.data, r#"{"campaign":"7","user":"Jürgen X"}"#);
        }
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let sig = signature("/events/ads/e.gif?a=1&exp=2000");
        let forged = Err(Unverified::Forged);
        assert!(source().read(PATH, &format!("a=1&exp=2000&sig={sig}"), 1_000).is_ok());
        assert_eq!(source().read(PATH, &format!("a=2&exp=2000&sig={sig}"), 1_000), forged);
        assert_eq!(source().read(PATH, &format!("a=1&exp=2001&sig={sig}"), 1_000), forged);
        assert_eq!(source().read(PATH, &format!("exp=2000&sig={sig}"), 1_000), forged);
        assert_eq!(source().read("/events/other/e.gif", &format!("a=1&exp=2000&sig={sig}"), 1_000), forged);
        assert_eq!(
            source().read(PATH, &format!("a=1%26exp=2000&sig={sig}"), 1_000),
            Err(Unverified::Missing("the parameter `exp`"))
        );
        let late = Err(Unverified::Late { seconds: 1, limit_seconds: 0 });
        assert_eq!(source().read(PATH, &format!("a=1&exp=2000&sig={sig}"), 2_001), late);
    }

    #[test]
    fn what_can_not_be_read_is_told() {
        let many: String = (0..70).map(|n| format!("p{n}=1&")).collect();
        for (query, problem) in [
            ("exp=1", "the parameter `sig` is missing"),
            ("a=1&a=2&exp=1&sig=x", "the query has a parameter twice"),
            ("a=%ff&exp=1&sig=x", "the query is not UTF-8"),
            ("exp=never&sig=x", "exp is not a number of seconds since 1970"),
            ("exp=1&sig=x", "sig is not 32 bytes in the base64 of URLs, without padding"),
            (many.as_str(), "the query has more than 64 parameters"),
        ] {
            let answer = source().read(PATH, query, 0).unwrap_err().answer("ads");
            let told = String::from_utf8_lossy(answer.body()).into_owned();
            assert!(told.contains(problem), "{told}");
        }
    }
}
