//! Rendered outputs, memoised by version.

use std::sync::Arc;

use lru::LruCache;
use millpond_shared::version::Version;

use crate::projection::Before;
use crate::render::Rendered;

/// What is rendered: an output of a document, from its first item on, or a page of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// Their indices.
    pub projection: u16,
    pub output: u16,
    pub key: Box<str>,
    pub before: Option<Before>,
}

/// What an entry takes beside its key and its body, in bytes: list and table cells, ETag, date, allocations.
const OVERHEAD_BYTES: usize = 400;

/// The outputs that were read last, as many as fit into a number of bytes.
pub struct Memo {
    entries: LruCache<Name, Arc<Rendered>>,
    bytes: usize,
    bytes_max: usize,
}

impl Memo {
    pub fn new(bytes_max: usize) -> Memo {
        Memo { entries: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    /// The output as it was rendered at `version`.
    pub fn get(&mut self, name: &Name, version: Version) -> Option<Arc<Rendered>> {
        let rendered = self.entries.get(name)?;
        (rendered.version == version).then(|| rendered.clone())
    }

    /// Takes a rendered output in, unless a later version is there; the least recently read make room.
    pub fn put(&mut self, name: Name, rendered: Arc<Rendered>) {
        let weight = weight(&name, &rendered);
        let later = self.entries.peek(&name).is_some_and(|there| there.version > rendered.version);
        if later || weight > self.bytes_max {
            return;
        }
        if let Some(before) = self.entries.pop(&name) {
            self.bytes -= self::weight(&name, &before);
        }
        self.bytes += weight;
        self.entries.put(name, rendered);
        while self.bytes > self.bytes_max {
            let Some((name, dropped)) = self.entries.pop_lru() else { break };
            self.bytes -= self::weight(&name, &dropped);
        }
    }
}

fn weight(name: &Name, rendered: &Rendered) -> usize {
    let before = name.before.as_ref().map_or(0, Before::weight);
    let link = rendered.link.as_ref().map_or(0, String::len);
    name.key.len() + before + link + rendered.body.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn rendered(position: u64, length: usize) -> Arc<Rendered> {
        Arc::new(Rendered {
            version: Version::new(1, position),
            body: Bytes::from(vec![b'x'; length]),
            content_type: "".into(),
            etag: String::new(),
            link: None,
            is_kept: true,
            last_modified: String::new(),
        })
    }

    fn name(output: u16, key: &str) -> Name {
        Name { projection: 0, output, key: key.into(), before: None }
    }

    #[test]
    fn only_the_version_asked_for_is_found_and_the_later_one_stays() {
        let mut memo = Memo::new(10_000);
        let at = |position| Version::new(1, position);
        memo.put(name(0, "k"), rendered(2, 10));
        memo.put(name(0, "k"), rendered(1, 10));
        assert!(memo.get(&name(0, "k"), at(2)).is_some());
        assert!(memo.get(&name(0, "k"), at(1)).is_none() && memo.get(&name(1, "k"), at(2)).is_none());
        let second = Name { before: "AQAAAAAAAAAA".parse().ok(), ..name(0, "k") };
        assert!(second.before.is_some() && memo.get(&second, at(2)).is_none());
    }

    #[test]
    fn bytes_are_bounded_and_the_least_recently_read_go() {
        let mut memo = Memo::new(3_000);
        for (key, position) in [("a", 1), ("b", 1), ("a", 2)] {
            memo.put(name(0, key), rendered(position, 900));
        }
        assert!(memo.get(&name(0, "b"), Version::new(1, 1)).is_some());
        memo.put(name(0, "c"), rendered(1, 900));
        memo.put(name(0, "too large"), rendered(1, 3_000));
        let there: Vec<&str> = ["a", "b", "c", "too large"]
            .into_iter()
            .filter(|key| (1..=2).any(|position| memo.get(&name(0, key), Version::new(1, position)).is_some()))
            .collect();
        assert_eq!(there, ["b", "c"]);
        assert_eq!(memo.bytes, 2 * (1 + 900 + OVERHEAD_BYTES));
    }
}
