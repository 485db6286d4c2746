//! The server's own words about what goes wrong: the last untagged NO, BAD or alert of a watching session.

use super::terms::Failure;
use crate::parser::response::{Condition, Status};
use crate::upstream::refusal;

/// The last words, until a command succeeds.
#[derive(Debug, Default)]
pub(super) struct Complaint(Option<Box<str>>);

impl Complaint {
    /// Records an untagged status response, and forgets the words once a command has succeeded.
    pub(super) fn record(&mut self, status: Status<'_>) {
        if refusal::is_complaint(status) {
            let words = refusal::words(status);
            self.0 = (!words.is_empty()).then(|| words.into());
        } else if status.tag.is_some() && status.condition == Condition::Ok {
            self.0 = None;
        }
    }

    /// Records the server's last words in a session that is over.
    pub(super) fn record_last(&mut self, status: Status<'_>) {
        let is_goodbye = status.tag.is_none() && status.condition == Condition::Bye;
        let words = refusal::words(status);
        if (is_goodbye || refusal::is_complaint(status)) && !words.is_empty() {
            self.0 = Some(words.into());
        }
    }

    /// The server's words for a refused command: those of its answer, and those before it if it says something else there.
    /// Empty for one that succeeded.
    pub(super) fn with_answer(&self, answer: Status<'_>) -> String {
        if answer.condition == Condition::Ok {
            return String::new();
        }
        let words = refusal::words(answer);
        match self.0.as_deref().filter(|before| *before != words) {
            Some(before) if words.is_empty() => before.to_owned(),
            Some(before) => format!("{words} (before it: {before})"),
            None => words,
        }
    }

    /// A session's end with the words, unless it has them already.
    pub(super) fn explain(&self, end: Failure, has_worked: bool) -> Failure {
        let Some(words) = self.0.as_deref() else { return end };
        let complaint = |end: String| Failure::Complaint { words: words.to_owned(), end, has_worked };
        let also = |text: String| match text.as_str() {
            "" => words.to_owned(),
            known if known.contains(words) => text,
            known => format!("{known}; it also said: {words}"),
        };
        match end {
            Failure::Bye(text) if text == words => complaint("it closed the session".into()),
            Failure::Bye(_) | Failure::Silent => complaint(end.to_string()),
            Failure::Chatter(text) => Failure::Chatter(also(text)),
            Failure::NoMailbox(text) => Failure::NoMailbox(also(text)),
            Failure::NoIdle(text) => Failure::NoIdle(also(text)),
            Failure::IdleRefused(text) => Failure::IdleRefused(also(text)),
            Failure::NoFetch(text) => Failure::NoFetch(also(text)),
            Failure::Complaint { .. } => end,
        }
    }

    /// The end of a connection that broke, or could not be read on; `None` if the server had not complained.
    pub(super) fn explain_break(&self, end: String, has_worked: bool) -> Option<Failure> {
        let words = self.0.as_deref()?.to_owned();
        Some(Failure::Complaint { words, end, has_worked })
    }
}
