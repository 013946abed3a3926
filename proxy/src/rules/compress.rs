//! In which content codings a rule's responses are sent.

use super::judge::Judge;
use super::media_type;
use super::written::{CompressTable, WrittenCompress};
use crate::semantics::coding::Coding;

/// What a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// The preferred first; at least one.
    pub codings: Vec<Coding>,
    /// Bytes of the smallest body that is put into a coding.
    pub min_bytes: u64,
    /// Media types in lower case, `type/*` among them. `None`: those of [`is_text`].
    pub types: Option<Vec<String>>,
}

/// Below this many bytes a response goes out in one packet either way.
const MIN_BYTES: u64 = 1024;
/// Nothing is as large as this: a `min` beyond it would turn compression off.
const MIN_BYTES_MAX: u64 = 1 << 30;

impl Compress {
    /// Whether responses with this `Content-Type` are sent in codings.
    pub fn is_for(&self, content_type: Option<&[u8]>) -> bool {
        let found = media_type::of(content_type);
        match &self.types {
            Some(types) => media_type::is_any_of(&found, types),
            None => is_text(&found),
        }
    }
}

/// Whether a media type is text of some kind, or another that gets much smaller. Not `text/event-stream`: its clients
/// stay for long, and each would take the memory of an encoder.
fn is_text(media_type: &str) -> bool {
    let (kind, subtype) = media_type.split_once('/').unwrap_or_default();
    let suffix = subtype.rsplit_once('+').map_or("", |(_, suffix)| suffix);
    match kind {
        "text" => subtype != "event-stream",
        "application" if matches!(subtype, "json" | "xml" | "javascript" | "ecmascript" | "wasm" | "toml" | "yaml") => {
            true
        }
        "application" if matches!(subtype, "x-ndjson" | "x-javascript" | "graphql" | "sql" | "rtf") => true,
        "font" if matches!(subtype, "ttf" | "otf") => true,
        _ => matches!(suffix, "json" | "xml" | "yaml" | "json-seq"),
    }
}

impl Judge<'_> {
    pub(super) fn compress(&mut self) -> Option<Compress> {
        let written = self.at.value.compress.as_ref()?;
        let empty = CompressTable::default();
        let (list, table) = match &written.value {
            WrittenCompress::Codings(list) => (Some((list, written.span.clone())), &empty),
            WrittenCompress::Table(table) => (table.codings.as_ref().map(|at| (&at.value, at.span.clone())), table),
        };
        let field = if matches!(written.value, WrittenCompress::Codings(_)) { "compress" } else { "compress.codings" };
        let fix = "name codings, the preferred first, as in [\"zstd\", \"br\", \"gzip\"]";
        let mut codings = Vec::new();
        match list {
            Some((list, span)) if list.is_empty() => self.wrong(field, span, "is empty", fix),
            Some((list, _)) => {
                for name in list {
                    // Not `x-gzip`: one name for one thing.
                    let known = Coding::ALL.into_iter().find(|coding| coding.token() == name.value);
                    let (problem, fix) = match known {
                        None => ("is no coding that is known here", "write zstd, br or gzip"),
                        Some(coding) if codings.contains(&coding) => ("is named twice", "name it once"),
                        Some(coding) => {
                            codings.push(coding);
                            continue;
                        }
                    };
                    self.wrong(field, name.span.clone(), format!("`{}` {problem}", name.value), fix);
                }
            }
            None => self.wrong(field, written.span.clone(), "is missing", fix),
        }
        let min = table.min.as_ref();
        if let Some(min) = min.filter(|min| min.value.0 > MIN_BYTES_MAX) {
            let problem = format!("{} is larger than any response worth being compressed", min.value);
            self.wrong("compress.min", min.span.clone(), problem, "give at most \"1GiB\"");
        }
        let min_bytes = min.map_or(MIN_BYTES, |min| min.value.0);
        let types = table.types.as_ref().map(|list| {
            let is_empty = "is empty, so nothing would be compressed";
            self.media_types("compress.types", list, is_empty)
        });
        Some(Compress { codings, min_bytes, types })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_media_types_are_compressed() {
        let by_default = Compress { codings: vec![Coding::Gzip], min_bytes: 0, types: None };
        for (content_type, expected) in [
            ("text/html; charset=utf-8", true),
            ("TEXT/Plain", true),
            ("text/event-stream", false),
            ("application/json", true),
            ("application/feed+json", true),
            ("application/atom+xml;type=feed", true),
            ("image/svg+xml", true),
            ("application/javascript", true),
            ("application/wasm", true),
            ("font/ttf", true),
            ("font/woff2", false),
            ("image/png", false),
            ("video/mp4", false),
            ("application/octet-stream", false),
            ("application/zip", false),
            ("application/zip+zip", false),
            ("text", false),
            ("", false),
        ] {
            assert_eq!(by_default.is_for(Some(content_type.as_bytes())), expected, "{content_type}");
        }
        assert!(!by_default.is_for(None));
        let types = Some(vec!["image/*".to_owned(), "application/json".to_owned()]);
        let own = Compress { types, ..by_default };
        assert!(own.is_for(Some(b"image/BMP")) && own.is_for(Some(b"application/json;charset=utf-8")));
        assert!(!own.is_for(Some(b"text/html")) && !own.is_for(None));
    }
}
