//! `config`: whatever stands in the file, it is taken or refused with a place and in words.

use std::path::Path;

use deltapush::config::{Config, ConfigError};

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, Path::new("/etc/deltapush"), "config.yaml") {
        Ok(config) => {
            assert!(!config.live.listeners.is_empty() && !config.live.routes.is_empty());
            assert!(
                config.live.certificate.directory.is_absolute()
                    && config.startup.storage.directory.is_absolute()
            );
        }
        Err(ConfigError::Read { .. } | ConfigError::Both { .. }) => panic!("nothing was read"),
        Err(ConfigError::Invalid(problems)) => {
            assert!(!problems.list.is_empty());
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u64;
            for problem in &problems.list {
                assert!(!problem.message.trim().is_empty(), "in words");
                assert!(problem.place.line <= lines + 1, "{:?} of {lines}", problem.place);
                assert!(
                    (problem.place.line > 0) == (problem.place.column > 0),
                    "{:?}",
                    problem.place
                );
            }
            for line in problems.to_string().lines() {
                assert!(!line.is_empty());
            }
        }
    }
}
