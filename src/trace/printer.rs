//! The transcript as lines for a person.

use super::{Mark, Piece, Sink, Speaker, Transcript};

/// The longest line that is shown, in bytes; what goes beyond is counted.
const MAX_LINE: usize = 4096;

/// Writes a session's transcript, a line each: time, session, speaker, what was said, and what deltapush did with it.
pub struct Printer {
    session: String,
    sink: Sink,
    /// Boxed: a session has a place for its printer whether it has one or not.
    lines: Box<[Line; 4]>,
}

#[derive(Default)]
struct Line {
    text: String,
    /// Bytes of a literal that are not yet in `text`: its pieces are added up.
    literal: usize,
    /// Bytes masked one after the other, likewise.
    masked: usize,
    /// Bytes beyond [`MAX_LINE`].
    cut: usize,
}

impl Printer {
    /// A printer for the session that is called `session`.
    #[must_use]
    pub fn new(session: String, sink: Sink) -> Self {
        Self { session, sink, lines: Default::default() }
    }

    fn write(&self, speaker: Speaker, mark: Mark, text: &str) {
        let time = jiff::Timestamp::now().strftime("%H:%M:%S%.3f");
        let label = match speaker {
            Speaker::Client => "C:",
            Speaker::ToClient => "S:",
            Speaker::ToUpstream => "U>",
            Speaker::Upstream => "U<",
        };
        let note = match mark {
            Mark::Relayed => "",
            Mark::Kept => "   [kept by deltapush]",
            Mark::Changed => "   [changed by deltapush]",
            Mark::Own => "   [said by deltapush]",
        };
        self.sink.line(format!("{time} {} {label} {text}{note}", self.session));
    }
}

impl Transcript for Printer {
    fn piece(&mut self, speaker: Speaker, mark: Mark, piece: Piece<'_>) {
        let index = speaker as usize;
        let Some(line) = self.lines.get_mut(index) else { return };
        match piece {
            Piece::Text(text) => {
                line.settle();
                line.push(text);
                if text.ends_with(b"\n") {
                    let line = std::mem::take(line).finished();
                    self.write(speaker, mark, &line);
                }
            }
            Piece::Masked(bytes) => line.masked = line.masked.saturating_add(bytes),
            Piece::Literal(bytes) => line.literal = line.literal.saturating_add(bytes),
        }
    }
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        let text = text.strip_suffix(b"\n").map_or(text, |text| text.strip_suffix(b"\r").unwrap_or(text));
        let room = MAX_LINE.saturating_sub(self.text.len());
        let (shown, cut) = text.split_at_checked(room).unwrap_or((text, &[]));
        self.cut = self.cut.saturating_add(cut.len());
        // A terminal obeys control characters: they are shown, not sent.
        for character in String::from_utf8_lossy(shown).chars() {
            if character.is_control() {
                self.text.extend(character.escape_default());
            } else {
                self.text.push(character);
            }
        }
    }

    /// Puts what was counted into words.
    fn settle(&mut self) {
        let literal = std::mem::take(&mut self.literal);
        if literal > 0 && self.text.len() < MAX_LINE {
            self.text.push_str(&format!("<{literal} bytes> "));
        }
        let masked = std::mem::take(&mut self.masked);
        if masked > 0 && self.text.len() < MAX_LINE {
            self.text.push_str(&format!("<{masked} bytes masked>"));
        }
    }

    fn finished(mut self) -> String {
        if self.cut > 0 {
            self.text.push_str(&format!("<{} bytes more>", self.cut));
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shown;
    use super::*;

    fn printed(pieces: &[(Speaker, Mark, Piece<'_>)]) -> Vec<String> {
        let shown = Shown::default();
        let mut printer = Printer::new("#1".into(), shown.sink());
        for (speaker, mark, piece) in pieces {
            printer.piece(*speaker, *mark, *piece);
        }
        drop(printer);
        shown.text().lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn a_line_stands_together_whatever_the_pieces() {
        use Speaker::{Client, ToClient};
        let lines = printed(&[
            (Client, Mark::Relayed, Piece::Text(b"a AP")),
            (ToClient, Mark::Own, Piece::Text(b"* OK hi\r\n")),
            (Client, Mark::Relayed, Piece::Text(b"PEND x {5}\r\n")),
            (Client, Mark::Relayed, Piece::Literal(2)),
            (Client, Mark::Relayed, Piece::Literal(3)),
            (Client, Mark::Relayed, Piece::Text(b"\r\n")),
            (Client, Mark::Kept, Piece::Text(b"b LOGIN ")),
            (Client, Mark::Kept, Piece::Masked(7)),
            (Client, Mark::Kept, Piece::Text(b"\r\n")),
        ]);
        assert_eq!(
            lines,
            [
                "#1 S: * OK hi   [said by deltapush]",
                "#1 C: a APPEND x {5}",
                "#1 C: <5 bytes> ",
                "#1 C: b LOGIN <7 bytes masked>   [kept by deltapush]",
            ]
        );
    }

    #[test]
    fn a_line_is_bounded_and_harmless_to_a_terminal() {
        let long = [b'x'; 5000];
        let lines = printed(&[
            (Speaker::Client, Mark::Relayed, Piece::Text(b"\x1b[2J\0\r\n")),
            (Speaker::Client, Mark::Relayed, Piece::Text(&long)),
            (Speaker::Client, Mark::Relayed, Piece::Text(b"\n")),
        ]);
        assert_eq!(lines[0], "#1 C: \\u{1b}[2J\\u{0}");
        assert!(lines[1].ends_with("x<904 bytes more>"), "{}", lines[1]);
    }
}
