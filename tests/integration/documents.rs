//! Documents that name tests: each test named is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The documents, and in which column of their tables the tests stand.
const DOCUMENTS: [(&str, usize); 1] = [("docs/providers.md", 3)];

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = tests_in(root);
    assert!(tests.contains("every_test_that_a_document_names_is_there"), "the sources were not read: {tests:?}");
    for (document, column) in DOCUMENTS {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let mut rows = 0;
        for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")).skip(1) {
            let cell = line.trim_matches('|').split(" | ").nth(column);
            let cell = cell.unwrap_or_else(|| panic!("{document}: no test column in {line}"));
            let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty(), "{document}: no test in {line}");
            for name in named {
                assert!(tests.contains(name), "{document} names the test {name}, which is nowhere");
            }
            rows += 1;
        }
        assert!(rows > 0, "{document} has no table");
    }
}

/// The names of all functions marked as tests in `src` and `tests`.
fn tests_in(root: &Path) -> BTreeSet<String> {
    let mut folders: Vec<PathBuf> = ["src", "tests"].map(|name| root.join(name)).into();
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.extend(tests_of(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

fn tests_of(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| marked) {
            names.push(rest.split('(').next().unwrap().to_owned());
            marked = false;
        }
    }
    names
}
