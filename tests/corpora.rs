//! A fuzzer's corpus and its former failures, played to the same properties by the ordinary tests.
//!
//! `fuzz/corpus/` and `fuzz/regressions/` have a folder for each target; how they come about is said in docs/fuzzing.md.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a property that does not hold ends the test"
)]
#![expect(unreachable_pub, reason = "the properties are a library of their own")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
mod properties;

/// The files below `fuzz/<folder>/<target>`, in order.
fn inputs(folder: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder).join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// Plays a target's files and returns how many there were.
fn play(target: &str) -> usize {
    let files = [inputs("corpus", target), inputs("regressions", target)].concat();
    for file in &files {
        let data = fs::read(file).unwrap();
        if catch_unwind(AssertUnwindSafe(|| properties::check(target, &data))).is_err() {
            panic!("a property of `{target}` does not hold for {}", file.display());
        }
    }
    files.len()
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                assert!(play(stringify!($target)) >= 5, "the corpus is gone");
            }
        )*

        #[test]
        fn every_target_is_played() {
            let mut played = vec![$(stringify!($target)),*];
            let mut known: Vec<&str> = properties::TARGETS.iter().map(|(name, _)| *name).collect();
            played.sort_unstable();
            known.sort_unstable();
            assert_eq!(played, known);
        }
    };
}

targets!(framer command response capability metadata session redaction preauth dialogue idle config sasl id compression proxy_protocol keeping tls news dict);

#[test]
fn shipped_traces_are_seeds() {
    properties::check("config", include_bytes!("../config.yaml"));
}
