//! Errors of a configuration: the problem, its position and its remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_saphyr::{Error as YamlError, UserMessageFormatter};

use super::located::FilePosition;
use crate::file_access;

/// Failure to use a configuration. `Display` has a line for each problem: `config.yaml:12:5: problem: remedy`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}", unreadable(path, source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Both a file and variables of the environment; none of the two has precedence.
    #[error("{}", both(path, variables))]
    Both {
        /// The file.
        path: PathBuf,
        /// The variables.
        variables: Vec<&'static str>,
    },
    /// The file contains invalid or unsafe settings.
    #[error("{0}")]
    Invalid(Problems),
}

/// Without access the name is right, and another user is needed.
fn unreadable(path: &Path, source: &io::Error) -> String {
    let text =
        format!("{}: cannot be read: {}", path.display(), file_access::explain(path, source));
    match source.kind() {
        _ if file_access::is_refused(source) => text,
        io::ErrorKind::NotFound => {
            text + "; create it with `deltapush init you@example.org`, or name another with --config FILE"
        }
        _ => text + "; name the configuration file with --config FILE",
    }
}

fn both(path: &Path, variables: &[&str]) -> String {
    format!(
        "{} and the environment ({}) cannot both be the configuration: remove these variables, or do without the file",
        path.display(),
        variables.join(", ")
    )
}

/// All problems of one file, or of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file's name, as the operator wrote it.
    pub file: String,
    /// At least one, in the order of the file.
    pub list: Vec<ConfigProblem>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Its position. Line 0 if it concerns the file as a whole.
    pub place: FilePosition,
    /// The problem and the remedy.
    pub message: String,
}

impl ConfigProblem {
    pub(super) fn new(place: FilePosition, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }

    /// Converts an error of the YAML reader, adding the key's name where it is missing.
    pub(super) fn from_yaml(error: &YamlError, text: &str) -> Self {
        let place = error.location().map(FilePosition::from).unwrap_or_default();
        let rendered = error.render_with_formatter(&UserMessageFormatter);
        let suffix = format!(" at line {}, column {}", place.line, place.column);
        let said = rendered.strip_suffix(&suffix).unwrap_or(&rendered);
        Self {
            place,
            message: explain(error.without_snippet(), said, &ConfigLine::at(text, place)),
        }
    }
}

impl ConfigError {
    pub(super) fn invalid(file: &str, list: Vec<ConfigProblem>) -> Self {
        Self::Invalid(Problems { file: file.to_owned(), list })
    }

    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConfigProblem { place, message }) in self.list.iter().enumerate() {
            let end_of_previous = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_previous}{}:", self.file)?;
            if place.line > 0 {
                write!(f, "{}:{}:", place.line, place.column)?;
            }
            write!(f, " {message}")?;
        }
        Ok(())
    }
}

/// Characters that mean something to YAML at the start of a value (YAML 1.2 section 5.3), but for quotes and brackets.
const RESERVED: &str = "*&!%@`|>?";

/// Rephrases an error of the YAML reader for operators.
fn explain(error: &YamlError, said: &str, line: &ConfigLine<'_>) -> String {
    let key = line.key.map(|key| format!("`{key}`: ")).unwrap_or_default();
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            let known: Vec<_> = expected.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "unknown field `{}`, expected one of {}",
                field.escape_debug(),
                known.join(", ")
            )
        }
        YamlError::SerdeMissingField { field, .. } => {
            let value = match *field {
                "tls" => "implicit` (port 993) or `tls: starttls` (port 143)",
                _ => "…`",
            };
            format!("`{field}` is missing here: add the line `{field}: {value}")
        }
        YamlError::DuplicateMappingKey { .. } => format!("{said}: keep one of the two"),
        YamlError::MultipleDocuments { .. } => {
            "a second document starts here: remove the line `---` and everything after it"
                .to_owned()
        }
        _ if line.value.is_empty() && line.key.is_some() => {
            format!("{key}empty value: give a value or remove the line")
        }
        // A list to YAML.
        _ if line.value.starts_with('[') && said.contains("scalar") => {
            format!("{key}an address in brackets must stand in quotes, as in \"[::]:993\"")
        }
        _ if line.value.starts_with(|first| RESERVED.contains(first)) => {
            let first = line.value.chars().next().unwrap_or_default();
            format!(
                "{key}a value that starts with {first} must stand in quotes, as in \"{first}…\""
            )
        }
        _ if line.has_tab => {
            "a tab stands at the start of this line: YAML is indented with spaces".to_owned()
        }
        YamlError::Unexpected { .. } if said.contains("mapping start") => {
            format!("{key}expected further `key: value` lines below it, each indented")
        }
        YamlError::Unexpected { .. } if said.contains("sequence start") => {
            format!("{key}expected a list: lines below it that start with `- `")
        }
        _ => format!("{key}{said}"),
    }
}

/// The line that an error points to, as far as it is of the form `key: value`.
struct ConfigLine<'a> {
    key: Option<&'a str>,
    value: &'a str,
    /// A tab is in its indentation.
    has_tab: bool,
}

impl<'a> ConfigLine<'a> {
    fn at(text: &'a str, place: FilePosition) -> Self {
        let index = usize::try_from(place.line).unwrap_or(usize::MAX).checked_sub(1);
        let line = index.and_then(|index| text.lines().nth(index)).unwrap_or_default();
        let (key, value) = match line.split_once(':') {
            Some((key, value)) => (key.trim_start_matches([' ', '-']).trim(), value.trim()),
            None => ("", line.trim()),
        };
        // A key of this file is a word or a metadata entry; anything else is not worth repeating.
        let is_key =
            !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_/".contains(c));
        let value = if value.starts_with('#') { "" } else { value };
        let has_tab = line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
        Self { key: is_key.then_some(key), value, has_tab }
    }
}
