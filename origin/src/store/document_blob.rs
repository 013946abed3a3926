//! A document as it stands in a shard file: its `postcard` encoding, under the format number of the file.

use bytes::Bytes;
use millpond_shared::version::{Offset, QueueId, Version};
use serde::{Deserialize, Serialize, Serializer};

use crate::projection::{Document, Item};

/// A document as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    version: Version,
    changed_ms: u64,
    reflects: (QueueId, Offset),
    #[serde(borrow)]
    items: Vec<StoredItem<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredItem<'a> {
    order: i64,
    id: &'a str,
    #[serde(serialize_with = "as_bytes")]
    body: &'a [u8],
}

/// In one piece; `serde` would write a slice byte by byte. The encoding is the same.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// The document as bytes.
pub(super) fn encode(document: &Document) -> Vec<u8> {
    let items = document.items().map(|item| StoredItem { order: item.order, id: &item.id, body: &item.body }).collect();
    let Document { version, changed_ms, reflects, .. } = *document;
    let stored = Stored { version, changed_ms, reflects, items };
    // Writing to a Vec fails only for types that postcard can't know the length of; this is none.
    postcard::to_extend(&stored, Vec::with_capacity(document.weight())).unwrap_or_default()
}

/// The document that `blob` is; why it is none otherwise, in words.
pub(super) fn decode(blob: &[u8]) -> Result<Document, String> {
    let (stored, rest): (Stored<'_>, &[u8]) = postcard::take_from_bytes(blob).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err("bytes are left over".to_owned());
    }
    let items = stored.items.iter().map(|item| Item {
        order: item.order,
        id: item.id.into(),
        body: Bytes::copy_from_slice(item.body),
    });
    Ok(Document::restored(stored.version, stored.changed_ms, stored.reflects, items.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(items: usize) -> Document {
        let item = |n: usize| Item {
            order: -(n as i64),
            id: format!("id {n}").into(),
            body: Bytes::from(format!("{{\"n\":{n}}}")),
        };
        Document::restored(Version::new(2, 300), 4_000, (5, 600), (0..items).map(item).collect())
    }

    #[test]
    fn blobs_and_back() {
        for items in [0, 1, 200] {
            let document = document(items);
            assert_eq!(decode(&encode(&document)), Ok(document));
        }
    }

    #[test]
    fn the_encoding_never_changes_under_its_number() {
        // version, changed, reflects, number of items; order (zigzag), id, body.
        let expected = [&[2, 0xac, 2, 0xa0, 0x1f, 5, 0xd8, 4, 1, 0, 4][..], b"id 0", &[7], b"{\"n\":0}"].concat();
        assert_eq!(encode(&document(1)), expected);
    }

    #[test]
    fn damage_is_told() {
        let blob = encode(&document(2));
        for cut in 0..blob.len() {
            assert!(decode(&blob[..cut]).is_err(), "cut at {cut}");
        }
        assert!(decode(&[&blob[..], b"x"].concat()).is_err());
    }
}
