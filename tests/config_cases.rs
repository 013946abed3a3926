//! Invalid configurations and what `millpond check` says of each: every mistake at once, with its file, line, column,
//! field and fix. The cases are data: `cases/NAME.toml` and `cases/NAME.expected`.
//!
//! After a message was changed on purpose: `MILLPOND_CASES=write cargo test --test suite config_cases`, then read the
//! difference.

use std::path::{Path, PathBuf};

use crate::harness::process::finish;

/// Fewer, and files must have got lost.
const CASES_MIN: usize = 24;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn cases() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("the cases are there");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut cases: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".toml")?.to_owned())).collect();
    cases.sort();
    cases
}

#[test]
fn each_mistake_is_told_with_place_and_fix() {
    let cases = cases();
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let writes = std::env::var("MILLPOND_CASES").is_ok_and(|value| value == "write");
    let mut wrong = Vec::new();
    for case in &cases {
        let finished = finish(&["check", &format!("{case}.toml")], &folder());
        let file = folder().join(format!("{case}.expected"));
        if writes {
            std::fs::write(&file, &finished.stderr).expect("the folder can be written");
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if (finished.code, finished.stdout.as_str(), &finished.stderr) != (Some(2), "", &expected) {
            wrong.push(format!("{case}: {finished:#?}, expected:\n{expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What a message must have, whatever it says.
#[test]
fn every_message_names_its_place_and_a_fix() {
    for case in cases() {
        let expected = std::fs::read_to_string(folder().join(format!("{case}.expected"))).expect("what is expected");
        assert!(!expected.is_empty(), "{case}");
        for line in expected.lines() {
            let place = line.split(": ").next().unwrap_or_default();
            let (file, numbers) = place.split_once(".toml").unwrap_or_else(|| panic!("{case}: no file in {line}"));
            let numbers: Vec<&str> = numbers.split(':').skip(1).collect();
            let is_place = numbers.len() == 2 && numbers.iter().all(|number| number.parse::<usize>().is_ok());
            // Only of what is nowhere to be found there is no line.
            assert!(is_place || line.contains("there is nothing to run"), "{case}: no line and column in {line}");
            assert!(file == case || file.starts_with("included/"), "{case}: {file} in {line}");
            assert!(line.contains("; fix: "), "{case}: no fix in {line}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let finished = finish(&["check", "never-written.toml"], &folder());
    let words = "never-written.toml: No such file or directory (os error 2); fix: name a file that can be read\n";
    assert_eq!((finished.code, finished.stdout.as_str(), finished.stderr.as_str()), (Some(2), "", words));
}

/// `run` refuses the same file in the same words, before it opens anything.
#[test]
fn run_refuses_what_check_refuses() {
    for command in [&["check", "several-at-once.toml"][..], &["run", "--config", "several-at-once.toml"]] {
        let finished = finish(command, &folder());
        let expected = std::fs::read_to_string(folder().join("several-at-once.expected")).expect("what is expected");
        assert_eq!((finished.code, finished.stdout, finished.stderr), (Some(2), String::new(), expected));
    }
}
