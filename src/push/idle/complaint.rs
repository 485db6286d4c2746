//! The mail server's own words about trouble: the last untagged NO, BAD or alert of a watch session.

use super::types::IdleFailure;
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
    pub(super) fn explain(&self, end: IdleFailure, has_worked: bool) -> IdleFailure {
        let Some(words) = self.0.as_deref() else { return end };
        let complaint =
            |end: String| IdleFailure::Complaint { words: words.to_owned(), end, has_worked };
        let also = |text: String| match text.as_str() {
            "" => words.to_owned(),
            known if known.contains(words) => text,
            known => format!("{known}; the mail server also said: {words}"),
        };
        match end {
            IdleFailure::Bye(text) if text == words => complaint("it closed the session".into()),
            IdleFailure::Bye(_) | IdleFailure::Silent => complaint(end.to_string()),
            IdleFailure::Chatter(text) => IdleFailure::Chatter(also(text)),
            IdleFailure::NoMailbox(text) => IdleFailure::NoMailbox(also(text)),
            IdleFailure::NoIdle(text) => IdleFailure::NoIdle(also(text)),
            IdleFailure::IdleRefused(text) => IdleFailure::IdleRefused(also(text)),
            IdleFailure::NoFetch(text) => IdleFailure::NoFetch(also(text)),
            IdleFailure::Complaint { .. } => end,
        }
    }

    /// The end of a connection that broke, or could not be read on; `None` if the server had not complained.
    pub(super) fn explain_break(&self, end: String, has_worked: bool) -> Option<IdleFailure> {
        let words = self.0.as_deref()?.to_owned();
        Some(IdleFailure::Complaint { words, end, has_worked })
    }
}
