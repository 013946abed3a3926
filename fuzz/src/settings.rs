//! The configuration: whatever is written, every mistake is told with its place and a fix.

use std::net::SocketAddr;
use std::path::Path;

use millpond::Failure;
use millpond::config::Config;
use toml::{Table, Value};

/// What the file would be called, in a folder that is not there.
const FILE: &str = "/nowhere/f.toml";

pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if asks_the_world(text) {
        return;
    }
    let (once, again) = (Config::parse(Path::new(FILE), text), Config::parse(Path::new(FILE), text));
    match (once, again) {
        (Ok(_), Ok(_)) => {}
        (Err(Failure::Refused(words)), Err(Failure::Refused(again))) => {
            assert_eq!(words, again, "the same file gets the same answer");
            assert!(!words.is_empty());
            // A message may quote what was written, lines and all.
            assert!(words.starts_with(FILE) && words.contains("; fix: "), "{words}");
        }
        _ => panic!("it is refused once, and once it is not"),
    }
}

/// Whether judging would read other files, or look up names.
fn asks_the_world(text: &str) -> bool {
    let Ok(table) = text.parse::<Table>() else { return false };
    let is_address = |value: &Value| value.as_str().is_some_and(|text| text.parse::<SocketAddr>().is_ok());
    let goes_out = |origin: &Value| {
        let servers = origin.get("servers").and_then(Value::as_array);
        origin.get("tls").is_some() || servers.is_some_and(|servers| !servers.iter().all(is_address))
    };
    let has = |section: &str, key| table.get(section).is_some_and(|section| section.get(key).is_some());
    let reads_files = has("proxy", "certificate") || has("admin", "token");
    let origins = table.get("origin").and_then(Value::as_table);
    let goes_out = origins.is_some_and(|origins| origins.values().any(goes_out));
    table.contains_key("include") || table.contains_key("database") || reads_files || goes_out
}
