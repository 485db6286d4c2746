//! Findings about a deltapush: facts are collected from the system and judged without I/O. `check`, `init` and `doctor` show them.

pub(super) mod accounts;
pub(super) mod certificate;
mod command;
pub(super) mod database;
pub(super) mod dovecot;
pub(super) mod listen;
pub(super) mod name;
pub(super) mod news;
pub(super) mod outside;
pub(super) mod push;
pub(super) mod route;
pub(super) mod service;
pub(super) mod state;
pub(super) mod systemd;

use super::{CommandError, Fault};
use crate::admin::layout::Layout;

/// Columns of the verdict and the subject.
const START: usize = 19;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// The part that was checked, in the words of `check`.
    pub(super) subject: &'static str,
    /// The finding, without a full stop.
    pub(super) words: String,
    /// The remedy.
    pub(super) remedy: Option<String>,
}

/// The verdict on one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    /// Something may fail for some people, or later.
    Warn,
    /// It does not work.
    Fail(Fault),
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail(_) => "fail",
        }
    }
}

impl Finding {
    pub(super) fn ok(subject: &'static str, words: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, subject, words: words.into(), remedy: None }
    }

    pub(super) fn warn(
        subject: &'static str,
        words: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { verdict: Verdict::Warn, subject, words: words.into(), remedy }
    }

    pub(super) fn fail(
        fault: Fault,
        subject: &'static str,
        words: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { verdict: Verdict::Fail(fault), subject, words: words.into(), remedy }
    }

    pub(super) fn is_failure(&self) -> bool {
        matches!(self.verdict, Verdict::Fail(_))
    }

    /// The finding in lines, the remedy below it.
    pub(super) fn text(&self, layout: Layout) -> String {
        let start = format!("{:6}{:13}", self.verdict.as_str(), self.subject);
        let words = layout.indented(&start, &super::printable(&self.words), START);
        let indent = " ".repeat(START);
        let remedy = self.remedy.as_ref().map(|remedy| {
            layout.indented(&indent, &super::printable(&format!("→ {remedy}")), START + 2)
        });
        words + &remedy.unwrap_or_default()
    }
}

/// The outcome of all findings.
///
/// # Errors
/// The fault of the first failure.
pub(super) fn outcome(findings: &[Finding]) -> Result<(), CommandError> {
    let failures: Vec<_> = findings.iter().filter(|finding| finding.is_failure()).collect();
    let fault = failures.iter().find_map(|finding| match finding.verdict {
        Verdict::Fail(fault) => Some(fault),
        _ => None,
    });
    let Some(fault) = fault else { return Ok(()) };
    let mut subjects: Vec<_> = failures.iter().map(|finding| finding.subject).collect();
    subjects.dedup();
    Err(fault.because(format!("deltapush does not work as it should: {}", subjects.join(", "))))
}

/// Items as a list for a sentence.
pub(super) fn listed(items: &[impl ToString]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    match items.as_slice() {
        [] => "none".to_owned(),
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        [one, ..] => one.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_is_a_line_with_its_remedy_below() {
        let long = "does not answer at 203.0.113.7 (tried from this machine): connection refused";
        let finding = Finding::fail(Fault::Unavailable, "listen", long, "open the port");
        let layout = Layout { long: false, width: Some(60) };
        assert_eq!(
            finding.text(layout),
            "fail  listen       does not answer at 203.0.113.7 (tried\n\
             \x20                  from this machine): connection refused\n\
             \x20                  → open the port\n"
        );
        let wide = Layout { long: false, width: None };
        assert_eq!(Finding::ok("clock", "is right").text(wide), "ok    clock        is right\n");
    }

    #[test]
    fn first_failure_gives_the_exit_code() {
        let warn = Finding::warn("route", "a", "b");
        assert!(outcome(&[Finding::ok("state", "a"), warn.clone()]).is_ok());
        let failures = [
            warn,
            Finding::fail(Fault::Unavailable, "listen", "a", "b"),
            Finding::fail(Fault::Unavailable, "listen", "a", "b"),
            Finding::fail(Fault::System, "state", "a", "b"),
        ];
        let error = outcome(&failures).unwrap_err();
        assert_eq!(error.fault, Fault::Unavailable);
        assert!(error.message.ends_with(": listen, state"), "{}", error.message);
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(listed(&[1]), "1");
        assert_eq!(listed(&[1, 2, 3]), "1, 2 and 3");
        assert_eq!(listed(&[0u8; 0]), "none");
    }
}
