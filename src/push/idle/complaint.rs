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

    /// A session's end, with the words if the end itself gives no reason.
    pub(super) fn explain(&self, end: Failure, has_worked: bool) -> Failure {
        let Some(words) = &self.0 else { return end };
        if !matches!(end, Failure::Silent | Failure::Bye(_)) {
            return end;
        }
        Failure::Complaint { words: words.to_string(), end: end.to_string(), has_worked }
    }
}
