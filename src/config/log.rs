//! Level and format of the log.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The section `log`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogSettings {
    #[serde(deserialize_with = "level")]
    pub(super) level: String,
    pub(super) format: LogFormat,
}

/// Format and destination of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people, on standard error.
    #[default]
    Text,
    /// One object of JSON in each line, on standard error.
    Json,
    /// To systemd's journal, with fields.
    Journal,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    // EnvFilter takes a word that is no level for the name of a part: `inof` would silence all but a part called so.
    let is_level = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    if text.split(',').all(is_level) && EnvFilter::try_new(&text).is_ok() {
        return Ok(text);
    }
    Err(D::Error::custom(format!(
        "{text:?} is not a log level: error, warn, info, debug or trace, also per part as in `info,deltapush::push=debug`"
    )))
}
