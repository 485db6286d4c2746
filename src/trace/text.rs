//! A trace for a person: a line each with time, session, speaker, what was said, and what deltapush did with it.

use std::fmt::Write;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::record::{LinePart, Record, TraceEntry};
use super::{Mark, Speaker};
use crate::printable::{counted, push_printable};

/// Writes lines for a person.
#[derive(Debug, Default)]
pub struct Renderer {
    colours: bool,
    /// Each line names its account, because there are several.
    accounts: bool,
    /// The day of the last line.
    day: Option<Date>,
}

/// Escape sequences of a terminal (ECMA-48, section 8.3.117).
mod colour {
    pub(super) const CLIENT: &str = "\x1b[36m";
    pub(super) const TO_CLIENT: &str = "\x1b[32m";
    pub(super) const TO_UPSTREAM: &str = "\x1b[34m";
    pub(super) const UPSTREAM: &str = "\x1b[35m";
    pub(super) const OURS: &str = "\x1b[33m";
    pub(super) const DIM: &str = "\x1b[2m";
    pub(super) const NONE: &str = "\x1b[0m";
}

impl Renderer {
    /// A renderer of lines that name their account, without colours.
    #[must_use]
    pub fn new() -> Self {
        Self { accounts: true, ..Self::default() }
    }

    /// The same with colours or without, for a terminal.
    #[must_use]
    pub fn colours(self, colours: bool) -> Self {
        Self { colours, ..self }
    }

    /// The same for lines of one account, which need not name it.
    #[must_use]
    pub fn of_one_account(self) -> Self {
        Self { accounts: false, ..self }
    }

    /// The lines of one record, line ends included: its day first, if it is another than that of the record before.
    pub fn render(&mut self, record: &Record) -> String {
        let mut out = String::new();
        let day = record.time.to_zoned(TimeZone::UTC).date();
        if self.day.replace(day) != Some(day) {
            let _ =
                writeln!(out, "{}{day} (UTC){}", self.code(colour::DIM), self.code(colour::NONE));
        }
        let _ = write!(out, "{}{}", self.code(colour::DIM), record.time.strftime("%H:%M:%S%.3f"));
        if let Some(session) = record.session {
            let _ = write!(out, " {session}");
        }
        if let Some(account) = record.account.as_ref().filter(|_| self.accounts) {
            let _ = write!(out, " {account}");
        }
        out.push_str(self.code(colour::NONE));
        self.entry(&mut out, &record.entry);
        out.push('\n');
        out
    }

    fn entry(&self, out: &mut String, entry: &TraceEntry) {
        let (ours, none) = (self.code(colour::OURS), self.code(colour::NONE));
        match entry {
            TraceEntry::Said { speaker, mark, parts } => {
                let (label, colour) = match speaker {
                    Speaker::Client => ("C:", colour::CLIENT),
                    Speaker::ToClient => ("S:", colour::TO_CLIENT),
                    Speaker::ToUpstream => ("U>", colour::TO_UPSTREAM),
                    Speaker::Upstream => ("U<", colour::UPSTREAM),
                };
                let _ = write!(out, " {}{label} ", self.code(colour));
                parts.iter().for_each(|part| push_part(out, part));
                out.push_str(none);
                if let Some(note) = note(*mark) {
                    let _ = write!(out, "   {ours}[{note}]{none}");
                }
            }
            TraceEntry::Note(words) => {
                let _ = write!(out, " {ours}-- ");
                push_printable(out, words);
                out.push_str(none);
            }
            TraceEntry::Dropped(lines) => {
                let _ = write!(
                    out,
                    " {ours}-- {} {} dropped here: the reader is too slow{none}",
                    counted(*lines, "line"),
                    if *lines == 1 { "was" } else { "were" }
                );
            }
        }
    }

    fn code(&self, code: &'static str) -> &'static str {
        if self.colours { code } else { "" }
    }
}

fn note(mark: Mark) -> Option<&'static str> {
    match mark {
        Mark::Relayed => None,
        Mark::Kept => Some("kept by deltapush"),
        Mark::Replaced => Some("replaced by deltapush"),
        Mark::Changed => Some("changed by deltapush"),
        Mark::Own => Some("sent by deltapush"),
    }
}

fn push_part(out: &mut String, part: &LinePart) {
    // Writing to a string cannot fail.
    let _ = match part {
        LinePart::Text(text) => {
            push_printable(out, &String::from_utf8_lossy(text));
            Ok(())
        }
        LinePart::Masked(bytes) => write!(out, "<{bytes} bytes masked>"),
        LinePart::Literal { size, shown } if shown.is_empty() => write!(out, "<{size} bytes> "),
        LinePart::Literal { size, shown } => {
            let more = size.saturating_sub(shown.len() as u64);
            let _ = write!(out, "<{size} bytes: ");
            push_printable(out, &String::from_utf8_lossy(shown));
            if more > 0 { write!(out, "… {more} more> ") } else { write!(out, "> ") }
        }
        LinePart::Cut(bytes) => write!(out, "<{bytes} bytes more>"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountId;
    use crate::trace::SessionId;

    fn record(time: &str, entry: TraceEntry) -> Record {
        let account = Some(AccountId::new("al\x1b@example.org", "imap.example.org:993"));
        Record { time: time.parse().unwrap(), session: Some(SessionId::Watch(2)), account, entry }
    }

    fn said(mark: Mark, parts: Vec<LinePart>) -> TraceEntry {
        TraceEntry::Said { speaker: Speaker::Upstream, mark, parts }
    }

    #[test]
    fn person_sees_who_said_what_and_what_became_of_it() {
        let mut renderer = Renderer::new();
        let literal = |shown: &[u8]| LinePart::Literal { size: 5, shown: shown.to_vec() };
        let lines: String = [
            record(
                "2026-11-28T23:59:59.5Z",
                said(Mark::Replaced, vec![LinePart::Text(b"\x1b[2J \xc3\xa9\xff".to_vec())]),
            ),
            record(
                "2026-11-29T00:00:00Z",
                said(Mark::Relayed, vec![literal(b""), LinePart::Text(b")".to_vec())]),
            ),
            record(
                "2026-11-29T00:00:00Z",
                said(Mark::Own, vec![literal(b"a\r\n"), LinePart::Masked(3), LinePart::Cut(2)]),
            ),
            record("2026-11-29T00:00:00Z", TraceEntry::Note("it \x07 ended".into())),
            record("2026-11-29T00:00:00Z", TraceEntry::Dropped(4)),
        ]
        .iter()
        .map(|record| renderer.render(record))
        .collect();
        let who = "watch-2 al\\u{1b}@example.org";
        assert_eq!(
            lines,
            format!(
                "2026-11-28 (UTC)\n\
                 23:59:59.500 {who} U< \\u{{1b}}[2J é\u{fffd}   [replaced by deltapush]\n\
                 2026-11-29 (UTC)\n\
                 00:00:00.000 {who} U< <5 bytes> )\n\
                 00:00:00.000 {who} U< <5 bytes: a\\r\\n… 2 more> <3 bytes masked><2 bytes more>   [sent by deltapush]\n\
                 00:00:00.000 {who} -- it \\u{{7}} ended\n\
                 00:00:00.000 {who} -- 4 lines were dropped here: the reader is too slow\n"
            )
        );
    }

    #[test]
    fn colours_are_all_that_is_different_on_a_terminal() {
        let record = record(
            "2026-11-28T00:00:00Z",
            said(Mark::Kept, vec![LinePart::Text(b"* OK".to_vec())]),
        );
        let plain = Renderer::new().of_one_account().render(&record);
        let coloured = Renderer::new().of_one_account().colours(true).render(&record);
        assert_eq!(plain, "2026-11-28 (UTC)\n00:00:00.000 watch-2 U< * OK   [kept by deltapush]\n");
        assert!(coloured.matches('\x1b').count() > 4, "{coloured:?}");
        let without: String = coloured
            .split('\x1b')
            .map(|piece| piece.split_once('m').map_or(piece, |(_, rest)| rest))
            .collect();
        assert_eq!(without, plain);
    }
}
