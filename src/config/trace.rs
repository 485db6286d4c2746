//! Output of the trace.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::units::{Size, count, size_from};

/// Outputs of the trace. In the file `true` means standard output, and a section files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceSettings {
    /// Standard output.
    pub print: bool,
    /// Files.
    pub files: Option<TraceFiles>,
}

/// Files with traces, some for each account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceFiles {
    /// Their folder, made with mode 0700.
    pub directory: PathBuf,
    /// The login names whose sessions are written; all if there is none.
    pub accounts: Vec<String>,
    /// Format of lines.
    pub format: TraceFormat,
    /// Include the content of literals, which are mostly messages.
    pub literals: bool,
    /// The maximum size of a file.
    #[serde(deserialize_with = "size_from::<{ 64 << 10 }, _>")]
    pub size: Size,
    /// The maximum number of files per account.
    #[serde(deserialize_with = "count")]
    pub files: usize,
    /// The maximum size of all files; the oldest are removed first.
    #[serde(deserialize_with = "size_from::<{ 1 << 20 }, _>")]
    pub total: Size,
}

/// Format of lines in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceFormat {
    /// As JSON Lines, which `deltapush trace show` and `export` read.
    Json,
    /// For a person.
    Text,
}

impl Default for TraceFiles {
    fn default() -> Self {
        Self {
            directory: "trace".into(),
            accounts: Vec::new(),
            format: TraceFormat::Json,
            literals: false,
            size: Size::kib(8 * 1024),
            files: 4,
            total: Size::kib(1024 * 1024),
        }
    }
}

impl<'de> Deserialize<'de> for TraceSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The error is made here and not by the visitor: only so it has the place of the value.
        deserializer.deserialize_any(TrueOrSection)?.ok_or_else(|| {
            D::Error::custom(
                "write `true` to print it, `false`, or `directory: trace` in a line below it to write it to files",
            )
        })
    }
}

/// `None` for anything else.
struct TrueOrSection;

impl<'de> Visitor<'de> for TrueOrSection {
    type Value = Option<TraceSettings>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, or a section")
    }

    fn visit_bool<E>(self, print: bool) -> Result<Option<TraceSettings>, E> {
        Ok(Some(TraceSettings { print, files: None }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<TraceSettings>, A::Error> {
        let files = TraceFiles::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Some(TraceSettings { print: false, files: Some(files) }))
    }

    fn visit_str<E>(self, _: &str) -> Result<Option<TraceSettings>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<TraceSettings>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<TraceSettings>, E> {
        Ok(None)
    }
}
