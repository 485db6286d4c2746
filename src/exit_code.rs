//! The end of the process: a text for people, and a number for scripts.

use deltapush::RunError;
use deltapush::admin::control::AskError;
use deltapush::commands::trace::TraceError;
use deltapush::commands::{CommandError, Fault, Unfulfilled};
use deltapush::config::ConfigError;
use deltapush::logging::LogError;
use deltapush::store::OpenError;

// From sysexits.h, which systemd shows by name.
pub(crate) const EX_USAGE: u8 = 64;
pub(crate) const EX_DATAERR: u8 = 65;
pub(crate) const EX_UNAVAILABLE: u8 = 69;
pub(crate) const EX_SOFTWARE: u8 = 70;
pub(crate) const EX_OSERR: u8 = 71;
pub(crate) const EX_IOERR: u8 = 74;
pub(crate) const EX_TEMPFAIL: u8 = 75;
pub(crate) const EX_CONFIG: u8 = 78;

/// Formats an error: deltapush's own contain their causes; others are printed as a chain.
pub(crate) fn error_text(error: &anyhow::Error) -> String {
    let own = error.is::<ConfigError>()
        || error.is::<RunError>()
        || error.is::<OpenError>()
        || error.is::<AskError>()
        || error.is::<CommandError>()
        || error.is::<LogError>()
        || error.is::<TraceError>();
    if own { error.to_string() } else { format!("{error:#}") }
}

pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<RunError>() {
        Some(RunError::Certificate(_) | RunError::Trust(_) | RunError::Password(_)) => EX_CONFIG,
        Some(RunError::State(_)) => EX_IOERR,
        Some(RunError::Internal(_)) => EX_SOFTWARE,
        Some(
            RunError::Listen { .. } | RunError::Notifier(_) | RunError::Random | RunError::Trace(_),
        ) => EX_OSERR,
        None if error.is::<CommandError>() => error.downcast_ref().map_or(EX_OSERR, exit_code_of),
        None if error.is::<ConfigError>() => EX_CONFIG,
        None if error.is::<OpenError>() => EX_IOERR,
        None if error.is::<AskError>() => EX_UNAVAILABLE,
        None if error.is::<LogError>() => EX_CONFIG,
        None if error.is::<Unfulfilled>() => EX_TEMPFAIL,
        None if matches!(error.downcast_ref(), Some(TraceError::Ask(_) | TraceError::Ended)) => {
            EX_UNAVAILABLE
        }
        None if matches!(
            error.downcast_ref(),
            Some(TraceError::Malformed { .. } | TraceError::TooLong(_))
        ) =>
        {
            EX_DATAERR
        }
        None => EX_OSERR,
    }
}

fn exit_code_of(refusal: &CommandError) -> u8 {
    match refusal.fault {
        Fault::Usage => EX_USAGE,
        Fault::Configuration => EX_CONFIG,
        Fault::Unavailable => EX_UNAVAILABLE,
        Fault::System => EX_OSERR,
    }
}
