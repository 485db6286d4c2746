//! docs/standards.md names a test beside each claim: here is what keeps that true.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// The names of all test functions in the sources below `folder`.
fn collect_tests(folder: &Path, names: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_tests(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut is_test = false;
            for line in fs::read_to_string(&path).unwrap().lines().map(str::trim_start) {
                let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                match function.and_then(|rest| rest.split_once('(')) {
                    Some((name, _)) => {
                        if is_test {
                            names.insert(name.to_owned());
                        }
                        is_test = false;
                    }
                    None => is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test"),
                }
            }
        }
    }
}

#[test]
fn every_test_that_the_standards_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = HashSet::new();
    for folder in ["src", "tests"] {
        collect_tests(&root.join(folder), &mut known);
    }
    assert!(known.len() > 300, "only {} tests were found", known.len());
    let standards = fs::read_to_string(root.join("docs/standards.md")).unwrap();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| ---") && !line.starts_with("| RFC");
    let mut claims = 0;
    for line in standards.lines().filter(is_row) {
        claims += 1;
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "a claim, what, tests: {line}");
        let named: Vec<&str> = cells[2].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test beside {line}");
        for name in named {
            assert!(known.contains(name), "there is no test {name}, which stands beside {}", cells[0]);
        }
    }
    assert!(claims > 50, "only {claims} claims");
}
