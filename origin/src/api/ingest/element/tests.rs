use super::super::Auth;
use super::*;

fn source(shape: Shape) -> Source {
    Source {
        name: "wiki".into(),
        path: "/events/wiki".into(),
        shape,
        kind: if shape == Shape::Event { "{type}" } else { "edit" }.parse().unwrap(),
        id: if shape == Shape::Event { IdRule::Member } else { IdRule::Assigned },
        time: None,
        subject: None,
        partition: None,
        window: std::time::Duration::from_secs(600),
        body_max: 1 << 20,
        auth: Auth::None,
        rate: None,
    }
}

fn template(text: &str) -> Template {
    text.parse().unwrap()
}

fn built(source: &Source, text: &str) -> Result<Built, String> {
    let wanted = source.wanted();
    let element = Element { wanted: wanted.as_ref(), ..element(text) };
    build(source, element, || Assigned { id: "assigned".to_owned(), again: None })
}

fn element(text: &str) -> Element<'_> {
    Element { text, cloud_event: false, wanted: None, received: 1_000 }
}

#[test]
fn an_envelope_is_taken_as_it_stands() {
    let text = r#"{"specversion":"1.0","id":"7","type":"edit","subject":"p","time":"1970-01-01T00:00:02Z",
                  "data": {"a" : [1, 2]},"extension":true}"#;
    let Built { event, place, repeatable } = built(&source(Shape::Event), text).unwrap();
    assert_eq!((event.id.as_ref(), event.source.as_ref(), event.kind.as_ref()), ("7", "wiki", "edit"));
    assert_eq!((event.subject.as_deref(), event.time, event.received), (Some("p"), 2_000_000_000, 1_000));
    assert_eq!(event.data, r#"{"a" : [1, 2]}"#, "byte for byte as it was sent");
    assert_eq!((place, repeatable), (Place::Pinned(xxh3_64(b"7")), true));
}

#[test]
fn a_template_may_be_a_member_and_nothing_else() {
    let mut source = source(Shape::Event);
    source.kind = template("{subject}");
    source.id = IdRule::Template(template("{type}"));
    source.subject = Some(template("{id}"));
    source.partition = Some(template("{id}"));
    let text = r#"{"id":"i\n","type":"t","subject":"s"}"#;
    let Built { event, place, .. } = built(&source, text).unwrap();
    assert_eq!((event.id.as_ref(), event.kind.as_ref(), event.subject.as_deref()), ("t", "s", Some("i\n")));
    assert_eq!(place, Place::Pinned(xxh3_64(b"i\n")));
    let why = |text| built(&source, text).unwrap_err();
    assert_eq!(
        why(r#"{"id":"i","type":"t"}"#),
        "type can't be built: `subject` is missing or no text, number, true or false"
    );
    assert_eq!(
        why(r#"{"id":"i","subject":"s"}"#),
        "id can't be built: `type` is missing or no text, number, true or false"
    );
}

#[test]
fn what_is_left_out_is_filled_in() {
    let Built { event, place, repeatable } = built(&source(Shape::Event), r#"{"type":"edit"}"#).unwrap();
    assert_eq!((event.id.as_ref(), event.data.as_ref(), event.time), ("assigned", "null", 1_000_000_000));
    assert_eq!((place, repeatable), (Place::Any, false));
    let null = r#"{"id":null,"type":"edit","time":null,"subject":null,"data":null}"#;
    assert_eq!(built(&source(Shape::Event), null).unwrap().event, event, "null is as good as nothing");
}

#[test]
fn data_is_the_element_itself() {
    let mut source = source(Shape::Data);
    source.kind = template("{data.kind}");
    source.id = IdRule::Template(template("{data.user}/{data.n}"));
    source.time = Some(template("{data.at}"));
    source.subject = Some(template("{data.page}"));
    source.partition = Some(template("{data.user}"));
    let text = r#"{"kind":"edit","user":"u","n":5,"at":3,"id":"not this"}"#;
    let Built { event, place, .. } = built(&source, text).unwrap();
    assert_eq!((event.id.as_ref(), event.kind.as_ref(), event.time), ("u/5", "edit", 3_000_000_000));
    assert_eq!((event.subject, event.data.as_ref()), (None, text));
    assert_eq!(place, Place::Pinned(xxh3_64(b"u")), "the partition outranks the id");
}

#[test]
fn a_partition_pins_events_with_assigned_ids_too() {
    let mut source = source(Shape::Data);
    source.partition = Some(template("{data.user}"));
    let built = built(&source, r#"{"user":"u"}"#).unwrap();
    assert_eq!((built.place, built.repeatable), (Place::Pinned(xxh3_64(b"u")), false));
}

#[test]
fn an_id_that_comes_again_pins_its_event() {
    let assign = || Assigned { id: "m 3".to_owned(), again: Some(9) };
    let built = build(&source(Shape::Event), element(r#"{"type":"edit"}"#), assign).unwrap();
    assert_eq!((built.event.id.as_ref(), built.place, built.repeatable), ("m 3", Place::Pinned(9), true));
}

#[test]
fn the_hash_is_over_the_bytes_as_sent() {
    let mut source = source(Shape::Data);
    source.id = IdRule::Hash;
    let id = built(&source, r#"{"a":1}"#).unwrap().event.id;
    // printf '{"a":1}' | sha256sum | cut -c1-32
    assert_eq!(id, "015abd7f5cc57a2dd94b7590f04ad808");
    assert_ne!(built(&source, r#"{"a": 1}"#).unwrap().event.id, id);
}

#[test]
fn what_is_wrong_is_said_with_its_path_and_fix() {
    let event = source(Shape::Event);
    let mut data = source(Shape::Data);
    data.time = Some(template("{data.at}"));
    data.partition = Some(template("{data.user}"));
    data.id = IdRule::Template(template("{data.id}"));
    let deep = format!(r#"{{"type":"a","data":{}{}}}"#, "[".repeat(127), "]".repeat(127));
    let long = |name: &str| format!(r#"{{"type":"a","{name}":"{}"}}"#, "x".repeat(2000));
    let large = format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(EVENT_MAX_BYTES));
    for (source, text, expected) in [
        (&event, "7", "an event is a JSON object"),
        (&event, "[]", "an event is a JSON object"),
        (&event, "{}", "type is missing: add the member `type`"),
        (&event, r#"{"type":"a","id":7}"#, "id is not a string: write it in quotes"),
        (&event, r#"{"type":"a","id":""}"#, "id is empty"),
        (&event, r#"{"type":"a","id":"1","id":"2"}"#, "it can't be read: duplicate field `id`"),
        (&event, r#"{"type":["a"]}"#, "type is not a string"),
        (&event, r#"{"type":"a","subject":{}}"#, "subject is not a string"),
        (&event, r#"{"type":"a","time":"yesterday"}"#, "time is no time between 1678 and 2262: send it as in"),
        (&event, r#"{"type":"a","data_base64":"!"}"#, "data_base64 is not base64 in a string"),
        (&event, r#"{"type":"a","data":{"s":"\ud800"}}"#, "data can't be read: "),
        (&event, r#"{"type":"a","data":{"n":1e999}}"#, "data can't be read: number out of range"),
        (&event, &deep, "it is nested deeper than 127 levels: flatten it"),
        (&event, &long("id"), "id has 2000 bytes, more than 256: shorten it"),
        (&event, &long("type").replacen("\"type\":\"a\",", "", 1), "type has 2000 bytes"),
        (&event, &long("subject"), "subject has 2000 bytes, more than 1024"),
        (&event, &large, "data has 1048578 bytes, more than 1048576"),
        (&data, r#"{"id":1,"user":"u"}"#, "time can't be read: `data.at` is missing"),
        (&data, r#"{"id":1,"user":"u","at":"never"}"#, "time can't be read: `data.at` is no time between 1678 and"),
        (&data, r#"{"id":1,"user":[],"at":1}"#, "partition can't be built: `data.user` is missing or no text"),
        (&data, r#"{"id":1,"user":"","at":1}"#, "partition is empty"),
        (&data, r#"{"user":"u","at":1}"#, "id can't be built: `data.id` is missing"),
    ] {
        let why = built(source, text).expect_err(text);
        assert!(why.starts_with(expected), "{}: {why}", text.chars().take(60).collect::<String>());
    }
}

#[test]
fn nesting_as_deep_as_allowed_can_be_read_by_all() {
    let data = format!("{}{}", "[".repeat(126), "]".repeat(126));
    let built = built(&source(Shape::Event), &format!(r#"{{"type":"a","data":{data}}}"#)).unwrap();
    assert!(View::new(&built.event).is_ok());
}

proptest::proptest! {
    #[test]
    fn what_is_built_can_be_read_by_the_dispatcher(text in r#"\{("type":"a")?,?("data":[\[\]{}":0-9a-z,]{0,12})?\}"#) {
        if serde_json::from_str::<serde_json::Value>(&text).is_ok()
            && let Ok(built) = built(&source(Shape::Event), &text)
        {
            proptest::prop_assert!(View::new(&built.event).is_ok());
        }
    }
}
