//! The HTTP working group's test vectors for structured fields (`httpwg/structured-field-tests`), and a few of our own.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use sfv::{BareItem, Date, Decimal, Dictionary, InnerList, Integer, Item, Key, List, ListEntry, Parameters, Token};

/// One test vector: lines of a field, and the value that they are; or, without lines, a value to be written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    header_type: Kind,
    raw: Option<Vec<String>>,
    expected: Option<Value>,
    /// How the value is written, if that is not `raw`; empty for no field at all.
    canonical: Option<Vec<String>>,
    #[serde(default)]
    must_fail: bool,
    /// Failing is as good as the expected value.
    #[serde(default)]
    can_fail: bool,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Item,
    List,
    Dictionary,
}

/// A value of any of the three kinds.
#[derive(Debug, PartialEq)]
enum Field {
    Item(Item),
    List(List),
    Dictionary(Dictionary),
}

impl Field {
    fn parsed(kind: Kind, lines: &[String]) -> Option<Field> {
        let lines = lines.iter().map(String::as_bytes);
        match kind {
            Kind::Item => super::parsed(lines).map(Field::Item),
            Kind::List => super::parsed(lines).map(Field::List),
            Kind::Dictionary => super::parsed(lines).map(Field::Dictionary),
        }
    }

    /// `None` where the text of the value would be empty, which is no field.
    fn written(&self) -> Option<String> {
        use sfv::FieldType;
        match self {
            Field::Item(item) => Some(item.serialize()),
            Field::List(list) => list.serialize(),
            Field::Dictionary(dictionary) => dictionary.serialize(),
        }
    }

    /// The value that a vector describes; `None` where there can't be one.
    fn described(kind: Kind, value: &Value) -> Option<Field> {
        Some(match kind {
            Kind::Item => Field::Item(item(value)?),
            Kind::List => Field::List(array(value)?.iter().map(entry).collect::<Option<_>>()?),
            Kind::Dictionary => Field::Dictionary(named(value, entry)?),
        })
    }
}

fn array(value: &Value) -> Option<&Vec<Value>> {
    value.as_array()
}

/// `[[name, value], …]`
fn named<T, C: FromIterator<(Key, T)>>(value: &Value, read: fn(&Value) -> Option<T>) -> Option<C> {
    let pair = |pair: &Value| {
        let [name, value] = array(pair)?.as_slice() else { return None };
        Some((Key::from_string(name.as_str()?.to_owned()).ok()?, read(value)?))
    };
    array(value)?.iter().map(pair).collect()
}

fn entry(value: &Value) -> Option<ListEntry> {
    let [inner, parameters] = array(value)?.as_slice() else { return None };
    Some(match inner.as_array() {
        Some(items) => {
            let items = items.iter().map(item).collect::<Option<_>>()?;
            ListEntry::InnerList(InnerList::with_params(items, named::<_, Parameters>(parameters, bare_item)?))
        }
        None => ListEntry::Item(item(value)?),
    })
}

fn item(value: &Value) -> Option<Item> {
    let [bare, parameters] = array(value)?.as_slice() else { return None };
    Some(Item::with_params(bare_item(bare)?, named::<_, Parameters>(parameters, bare_item)?))
}

fn bare_item(value: &Value) -> Option<BareItem> {
    Some(match value {
        Value::Bool(set) => BareItem::Boolean(*set),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => BareItem::Integer(Integer::try_from(integer).ok()?),
            None => BareItem::Decimal(Decimal::try_from(number.as_f64()?).ok()?),
        },
        Value::String(text) => BareItem::String(sfv::String::from_string(text.clone()).ok()?),
        Value::Object(tagged) => {
            let value = tagged.get("value")?;
            match tagged.get("__type")?.as_str()? {
                "token" => BareItem::Token(Token::from_string(value.as_str()?.to_owned()).ok()?),
                "binary" => BareItem::ByteSequence(base32(value.as_str()?)?),
                "date" => BareItem::Date(Date::from_unix_seconds(Integer::try_from(value.as_i64()?).ok()?)),
                "displaystring" => BareItem::DisplayString(value.as_str()?.to_owned()),
                _ => return None,
            }
        }
        Value::Array(_) | Value::Null => return None,
    })
}

/// RFC 4648 §6, in which the vectors write bytes.
fn base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for digit in text.trim_end_matches('=').bytes() {
        let digit = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|known| *known == digit)?;
        (bits, held) = (bits << 5 | digit as u32, held + 5);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

/// What is wrong with our reading and writing of a vector.
fn judge(vector: &Vector) -> Result<(), String> {
    let described = vector.expected.as_ref().and_then(|value| Field::described(vector.header_type, value));
    let Some(raw) = &vector.raw else {
        let written = described.and_then(|field| field.written());
        let expected = vector.canonical.as_ref().and_then(|lines| lines.first().cloned());
        return if written == expected { Ok(()) } else { Err(format!("written as {written:?}, not {expected:?}")) };
    };
    let parsed = Field::parsed(vector.header_type, raw);
    match (parsed, vector.must_fail) {
        (None, true) => Ok(()),
        (None, false) if vector.can_fail => Ok(()),
        (Some(parsed), true) => Err(format!("{raw:?} was taken for {parsed:?}")),
        (None, false) => Err(format!("{raw:?} was refused")),
        (Some(parsed), false) if Some(&parsed) != described.as_ref() => {
            Err(format!("{raw:?} was taken for {parsed:?}, not {described:?}"))
        }
        (Some(parsed), false) => {
            let expected = vector.canonical.as_ref().unwrap_or(raw).first().cloned();
            let written = parsed.written();
            if written == expected { Ok(()) } else { Err(format!("written as {written:?}, not {expected:?}")) }
        }
    }
}

/// Judges every vector of a file, and tells how many there were.
fn judge_all(text: &str, wrong: &mut Vec<String>) -> usize {
    let vectors: Vec<Vector> = serde_json::from_str(text).expect("vectors as their README has them");
    for vector in &vectors {
        wrong.extend(judge(vector).err().map(|why| format!("{}: {why}", vector.name)));
    }
    vectors.len()
}

/// One or two of each type, as the working group writes them: these need no files.
const OWN: &str = r#"[
    {"name": "integer", "header_type": "item", "raw": ["042;a"], "expected": [42, [["a", true]]], "canonical": ["42;a"]},
    {"name": "16 digits", "header_type": "item", "raw": ["1000000000000000"], "must_fail": true},
    {"name": "decimal", "header_type": "item", "raw": ["1.50"], "expected": [1.5, []], "canonical": ["1.5"]},
    {"name": "no fraction", "header_type": "item", "raw": ["1."], "must_fail": true},
    {"name": "string", "header_type": "item", "raw": ["\"a\\\"\\\\\""], "expected": ["a\"\\", []]},
    {"name": "8-bit string", "header_type": "item", "raw": ["\"\u00e4\""], "must_fail": true},
    {"name": "token", "header_type": "item", "raw": ["*a/b:c"], "expected": [{"__type": "token", "value": "*a/b:c"}, []]},
    {"name": "bytes", "header_type": "item", "raw": [":aGVsbG8=:"], "expected": [{"__type": "binary", "value": "NBSWY3DP"}, []]},
    {"name": "no base64", "header_type": "item", "raw": [":a-b=:"], "must_fail": true},
    {"name": "boolean", "header_type": "item", "raw": ["?0"], "expected": [false, []]},
    {"name": "date", "header_type": "item", "raw": ["@1659578233"], "expected": [{"__type": "date", "value": 1659578233}, []]},
    {"name": "decimal date", "header_type": "item", "raw": ["@1659578233.12"], "must_fail": true},
    {"name": "display string", "header_type": "item", "raw": ["%\"f%c3%bc\""], "expected": [{"__type": "displaystring", "value": "f\u00fc"}, []]},
    {"name": "upper case escape", "header_type": "item", "raw": ["%\"f%C3%BC\""], "must_fail": true},
    {"name": "no UTF-8", "header_type": "item", "raw": ["%\"f%c3\""], "must_fail": true},
    {"name": "empty item", "header_type": "item", "raw": [""], "must_fail": true},
    {"name": "lists over lines", "header_type": "list", "raw": ["1 ,\t2", "(3  4);x"], "expected": [[1, []], [2, []], [[[3, []], [4, []]], [["x", true]]]], "canonical": ["1, 2, (3 4);x"]},
    {"name": "empty list", "header_type": "list", "raw": [""], "expected": [], "canonical": []},
    {"name": "empty member", "header_type": "list", "raw": ["1,,2"], "must_fail": true},
    {"name": "trailing comma", "header_type": "list", "raw": ["1,"], "must_fail": true},
    {"name": "last value counts", "header_type": "dictionary", "raw": ["a=1, b;x=1;x=2, a=3"], "expected": [["a", [3, []]], ["b", [true, [["x", 2]]]]], "canonical": ["a=3, b;x=2"]},
    {"name": "upper case key", "header_type": "dictionary", "raw": ["A=1"], "must_fail": true},
    {"name": "written token", "header_type": "item", "expected": [{"__type": "token", "value": "a b"}, []], "must_fail": true},
    {"name": "written decimal", "header_type": "item", "expected": [0.0025, []], "canonical": ["0.002"]}
]"#;

#[test]
fn values_are_read_and_written_as_the_rfc_has_them() {
    let mut wrong = Vec::new();
    assert_eq!(judge_all(OWN, &mut wrong), 24);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn so_are_all_vectors_of_the_working_group() {
    let Some(folder) = std::env::var_os("MILLPOND_DATA") else {
        println!("SKIPPED: MILLPOND_DATA is not set; it names the folder whose data/ holds the structured field tests");
        return;
    };
    let folder = Path::new(&folder).join("data/structured-field-tests");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for folder in [folder.clone(), folder.join("serialisation-tests")] {
        for file in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = file.expect("a readable folder").path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = std::fs::read_to_string(&path).expect("a readable file");
                count += judge_all(&text, &mut wrong);
            }
        }
    }
    assert!(count >= 2_000, "{count} vectors: files are missing");
    assert!(wrong.is_empty(), "{} of {count} vectors:\n{}", wrong.len(), wrong.join("\n"));
}
