//! From the path of a URL to the document it names (pure).

use crate::projection::Projection;
use crate::template::{decode_key, encode_key_part};

/// Path of an output: text, one `{key}`, text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    before: String,
    after: String,
    key_slashes: usize,
}

impl PathPattern {
    /// `key_slashes`: how many `/` a key holds; the key then takes one path segment more than that.
    pub fn parse(text: &str, key_slashes: usize) -> Result<PathPattern, String> {
        let Some((before, after)) = text.split_once("{key}") else {
            return Err(format!("`{text}` has no {{key}}"));
        };
        if !text.starts_with('/') {
            return Err(format!("`{text}` does not start with /"));
        }
        let literal =
            |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&b));
        if !literal(before) || !literal(after) {
            return Err(format!("`{text}` holds more than one {{key}}, or a byte that can't stand in a URL path"));
        }
        Ok(PathPattern { text: text.to_owned(), before: before.to_owned(), after: after.to_owned(), key_slashes })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key in its only form if `path` (without query) is of this pattern.
    pub fn key_of(&self, path: &str) -> Option<String> {
        let key = path.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        let parts: Vec<&str> = key.split('/').collect();
        if parts.len() != self.key_slashes + 1 || parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        // However the client encoded it, one document has one key.
        let canonical: Vec<String> = parts.iter().map(|part| encode_key_part(&decode_key(part))).collect();
        Some(canonical.join("/"))
    }

    /// URL path of the document with `key`.
    pub fn path_of(&self, key: &str) -> String {
        format!("{}{key}{}", self.before, self.after)
    }
}

/// A document that a URL names, as indices into the projections and their outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub projection: usize,
    pub output: usize,
    pub key: String,
}

/// Finds the document of `path`; of several patterns the first declared wins.
pub fn find(projections: &[Projection], path: &str) -> Option<Route> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    projections.iter().enumerate().find_map(|(index, projection)| {
        projection.outputs.iter().enumerate().find_map(|(output, declared)| {
            declared.path.key_of(path).map(|key| Route { projection: index, output, key })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_however_it_was_encoded() {
        let pattern = PathPattern::parse("/pages/{key}/counts.json", 1).expect("a pattern");
        assert_eq!(pattern.key_of("/pages/%23en/Foo%2fBar/counts.json").as_deref(), Some("%23en/Foo%2FBar"));
        assert_eq!(pattern.key_of("/pages/%23en/F%6Fo:/counts.json").as_deref(), Some("%23en/Foo%3A"));
        for other in ["/pages/a/counts.json", "/pages/a/b/c/counts.json", "/pages//b/counts.json", "/pages/a/b", "/"] {
            assert_eq!(pattern.key_of(other), None, "{other}");
        }
        assert_eq!(pattern.path_of("a/b"), "/pages/a/b/counts.json");
    }

    #[test]
    fn patterns_are_checked() {
        for wrong in ["users/{key}", "/users", "/{key}/{key}", "/a b/{key}", "/{key}?x"] {
            assert!(PathPattern::parse(wrong, 0).is_err(), "{wrong}");
        }
    }
}
