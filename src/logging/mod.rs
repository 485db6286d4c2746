//! The log: one line for each event that an operator can act on, in the form that the configuration asks for.

mod escape;
mod limit;

use std::io;
use std::time::Duration;

use tokio::time::interval;

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::LogFormat;
use crate::printable::has_colours;
pub use limit::LogLimit;

/// Interval of reports on lines that were left out.
const TELL: Duration = Duration::from_secs(60);

/// The prefix of fields in systemd's journal: `DELTAPUSH_ACCOUNT`, `DELTAPUSH_SESSION`.
const PREFIX: &str = "DELTAPUSH";

/// Failure to start the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is none. It was checked when the configuration was read.
    #[error("cannot set up logging: {0}")]
    Level(#[from] ParseError),
    /// systemd's journal does not answer.
    #[error(
        "cannot connect to systemd's journal: {0}; on a machine without systemd, set `log.format: text`"
    )]
    Journal(#[source] io::Error),
    /// There is one already.
    #[error("cannot set up logging: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// The log of this process.
#[derive(Debug, Clone)]
pub struct LogHandle {
    level: reload::Handle<EnvFilter, Registry>,
    limit: LogLimit,
}

/// The subscriber below the writing layer.
type BoundedLayers = Layered<LogLimit, Layered<reload::Layer<EnvFilter, Registry>, Registry>>;

impl LogHandle {
    /// Begins to write on standard error, or to the journal.
    ///
    /// # Errors
    /// [`LogError`]; only the journal is the operator's to mend.
    pub fn start(format: LogFormat, level: &str) -> Result<Self, LogError> {
        let (filter, handle) = reload::Layer::new(EnvFilter::try_new(level)?);
        let limit = LogLimit::default();
        let bounded = tracing_subscriber::registry().with(filter).with(limit.clone());
        bounded.with(output(format)?).try_init()?;
        Ok(Self { level: handle, limit })
    }

    /// Sets another level. It was checked when the configuration was read: `false` is a bug.
    #[must_use]
    pub fn set_level(&self, level: &str) -> bool {
        EnvFilter::try_new(level).is_ok_and(|filter| self.level.reload(filter).is_ok())
    }

    /// The limit of the log.
    #[must_use]
    pub fn limit(&self) -> &LogLimit {
        &self.limit
    }

    /// Logs periodically which lines were left out, for as long as it is polled.
    pub async fn report_left_out(self) {
        let mut minutes = interval(TELL);
        loop {
            minutes.tick().await;
            self.limit.report();
        }
    }
}

fn output(format: LogFormat) -> Result<Box<dyn Layer<BoundedLayers> + Send + Sync>, LogError> {
    Ok(match format {
        LogFormat::Text => {
            let has_colours = has_colours(&io::stderr());
            let writer = escape::Escaping { inner: io::stderr, has_colours };
            Box::new(fmt::layer().with_writer(writer).with_ansi(has_colours))
        }
        LogFormat::Json => {
            Box::new(fmt::layer().json().flatten_event(true).with_writer(io::stderr))
        }
        LogFormat::Journal => Box::new(journal().map_err(LogError::Journal)?),
    })
}

/// Maps levels to the priorities that users of journalctl expect: the crate's default maps info to "notice".
fn journal() -> io::Result<tracing_journald::Layer> {
    use tracing_journald::{Priority, PriorityMappings};
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let layer = tracing_journald::layer()?.with_field_prefix(Some(PREFIX.to_owned()));
    Ok(layer.with_syslog_identifier("deltapush".to_owned()).with_priority_mappings(priorities))
}
