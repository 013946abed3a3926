//! Reading only those members of a payload that somebody asks for (pure).
//!
//! Most of what is costly about reading JSON is making values of it: of twenty members a counter asks for two.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::event::Path;
use crate::found::Found;

/// Members of an object that are asked for, and which of theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Asked for with all that it holds.
    whole: bool,
    below: Vec<(String, Wanted)>,
}

/// What was read of a payload.
#[derive(Clone, Debug, PartialEq)]
pub enum Picked<'a> {
    /// All of it; a text may be [`Picked::Text`] instead.
    Whole(Value),
    /// All of it, which is a text: as it stands in the payload, unless something in it is escaped there.
    Text(Cow<'a, str>),
    /// Of an object those of its members that are wanted, by name.
    Members(Vec<(&'a str, Picked<'a>)>),
    /// It has no members, and nothing else is wanted.
    Nothing,
}

impl Picked<'_> {
    /// What stands below these names.
    pub fn find<'n>(&self, mut names: impl Iterator<Item = &'n str>) -> Option<Found<'_>> {
        match self {
            Picked::Whole(value) => {
                names.try_fold(value, |value, name| value.as_object()?.get(name)).and_then(Found::of)
            }
            Picked::Text(text) => names.next().is_none().then_some(Found::Text(text)),
            Picked::Members(members) => {
                let name = names.next()?;
                let (_, below) = members.iter().find(|(member, _)| *member == name)?;
                below.find(names)
            }
            Picked::Nothing => None,
        }
    }
}

impl Wanted {
    /// What has to be read of a payload so that these paths find what they would find in all of it.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Wanted {
        let mut wanted = Wanted::default();
        for path in paths {
            let mut names = path.as_str().split('.');
            if names.next() == Some("data") {
                wanted.add(names);
            }
        }
        wanted
    }

    fn add<'a>(&mut self, mut names: impl Iterator<Item = &'a str>) {
        let Some(name) = names.next() else {
            self.whole = true;
            return;
        };
        match self.below.iter_mut().find(|(known, _)| known == name) {
            Some((_, below)) => below.add(names),
            None => {
                let mut below = Wanted::default();
                below.add(names);
                self.below.push((name.to_owned(), below));
            }
        }
    }

    /// Reads JSON, leaving out what is not wanted. Fails where it is no JSON; in what is left out, numbers of any size and
    /// values of any depth pass.
    pub fn read<'a>(&'a self, json: &'a str) -> Result<Picked<'a>, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let picked = self.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(picked)
    }
}

impl<'a> DeserializeSeed<'a> for &'a Wanted {
    type Value = Picked<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Picked<'a>, D::Error> {
        if self.whole { deserializer.deserialize_any(Whole) } else { deserializer.deserialize_any(Part(self)) }
    }
}

/// Reads a value that is wanted with all that it holds.
struct Whole;

impl<'a> Visitor<'a> for Whole {
    type Value = Picked<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<Picked<'a>, E> {
        Ok(Picked::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Picked<'a>, E> {
        Ok(Picked::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'a>>(self, object: A) -> Result<Picked<'a>, A::Error> {
        Value::deserialize(MapAccessDeserializer::new(object)).map(Picked::Whole)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, list: A) -> Result<Picked<'a>, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(list)).map(Picked::Whole)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Picked<'a>, E> {
        Ok(Picked::Whole(value.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Picked<'a>, E> {
        Ok(Picked::Whole(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Picked<'a>, E> {
        Ok(Picked::Whole(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Picked<'a>, E> {
        Ok(Picked::Whole(number.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Picked<'a>, E> {
        Ok(Picked::Whole(Value::Null))
    }
}

/// Reads a value of which only members are wanted.
struct Part<'a>(&'a Wanted);

impl<'a> Visitor<'a> for Part<'a> {
    type Value = Picked<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<Picked<'a>, A::Error> {
        let mut members: Vec<(&str, Picked<'a>)> = Vec::with_capacity(self.0.below.len());
        while let Some(wanted) = object.next_key_seed(Name(self.0))? {
            let Some((name, below)) = wanted else {
                object.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = object.next_value_seed(below)?;
            // Of two members of one name the last counts, as always.
            match members.iter_mut().find(|(member, _)| member == name) {
                Some((_, before)) => *before = value,
                None => members.push((name, value)),
            }
        }
        Ok(Picked::Members(members))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Picked<'a>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Picked::Nothing)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Picked<'a>, E> {
        Ok(Picked::Nothing)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Picked<'a>, E> {
        Ok(Picked::Nothing)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Picked<'a>, E> {
        Ok(Picked::Nothing)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Picked<'a>, E> {
        Ok(Picked::Nothing)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Picked<'a>, E> {
        Ok(Picked::Nothing)
    }

    fn visit_unit<E: Error>(self) -> Result<Picked<'a>, E> {
        Ok(Picked::Nothing)
    }
}

/// Reads the name of a member: whether it is wanted, and what of it.
struct Name<'a>(&'a Wanted);

impl<'de, 'a> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<&'a (String, Wanted)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = Option<&'a (String, Wanted)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.below.iter().find(|(wanted, _)| wanted == name))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::event::{Event, View};
    use proptest::prelude::*;
    use serde_json::json;

    fn paths(texts: &[&str]) -> Vec<Path> {
        texts.iter().map(|text| text.parse().expect("a path")).collect()
    }

    #[test]
    fn what_is_not_asked_for_is_left_out() {
        let wanted = Wanted::of(&paths(&["data.a", "data.b.c", "data.b.d.e", "id", "data.list.x"]));
        let json = r#"{"a":{"x":[1]},"b":{"c":1,"d":5,"f":{"g":1e999}},"z":[[1],{}],"list":[{"x":1}],"b.c":2}"#;
        let below = Picked::Members(vec![("c", Picked::Whole(json!(1))), ("d", Picked::Nothing)]);
        let members = vec![("a", Picked::Whole(json!({ "x": [1] }))), ("b", below), ("list", Picked::Nothing)];
        assert_eq!(wanted.read(json).expect("JSON"), Picked::Members(members));
        let all = Wanted::of(&paths(&["data", "data.a"]));
        assert_eq!(all.read("[1]").expect("JSON"), Picked::Whole(json!([1])));
        assert!(matches!(all.read(r#""a""#), Ok(Picked::Text(Cow::Borrowed("a")))), "it was copied");
        assert!(matches!(all.read(r#""\u0061""#), Ok(Picked::Text(Cow::Owned(text))) if text == "a"));
        assert_eq!(wanted.read("7").expect("JSON"), Picked::Nothing);
        let twice = wanted.read(r#"{"a":1,"a":2}"#).expect("JSON");
        assert_eq!(twice.find(["a"].into_iter()), Some(Found::Value(&json!(2))));
        for wrong in ["", "{", "{\"z\":}", "{\"z\":1}x", "{\"a\":1e999}", "{\"z\":\"\\q\"}"] {
            assert!(wanted.read(wrong).is_err(), "{wrong}");
        }
    }

    /// A payload, with texts of which some are written with escapes.
    pub(crate) fn value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9f64).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
            "[a\"\\\\\u{0}-\u{1f}/é\u{2028}😀]{0,6}".prop_map(Value::from),
        ];
        scalar.prop_recursive(3, 30, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Paths find the same in a payload that is read for them as in one that is read whole.
        #[test]
        fn paths_find_the_same(value in value(), texts in prop::collection::vec("data(\\.[abc]){0,3}", 0..5)) {
            let paths: Vec<Path> = texts.iter().map(|text| text.parse().expect("a path")).collect();
            let event = Event {
                id: "1".into(),
                source: "s".into(),
                kind: "t".into(),
                subject: None,
                time: 0,
                received: 0,
                data: value.to_string().into(),
            };
            let wanted = Wanted::of(&paths);
            let (whole, part) = (View::new(&event).expect("JSON"), View::of(&event, &wanted).expect("JSON"));
            for path in &paths {
                prop_assert_eq!(whole.find(path), part.find(path), "{}", path.as_str());
                prop_assert_eq!(whole.get(path), part.get(path), "{}", path.as_str());
            }
        }
    }
}
