//! The documents: tests that they name, links between them, and the form of the pages of the book in `docs/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The documents whose tables name tests in their last column, and how many rows they have at least.
const CLAIMS: [(&str, usize); 1] = [("docs/standards.md", 90)];

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src", "tests"].map(|folder| files_below(&root.join(folder), "rs")).concat();
    let tests: BTreeSet<String> =
        sources.iter().flat_map(|path| tests_of(&fs::read_to_string(path).unwrap())).collect();
    assert!(
        tests.contains("every_test_that_a_document_names_is_there"),
        "the sources were not read: {tests:?}"
    );
    for (document, at_least) in CLAIMS {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let mut columns = None;
        let mut rows = 0;
        for line in text.lines() {
            if !line.starts_with('|') {
                columns = None;
                continue;
            }
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
            let Some(columns) = columns else {
                columns = Some(cells.len());
                continue;
            };
            if line.starts_with("| ---") {
                continue;
            }
            assert_eq!(cells.len(), columns, "{document}: as many cells as the head has: {line}");
            let named: Vec<&str> = cells.last().unwrap().split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty(), "{document}: no test in {line}");
            for name in named {
                assert!(tests.contains(name), "{document} names the test {name}, which is nowhere");
            }
            rows += 1;
        }
        assert!(rows >= at_least, "only {rows} rows were found in {document}");
    }
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = files_below(&root.join("docs"), "md");
    documents.extend(
        [
            "README.md",
            "ARCHITECTURE.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "GLOSSARY.md",
            "SECURITY.md",
            "certs/README.md",
        ]
        .map(|name| root.join(name)),
    );
    let mut links = 0;
    for document in &documents {
        let text = fs::read_to_string(document).unwrap();
        for link in
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
        {
            if link.starts_with("https://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(path)
            };
            assert!(target.exists(), "{} links to {link}, which is not there", document.display());
            let is_heading = |line: &str| line.starts_with('#') && anchor(line) == heading;
            assert!(
                heading.is_empty() || fs::read_to_string(&target).unwrap().lines().any(is_heading),
                "{} links to {link}: there is no such heading",
                document.display()
            );
            links += 1;
        }
    }
    assert!(links > 40, "only {links} links were found");
}

/// The table of contents of the book.
const SUMMARY: &str = "SUMMARY.md";

#[test]
fn each_page_is_in_the_summary_names_its_readers_and_ends_with_help() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let summary = fs::read_to_string(docs.join(SUMMARY)).unwrap();
    let listed: Vec<&str> = summary
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(page, _)| page)
        .collect();
    let parts: Vec<&str> =
        summary.lines().filter_map(|line| line.strip_prefix("# ")).skip(1).collect();
    assert_eq!(parts, ["Operate", "Understand", "Reference", "Contribute"]);
    let mut pages = 0;
    for path in files_below(&docs, "md") {
        let page = path.strip_prefix(&docs).unwrap().to_str().unwrap();
        if page == SUMMARY {
            continue;
        }
        assert_eq!(
            listed.iter().filter(|its| **its == page).count(),
            1,
            "{page} must be in docs/SUMMARY.md, once"
        );
        pages += 1;
        if let Err(fault) = check_form(&fs::read_to_string(&path).unwrap()) {
            panic!("docs/{page}: {fault}");
        }
    }
    assert!(pages > 18, "only {pages} pages were found");
}

#[test]
fn pages_of_another_form_are_found() {
    let form = "# Title\n\nFor operators: text.\n\n## One\n\n```sh\n## no heading\n```\n\n## If it does not work\n\nHelp.\n";
    assert_eq!(check_form(form), Ok(()));
    assert!(check_form(&form.replace("For operators: ", "")).is_err());
    assert!(check_form(&form.replace("# Title\n\n", "")).is_err());
    assert!(check_form(&format!("{form}\n## Another section\n\nText.\n")).is_err());
    assert!(check_form(&form.replace("Help.\n", "")).is_err());
    assert!(check_form(&form.replace("## If it does not work", "## End")).is_err());
}

/// Checks that a page has a title, then a line that names its readers, and as its last section what to do if it does not work.
fn check_form(page: &str) -> Result<(), &'static str> {
    let mut lines = page.lines().filter(|line| !line.is_empty());
    if !lines.next().is_some_and(|line| line.starts_with("# ")) {
        return Err("the first line must be the title");
    }
    if !lines.next().is_some_and(|line| line.starts_with("For ")) {
        return Err("the first paragraph must name the readers: \"For operators: …\"");
    }
    let mut in_code = false;
    let mut last = None;
    for line in lines {
        in_code ^= line.starts_with("```");
        match last {
            _ if !in_code && line.starts_with("## ") => last = Some((line, 0)),
            Some((heading, below)) => last = Some((heading, below + 1)),
            None => {}
        }
    }
    match last {
        Some((heading, below)) if heading.starts_with("## If it ") && below > 0 => Ok(()),
        _ => Err("the last section must be \"If it does not work\", and not empty"),
    }
}

/// The anchor of a heading in links.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>()
        .replace(' ', "-")
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|its| its == extension) {
                found.push(path);
            }
        }
    }
    found
}

/// The names of all functions marked as tests.
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
