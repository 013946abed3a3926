//! What stands in queues and files, and what the roles tell each other: what is read is what was written.

use bytes::Bytes;
use millpond_origin::projection::KeyState;
use millpond_origin::queue::wire::{Acquire, Append, Committed, Fates, Message, PulledHead, RoundHead, TakenHead};
use millpond_shared::projection::{Counting, Filter, Followed, Gathering, Kind, Measures, Pointing, Removal, Windows};
use millpond_shared::version::Version;
use millpond_shared::wire::{ChangeMessage, EventFrame, ShardFrame};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub fn frame(data: &[u8]) {
    match EventFrame::decode(data) {
        Ok(frame) => {
            let _ = frame.last();
            assert_eq!(EventFrame::decode(&frame.encode()).ok(), Some(frame));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match ShardFrame::decode(data) {
        Ok(frame) => assert_eq!(ShardFrame::decode(&frame.encode()).ok(), Some(frame)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub fn queue_wire(data: &[u8]) {
    message::<Append>(data);
    message::<Fates>(data);
    message::<Acquire>(data);
    message::<TakenHead>(data);
    message::<RoundHead>(data);
    message::<PulledHead>(data);
    message::<Committed>(data);
}

fn message<H: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(data: &[u8]) {
    match Message::<H>::decode(Bytes::copy_from_slice(data)) {
        Ok(message) => assert_eq!(Message::decode(message.encode()), Ok(message)),
        Err(words) => assert!(!words.is_empty()),
    }
}

pub fn changes(data: &[u8]) {
    if let Ok(message) = ChangeMessage::from_line(data) {
        let line = message.to_line();
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        assert_eq!(ChangeMessage::from_line(line.as_bytes()).ok(), Some(message));
    }
    if let Some(version) = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Version>().ok()) {
        assert_eq!(version.to_string().as_bytes(), data, "a version has one text");
    }
}

/// The format of a key's state, and its bytes in the file of a shard.
pub fn key_state(data: &[u8]) {
    let Some((format, blob)) = data.split_first() else { return };
    let removal = "{id}".parse().ok().map(|id| Removal { filter: Filter::default(), id, keep: 3 });
    let measures = Measures { count: true, ..Measures::default() };
    let counter = Kind::Counter(Counting { measures, windows: vec![Windows::All] });
    let edges = "{data.to}".parse().ok().map(|to| Kind::Edges(Pointing { to, removal: None, keep: 5 }));
    let home = "{data.to}".parse().ok().map(|to| {
        let pointing = Pointing { to, removal: None, keep: 5 };
        Kind::Home(Gathering { keep: 5, feed: "feeds".to_owned(), pointing, fanout_max: 2 })
    });
    let followed = Kind::Followed(Followed { keep: 5, home: "home".to_owned(), told: 5, fanout_max: 2 });
    let feeds = [Kind::Feed { keep: 5, removal: None }, Kind::Feed { keep: 5, removal }];
    for kind in feeds.into_iter().chain([Kind::Latest, counter, followed]).chain(edges).chain(home) {
        match KeyState::restore(&kind, *format, blob) {
            Ok(state) => {
                assert_eq!(state.format(), *format);
                let mut written = Vec::new();
                state.put(&mut written);
                assert_eq!(KeyState::restore(&kind, *format, &written), Ok(state));
            }
            Err(words) => assert!(!words.is_empty()),
        }
    }
}
