//! Path patterns: `*` stands for any text within a segment, `**` for any text (pure).

/// A parsed pattern. The default matches every path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// Any text without `/`.
    Segment,
    /// Any text.
    Rest,
}

impl Default for Pattern {
    fn default() -> Pattern {
        Pattern { text: "/**".to_owned(), tokens: vec![Token::Byte(b'/'), Token::Rest] }
    }
}

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Pattern, String> {
        if !text.starts_with('/') {
            return Err(format!("`{text}` does not start with /"));
        }
        if let Some(wrong) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#')) {
            return Err(format!("`{text}` holds {wrong:?}, which no path can match"));
        }
        if text.contains("***") {
            return Err(format!("`{text}` holds more than two * in a row"));
        }
        let mut tokens = Vec::new();
        let mut bytes = text.bytes().peekable();
        while let Some(b) = bytes.next() {
            tokens.push(match b {
                b'*' if bytes.next_if_eq(&b'*').is_some() => Token::Rest,
                b'*' => Token::Segment,
                b => Token::Byte(b),
            });
        }
        Ok(Pattern { text: text.to_owned(), tokens })
    }
}

impl Pattern {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the path (without query) matches as a whole.
    pub fn matches(&self, path: &str) -> bool {
        // Most patterns are a prefix and `**`, or plain text.
        let plain = self.tokens.iter().take_while(|token| matches!(token, Token::Byte(_))).count();
        let (literal, rest) = (self.text.get(..plain), self.tokens.get(plain..).unwrap_or(&[]));
        let Some(tail) = literal.and_then(|literal| path.strip_prefix(literal)) else { return false };
        match rest {
            [] => tail.is_empty(),
            [Token::Rest] => true,
            rest => run(rest, tail.bytes().map(Token::Byte).collect::<Vec<_>>().as_slice()),
        }
    }

    /// Whether every path that `other` matches is matched by this. May say no where the answer is yes.
    pub fn covers(&self, other: &Pattern) -> bool {
        run(&self.tokens, &other.tokens)
    }
}

/// Whether `pattern` takes all of `input`, in at most |pattern| × |input| steps. A wildcard in the input can be taken
/// only by one that is at least as wide.
fn run(pattern: &[Token], input: &[Token]) -> bool {
    // reached[i]: the pattern so far can have taken the first i tokens of the input.
    let mut reached = vec![false; input.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    for token in pattern {
        let mut next = vec![false; reached.len()];
        let mut open = false;
        for (at, slot) in next.iter_mut().enumerate() {
            let came = reached.get(at).copied().unwrap_or(false);
            let before = at.checked_sub(1).and_then(|before| input.get(before)).copied();
            let came_before = at.checked_sub(1).and_then(|before| reached.get(before)).copied().unwrap_or(false);
            match token {
                Token::Byte(_) => *slot = came_before && before == Some(*token),
                Token::Segment | Token::Rest => {
                    let wide_enough = match before {
                        Some(Token::Rest) | Some(Token::Byte(b'/')) => *token == Token::Rest,
                        _ => true,
                    };
                    open = came || (open && wide_enough);
                    *slot = open;
                }
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect(text)
    }

    #[test]
    fn paths() {
        for (text, yes, no) in [
            ("/a", &["/a"][..], &["/", "/a/", "/ab", "/b"][..]),
            ("/a/**", &["/a/", "/a/b", "/a/b/c"], &["/a", "/b/a/"]),
            ("/a/*", &["/a/", "/a/b"], &["/a/b/c", "/a"]),
            ("/a/*/c.json", &["/a/b/c.json", "/a//c.json"], &["/a/b/d/c.json", "/a/c.json"]),
            ("/**/c", &["/a/b/c", "//c"], &["/c", "/a/b/c/d"]),
            ("/*.js", &["/x.js", "/.js"], &["/x.js.map", "/x/y.js"]),
            ("/**", &["/", "/anything/at/all"], &["*"]),
        ] {
            let pattern = pattern(text);
            yes.iter().for_each(|path| assert!(pattern.matches(path), "{text} {path}"));
            no.iter().for_each(|path| assert!(!pattern.matches(path), "{text} {path}"));
        }
    }

    #[test]
    fn covering() {
        for (wide, narrow) in
            [("/**", "/a"), ("/**", "/a/**"), ("/a/**", "/a/b*/c"), ("/a/*", "/a/*"), ("/a/*", "/a/b*")]
        {
            assert!(pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
        }
        for (narrow, wide) in [("/a", "/**"), ("/a/*", "/a/**"), ("/a/b*", "/a/*"), ("/a/*", "/a/b/c"), ("/a*", "/b*")]
        {
            assert!(!pattern(narrow).covers(&pattern(wide)), "{narrow} {wide}");
        }
    }

    #[test]
    fn many_wildcards_take_no_exponential_time() {
        let hostile = pattern(&format!("/{}b", "**a".repeat(40)));
        assert!(!hostile.matches(&format!("/{}", "a".repeat(4000))));
    }
}
