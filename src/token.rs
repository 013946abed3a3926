//! The token of the admin socket: where it is, and who has it (RFC 6750).

use std::fmt;
use std::path::Path;

use http::{HeaderMap, header};
use millpond_origin::config::place;
use subtle::ConstantTimeEq;

/// Fewer characters than this can be guessed.
const CHARACTERS_MIN: usize = 16;

/// Told nobody.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads it from `env:NAME`, or `file:PATH` below `folder`; the error says what is wrong, and nothing of the token.
    pub fn read(place: &str, folder: &Path) -> Result<Token, String> {
        let text = place::read(place, folder)?;
        let text = text.trim_ascii();
        if text.len() < CHARACTERS_MIN {
            return Err(format!("what {place} holds is shorter than {CHARACTERS_MIN} characters"));
        }
        // What a field can carry as a token (RFC 6750 §2.1).
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)) {
            return Err(format!("what {place} holds has other characters than letters, digits and -._~+/="));
        }
        Ok(Token(text.to_owned()))
    }

    /// As a request brings it, in `Authorization`.
    pub fn field(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// What to do about a token that can't be read.
    pub const FIX: &'static str =
        "write \"env:NAME\" or \"file:PATH\", and put the output of `openssl rand -hex 32` there";

    /// Whether a request has it, found out in the same time whatever it has.
    pub fn is_in(&self, fields: &HeaderMap) -> bool {
        let mut lines = fields.get_all(header::AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return false };
        let Some((scheme, token)) = line.to_str().ok().and_then(|line| line.split_once(' ')) else { return false };
        let is_same: bool = token.trim_start_matches(' ').as_bytes().ct_eq(self.0.as_bytes()).into();
        scheme.eq_ignore_ascii_case("Bearer") && is_same
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn in_file(text: &str) -> Result<Token, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("token"), text).expect("written");
        Token::read("file:token", dir.path())
    }

    #[test]
    fn a_token_is_read_from_its_place_and_told_nobody() {
        let token = in_file("  0123456789abcdef\n").expect("good");
        assert_eq!((token.0.as_str(), format!("{token:?}").as_str()), ("0123456789abcdef", "Token"));
        for (text, why) in [
            ("", "shorter than 16"),
            ("short", "shorter than 16"),
            ("with a blank in between", "other characters"),
            ("with-a-\u{e4}-in-between", "other characters"),
        ] {
            let problem = in_file(text).expect_err(text);
            assert!(problem.contains(why) && !problem.contains("between"), "{problem}");
        }
        for (place, why) in [
            ("0123456789abcdef", "names no place"),
            ("env:MILLPOND_NOT_SET", "MILLPOND_NOT_SET is not set"),
            ("file:missing", "No such file"),
        ] {
            let problem = Token::read(place, Path::new("/nowhere")).expect_err(place);
            assert!(problem.contains(why) && !problem.contains("0123"), "{problem}");
        }
    }

    #[test]
    fn who_has_it() {
        let token = in_file("0123456789abcdef").expect("good");
        let has = |lines: &[&'static str]| {
            let mut fields = HeaderMap::new();
            lines.iter().for_each(|line| {
                fields.append(header::AUTHORIZATION, HeaderValue::from_static(line));
            });
            token.is_in(&fields)
        };
        assert!(has(&["Bearer 0123456789abcdef"]) && has(&["bearer  0123456789abcdef"]));
        for lines in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["0123456789abcdef"],
            &["Basic 0123456789abcdef"],
            &["Bearer 0123456789abcdeF"],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ] {
            assert!(!has(lines), "{lines:?}");
        }
    }
}
