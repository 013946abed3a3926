//! What fuzzing has kept: every input of `fuzz/corpus` once more, through the same targets. docs/TESTING.md says how to
//! fuzz.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn every_input_that_was_kept_passes() {
    let mut wrong = Vec::new();
    for (name, target) in fuzz::TARGETS {
        let inputs = files(&folder().join("corpus").join(name));
        assert!(!inputs.is_empty(), "{name} has none");
        for input in inputs {
            let bytes = std::fs::read(&input).expect("a readable file");
            if catch_unwind(|| target(&bytes)).is_err() {
                wrong.push(input.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "what is wrong with them stands above: {}", wrong.join(", "));
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let names = |sub: &str| -> BTreeSet<String> {
        let name = |path: &PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        files(&folder().join(sub)).iter().filter_map(name).collect()
    };
    let targets: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!((&names("fuzz_targets"), &names("corpus")), (&targets, &targets));
}
