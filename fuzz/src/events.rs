//! What producers send.

use std::time::Duration;

use http::Method;
use millpond_origin::api::ingest::asked::Asked;
use millpond_origin::api::ingest::cloud_events::Format;
use millpond_origin::api::ingest::element::{Assigned, Element};
use millpond_origin::api::ingest::{Auth, IdRule, Shape, Source, batch, element};
use millpond_shared::event::{Event, View};
use millpond_shared::http1::Fields;
use millpond_shared::route::PathPattern;
use millpond_shared::template::{Template, decode_key};
use millpond_shared::wire::EventFrame;

use super::input::parts;

/// Events of one body.
const EVENTS_MAX: usize = 100;

/// A content type and a body.
pub fn ingest(data: &[u8]) {
    let [content_type, body] = parts(data);
    let content_type = String::from_utf8_lossy(content_type);
    let fields: Fields = [("content-type", &*content_type)].into_iter().collect();
    let Ok(format) = Format::of(&Asked::new(&Method::POST, "/", &fields)) else { return };
    let Ok(elements) = batch::split(body, &format, EVENTS_MAX) else { return };
    // What is broken is told once, behind those that are not.
    assert!(elements.len() <= EVENTS_MAX + 1);
    for source in sources() {
        let wanted = source.wanted();
        for text in elements.iter().flatten() {
            let cloud_event = format.is_cloud_event() && source.shape == Shape::Event;
            let element = Element { text, cloud_event, wanted: wanted.as_ref(), received: 1_500_000_000_000 };
            let build = || element::build(&source, element, || Assigned { id: "assigned".to_owned(), again: None });
            let built = build();
            assert_eq!(built, build(), "the same element makes the same event");
            match built {
                Ok(built) => holds(&built.event),
                Err(why) => assert!(!why.is_empty()),
            }
        }
    }
}

fn holds(event: &Event<'static>) {
    assert!(!event.id.is_empty() && event.id.len() <= element::ID_MAX_BYTES);
    assert!(!event.kind.is_empty() && event.kind.len() <= element::TYPE_MAX_BYTES);
    assert!(event.subject.as_ref().is_none_or(|subject| subject.len() <= element::SUBJECT_MAX_BYTES));
    assert!(View::new(event).is_ok(), "what was taken can be read later");
    let frame = EventFrame { queue: 1, first: 7, events: vec![event.clone()] };
    assert_eq!(EventFrame::decode(&frame.encode()).ok(), Some(frame));
}

fn sources() -> [Source; 2] {
    let template = |text: &str| text.parse::<Template>().expect("a template");
    let events = Source {
        name: "s".to_owned(),
        path: "/events".to_owned(),
        shape: Shape::Event,
        kind: template("{type}"),
        id: IdRule::Member,
        time: None,
        subject: None,
        partition: None,
        window: Duration::from_secs(60),
        body_max: 1 << 20,
        auth: Auth::None,
        rate: None,
    };
    let data = Source {
        shape: Shape::Data,
        kind: template("edit"),
        id: IdRule::Hash,
        time: Some(template("{data.time}")),
        subject: Some(template("{data.page}")),
        partition: Some(template("{data.user}")),
        ..events.clone()
    };
    [events, data]
}

/// A template, the path of an output, and the payload of an event.
pub fn template(data: &[u8]) {
    let [template, path, payload] = parts(data).map(String::from_utf8_lossy);
    let Ok(template) = template.parse::<Template>() else { return };
    let pattern = PathPattern::parse(&path, template.slashes());
    let event = Event {
        id: "7".into(),
        source: "s".into(),
        kind: "k".into(),
        subject: None,
        time: 0,
        received: 0,
        data: payload,
    };
    let Ok(view) = View::new(&event) else { return };
    let (text, value) = (template.text(&view), template.value(&view));
    assert!(text.is_err() || value.is_some());
    let Some(key) = template.key(&view) else { return };
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~%/".contains(&b);
    assert!(key.bytes().all(unreserved), "{key}");
    if let Ok(text) = text {
        assert_eq!(decode_key(&key), text, "it stands for what was filled in");
    }
    // A key of which a part is empty has no URL.
    let addressable = key.split('/').all(|part| !part.is_empty());
    if let Ok(pattern) = pattern {
        assert_eq!(pattern.key_of(&pattern.path_of(&key)), addressable.then_some(key), "one document, one key");
    }
}
