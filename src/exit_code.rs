//! The end of the process: a text for people, and a number for scripts.

use deltapush::RunError;
use deltapush::admin::control::AskError;
use deltapush::cluster::shared::SharedError;
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
pub(crate) const EX_NOPERM: u8 = 77;
pub(crate) const EX_CONFIG: u8 = 78;

/// Codes of `run` after which a restart changes nothing: the service unit names them in `RestartPreventExitStatus`. The other
/// reasons may pass: a port that is in use, a full disk, another deltapush that has not ended yet, a bug.
#[cfg(test)]
const WITHOUT_RESTART: [u8; 3] = [EX_USAGE, EX_IOERR, EX_CONFIG];

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
        Some(
            RunError::Certificate(_)
            | RunError::Trust(_)
            | RunError::Password(_)
            | RunError::Trace(_),
        ) => EX_CONFIG,
        Some(RunError::State(error)) if error.may_pass() => EX_TEMPFAIL,
        Some(RunError::Shared(SharedError::Store(_))) => EX_TEMPFAIL,
        Some(RunError::State(_) | RunError::Shared(_)) => EX_IOERR,
        Some(RunError::Internal(_)) => EX_SOFTWARE,
        Some(RunError::Listen { .. } | RunError::Notifier(_) | RunError::Random) => EX_OSERR,
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
        Fault::Data => EX_DATAERR,
        Fault::Later => EX_TEMPFAIL,
        Fault::Permission => EX_NOPERM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From this number on exit codes are systemd's own (systemd.exec(5)).
    const SYSTEMD: u8 = 200;

    #[test]
    fn service_unit_restarts_where_it_may_help() {
        let unit = include_str!("../contrib/systemd/deltapush.service");
        let codes =
            unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).unwrap();
        let codes = codes.split(' ').map(|code| code.parse().unwrap());
        let ours: Vec<u8> = codes.filter(|code| *code < SYSTEMD).collect();
        assert_eq!(ours, WITHOUT_RESTART);
    }

    #[test]
    fn start_is_worth_another_try_only_where_the_reason_may_pass() {
        let code = |error: RunError| exit_code(&error.into());
        let io = |kind: std::io::ErrorKind| {
            RunError::State(OpenError::Io { path: "state".into(), source: kind.into() })
        };
        for (error, expected) in [
            (RunError::State(OpenError::DiskFull), EX_TEMPFAIL),
            (RunError::State(OpenError::InUse { path: "state".into() }), EX_TEMPFAIL),
            (io(std::io::ErrorKind::StorageFull), EX_TEMPFAIL),
            (io(std::io::ErrorKind::PermissionDenied), EX_IOERR),
            (RunError::State(OpenError::KeyMissing { path: "seal.key".into() }), EX_IOERR),
            (RunError::Trace(std::io::ErrorKind::PermissionDenied.into()), EX_CONFIG),
            (RunError::Internal("a part ended"), EX_SOFTWARE),
        ] {
            let text = error.to_string();
            assert_eq!(code(error), expected, "{text}");
        }
        // For a command it is the answer; the operator decides.
        assert_eq!(exit_code(&OpenError::DiskFull.into()), EX_IOERR);
    }
}
