//! Cache directives and groups.

use millpond_proxy::semantics::cache_control::{RequestDirectives, ResponseDirectives, SECONDS_MAX};
use millpond_proxy::semantics::groups;
use millpond_shared::http1::Fields;
use sfv::{Dictionary, FieldType, List, ListEntry, Parser};

use super::input::lines;

pub fn cache_control(data: &[u8]) {
    let fields = lines("Cache-Control", data);
    let found = ResponseDirectives::of(&fields);
    let upper = lines("CACHE-CONTROL", &data.to_ascii_uppercase());
    assert_eq!(ResponseDirectives::of(&upper), found, "case is nothing");
    assert_eq!(RequestDirectives::of(&upper), RequestDirectives::of(&fields), "case is nothing");
    assert!(found.max_age.max(found.s_maxage).is_none_or(|seconds| seconds <= SECONDS_MAX));
    assert!(!found.targeted);

    // Whatever else is said, a line of its own is heard.
    let with = |line: &'static [u8]| -> ResponseDirectives {
        let all: Fields = fields.iter().chain([("Cache-Control", line)]).collect();
        ResponseDirectives::of(&all)
    };
    assert_eq!(with(b"no-store"), ResponseDirectives { no_store: true, ..found.clone() });
    assert_eq!(with(b"private"), ResponseDirectives { private: true, ..found.clone() });
    assert_eq!(with(b"max-age=0"), ResponseDirectives { max_age: Some(0), ..found.clone() });
    assert_eq!(with(b"unknown=\"a, no-store\""), found);
}

pub fn targeted(data: &[u8]) {
    let fields = lines("CDN-Cache-Control", data);
    let value = fields.get_all("cdn-cache-control").collect::<Vec<_>>().join(&b", "[..]);
    let dictionary = Parser::new(&value).parse::<Dictionary>().ok();
    if let Some(dictionary) = &dictionary {
        reads_back(dictionary, Dictionary::is_empty);
    }
    let usable = dictionary.filter(|dictionary| !dictionary.is_empty());

    // A field that is not usable is not there, and one that is counts alone.
    let with: Fields = fields.iter().chain([("Cache-Control", &b"no-store, max-age=7"[..])]).collect();
    let found = ResponseDirectives::of(&with);
    assert_eq!(found.targeted, usable.is_some());
    match usable {
        None => assert!(found.no_store && found.max_age == Some(7)),
        Some(dictionary) => {
            assert_eq!(found.no_store, says(&dictionary, "no-store"));
            assert_eq!(found.must_revalidate, says(&dictionary, "must-revalidate"));
            assert_eq!(found.max_age.is_some(), dictionary.contains_key("max-age"));
        }
    }
    the_groups(data);
}

fn says(dictionary: &Dictionary, flag: &str) -> bool {
    let Some(ListEntry::Item(item)) = dictionary.get(flag) else { return false };
    item.bare_item.as_boolean() == Some(true)
}

fn reads_back<T: FieldType + PartialEq + std::fmt::Debug>(value: &T, is_empty: fn(&T) -> bool) {
    let written: Option<String> = value.serialize().into();
    assert_eq!(written.is_none(), is_empty(value));
    if let Some(written) = written {
        assert_eq!(Parser::new(&written).parse::<T>().ok().as_ref(), Some(value));
    }
}

/// The same text as groups: each has a tag of its own, which is that of no other origin.
fn the_groups(data: &[u8]) {
    let fields = lines("Cache-Groups", data);
    let tags = |origin| groups::tags(&fields, origin).collect::<Vec<_>>();
    let (here, there) = (tags("http a"), tags("http a:8080"));
    assert_eq!(here.len(), there.len());
    assert!(here.iter().all(|tag| groups::is_group(tag) && !there.contains(tag)));
    let value = fields.get_all("cache-groups").collect::<Vec<_>>().join(&b", "[..]);
    if let Ok(list) = Parser::new(&value).parse::<List>() {
        reads_back(&list, Vec::is_empty);
        assert!(here.is_empty() || here.len() == list.len());
    } else {
        assert!(here.is_empty());
    }
}
