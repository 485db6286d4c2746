//! Responses to commands that are masked in part: a server may repeat in its response what it did not understand.

use std::collections::VecDeque;

use super::Mark;
use super::record::LinePart;
use crate::parser::command::Disclosure;

/// Commands whose answers are awaited. With more of them, answers to the oldest are masked.
const MAX_AWAITED: usize = 64;

/// The commands of a client that were not answered yet, and how much of each may be shown.
///
/// Only what is known to be harmless is shown: the answer to a command that was never seen, because nobody followed then, is masked.
#[derive(Default)]
pub(super) struct PendingAnswers {
    awaited: VecDeque<(Box<[u8]>, Disclosure)>,
    /// The last command was not shown as a whole. Its data may still be on its way when the server has answered.
    hides_last: bool,
}

impl PendingAnswers {
    /// A command with this tag begins.
    pub(super) fn command(&mut self, tag: &[u8], disclosure: Disclosure) {
        if self.awaited.len() >= MAX_AWAITED {
            self.awaited.pop_front();
        }
        self.awaited.push_back((tag.into(), disclosure));
        self.hides_last = disclosure != Disclosure::All;
    }

    /// Masks in a line for the client what may repeat a command: its words, and the tag of what is no known command. deltapush's
    /// own words repeat nothing but the tag.
    pub(super) fn mask(&mut self, mark: Mark, is_last: bool, parts: &mut Vec<LinePart>) {
        let Some(LinePart::Text(text)) = parts.first() else { return };
        let (tag, rest) = word(text);
        let (condition, words) = word(rest);
        let is_status = is_condition(condition);
        let disclosure = match tag {
            b"*" if !is_status => return,
            b"*" if self.hides() => Disclosure::Head,
            b"*" => Disclosure::All,
            // It answers the command under way, whichever that is.
            _ if tag.starts_with(b"+") && (self.awaited.is_empty() || self.hides()) => {
                Disclosure::Head
            }
            _ if tag.starts_with(b"+") => Disclosure::All,
            _ if !is_status && !condition.starts_with(b"+") => return,
            tag => self.disclosure(tag, is_last && is_status),
        };
        let shown_from = if disclosure == Disclosure::Nothing { tag.len() } else { 0 };
        let words = if tag.starts_with(b"+") {
            text.len().min(1)
        } else {
            text.len().saturating_sub(words.len())
        };
        let shown_to =
            if disclosure == Disclosure::All || mark == Mark::Own { text.len() } else { words };
        mask_outside(parts, shown_from, shown_to);
    }

    /// Reports if a server's line may concern a command that was not shown as a whole.
    fn hides(&self) -> bool {
        self.hides_last || self.awaited.iter().any(|(_, disclosure)| *disclosure != Disclosure::All)
    }

    /// The part of the answer to the command with this tag that may be shown. `ends`: it is the last answer.
    fn disclosure(&mut self, tag: &[u8], ends: bool) -> Disclosure {
        let same = self.awaited.iter().filter(|(awaited, _)| **awaited == *tag);
        let disclosure =
            same.map(|(_, disclosure)| *disclosure).min().unwrap_or(Disclosure::Nothing);
        if let Some(index) = self.awaited.iter().position(|(awaited, _)| ends && **awaited == *tag)
        {
            self.awaited.remove(index);
        }
        disclosure
    }
}

fn is_condition(word: &[u8]) -> bool {
    [&b"OK"[..], b"NO", b"BAD", b"BYE"].iter().any(|condition| condition.eq_ignore_ascii_case(word))
}

/// The first word of `text`, and what follows the space after it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end).unwrap_or((text, &[]));
    (word, rest.strip_prefix(b" ").unwrap_or(rest))
}

/// Leaves of a line the bytes `from..to` of its first text; if that is all of the text, what follows too.
fn mask_outside(parts: &mut Vec<LinePart>, from: usize, to: usize) {
    let Some(LinePart::Text(text)) = parts.first_mut() else { return };
    let shows_rest = to >= text.len();
    let after: u64 = text.len().saturating_sub(to) as u64;
    text.truncate(to);
    text.drain(..from.min(to));
    let rest = parts.split_off(1);
    if from > 0 {
        parts.insert(0, LinePart::Masked(from as u64));
    }
    if shows_rest {
        return parts.extend(rest);
    }
    let of_rest = rest.iter().map(|part| match part {
        LinePart::Text(text) => text.len() as u64,
        LinePart::Masked(size) | LinePart::Cut(size) | LinePart::Literal { size, .. } => *size,
    });
    parts.push(LinePart::Masked(of_rest.fold(after, u64::saturating_add)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(answers: &mut PendingAnswers, mark: Mark, line: &str) -> String {
        let mut parts = vec![LinePart::Text(line.into())];
        answers.mask(mark, true, &mut parts);
        let shown = parts.iter().map(|part| match part {
            LinePart::Text(text) => String::from_utf8(text.clone()).unwrap(),
            LinePart::Masked(bytes) => format!("<{bytes}>"),
            other => panic!("{other:?}"),
        });
        shown.collect()
    }

    #[test]
    fn answers_show_no_more_than_their_commands() {
        let mut answers = PendingAnswers::default();
        answers.command(b"a", Disclosure::All);
        assert_eq!(shown(&mut answers, Mark::Relayed, "* NO [ALERT] x"), "* NO [ALERT] x");
        answers.command(b"b", Disclosure::Head);
        answers.command(b"sesame", Disclosure::Nothing);
        for (mark, line, expected) in [
            (Mark::Relayed, "* NO what is b?", "* NO <10>"),
            (Mark::Relayed, "* 1 FETCH (UID 1)", "* 1 FETCH (UID 1)"),
            (Mark::Own, "* BYE the end", "* BYE the end"),
            (Mark::Relayed, "+ sesame", "+<7>"),
            (Mark::Relayed, "b + sesame", "b + <6>"),
            (Mark::Relayed, "a NO [TRYCREATE] no such mailbox", "a NO [TRYCREATE] no such mailbox"),
            (Mark::Relayed, "b BAD what is sesame?", "b BAD <15>"),
            (Mark::Own, "sesame BAD what is it?", "<6> BAD what is it?"),
            // Never seen, or answered before.
            (Mark::Relayed, "b OK done", "<1> OK <4>"),
            (Mark::Relayed, "+ go on", "+<6>"),
        ] {
            assert_eq!(shown(&mut answers, mark, line), expected, "{line}");
        }
        answers.command(b"c", Disclosure::All);
        assert_eq!(shown(&mut answers, Mark::Relayed, "+ idling"), "+ idling");
    }

    #[test]
    fn answers_to_more_than_are_awaited_are_masked() {
        let mut answers = PendingAnswers::default();
        for number in 0..=MAX_AWAITED {
            answers.command(number.to_string().as_bytes(), Disclosure::All);
        }
        assert_eq!(shown(&mut answers, Mark::Relayed, "0 OK done"), "<1> OK <4>");
        assert_eq!(shown(&mut answers, Mark::Relayed, "1 OK done"), "1 OK done");
    }
}
