//! One event, one line: control characters that came from a peer are escaped on the way to standard error.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use crate::printable::push_printable;

/// Begins an escape sequence of a terminal.
const ESCAPE: char = '\u{1b}';

/// Writes events as text, which comes with one call for each event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Escaping<W> {
    /// Makes what is written to.
    pub(super) inner: W,
    /// The formatter colours what it writes. No other escape sequence passes.
    pub(super) has_colours: bool,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = Escaping<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaping { inner: self.inner.make_writer(), has_colours: self.has_colours }
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.inner.write_all(escaped(event, self.has_colours).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn escaped(event: &[u8], has_colours: bool) -> String {
    let event = String::from_utf8_lossy(event);
    let (line, end) = event.strip_suffix('\n').map_or((&*event, ""), |line| (line, "\n"));
    let mut out = String::with_capacity(event.len());
    for (number, piece) in line.split(ESCAPE).enumerate() {
        match piece {
            _ if number == 0 => {}
            colour if has_colours && is_colour(colour) => out.push(ESCAPE),
            _ => out.push_str("\\u{1b}"),
        }
        push_printable(&mut out, piece);
    }
    out + end
}

/// Reports if the text after the escape character only sets a colour, as the formatter does.
fn is_colour(sequence: &str) -> bool {
    let parameters = sequence.strip_prefix('[').and_then(|rest| rest.split_once('m'));
    parameters.is_some_and(|(parameters, _)| {
        parameters.bytes().all(|byte| byte.is_ascii_digit() || byte == b';')
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(has_colours: bool, words: &str) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let inner = move || writer.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(has_colours)
            .with_writer(Escaping { inner, has_colours });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::debug!(field = %words, "the mail server said: {words}");
        });
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn event_is_one_line_whatever_a_peer_says() {
        for has_colours in [false, true] {
            let line = logged(has_colours, "no\r2026 INFO all is well\n\x07\x1b[2J\u{9b}1m é");
            let text = line.strip_suffix('\n').unwrap();
            let controls: Vec<char> =
                text.chars().filter(|character| character.is_control()).collect();
            assert!(controls.iter().all(|control| has_colours && *control == ESCAPE), "{line:?}");
            assert!(
                text.contains("no\\r2026 INFO all is well\\n") && text.contains('é'),
                "{line:?}"
            );
            assert!(!text.contains("\x1b[2J"), "{line:?}");
        }
    }
}
