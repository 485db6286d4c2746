//! The manual pages and the completions of shells, in `contrib/man` and `contrib/completions`: they are made of the definition of the
//! command line, here, so that no program that is shipped contains their generators.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

use crate::cli::Cli;

/// The files of a folder, by name; empty if there is no such folder.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    let named = entries.map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read_to_string(entry.path()).unwrap())
    });
    named.collect()
}

/// Compares the made files with those of a folder in `contrib`; `INSTA_UPDATE=always` replaces the latter.
fn compare(made: &BTreeMap<String, String>, folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(folder);
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in made {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let kept = files(&folder);
    let names = made.keys().chain(kept.keys());
    let different: Vec<_> = names.filter(|name| made.get(*name) != kept.get(*name)).collect();
    assert!(
        different.is_empty(),
        "{different:?} in {} differ from the command line; to renew them: \
         INSTA_UPDATE=always cargo test --bin deltapush manual",
        folder.display()
    );
}

#[test]
fn manual_pages_are_those_of_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(Cli::command(), folder.path()).unwrap();
    let made = files(folder.path());
    assert!(made.len() > 10 && made.contains_key("deltapush-state-backup.1"), "{:?}", made.keys());
    compare(&made, "man");
}

#[test]
fn completions_are_those_of_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut Cli::command(), "deltapush", folder.path()).unwrap();
    }
    let made = files(folder.path());
    assert_eq!(made.len(), 3);
    compare(&made, "completions");
}
