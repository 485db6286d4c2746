//! Dialogues with a machine as text: one language for the tests of all machines.
//!
//! | line | meaning |
//! | --- | --- |
//! | `S: …` `C: …` | the mail server, the client sends this line; `\` at its end: no line end |
//! | `> …` `< …` | the mail server, the client gets this next |
//! | `(later 9m)` | time passes |
//! | `(…)` | another input, or an action, under the name that the machine's tests give it |
//!
//! In a line of the server `{…}` is a literal, and `|` a line end. Whatever the machine does must stand in the script, in its order.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Actions, Machine};

/// An input of a script.
pub(crate) enum Said<'a> {
    /// The beginning, before the first line.
    Begin,
    /// A line of the mail server, with its literals and its line end.
    Server(&'a [u8]),
    /// A line of the client, or a piece of it.
    Client(&'a [u8]),
    /// Time has passed.
    Later,
    /// `(…)`, without the parentheses.
    Event(&'a str),
}

/// A machine that can be in a script.
pub(crate) trait Scripted: Machine + Sized {
    /// The result that a dialogue may bring.
    type End;

    /// Gives the machine an input. Returns false for one that the machine does not have.
    fn hear(&mut self, said: Said<'_>, now: Instant, done: &mut Done<Self::End>) -> bool;

    /// Writes down an action.
    fn write(action: Self::Action<'_>, done: &mut Done<Self::End>);
}

/// The actions of a machine, as lines of a script.
pub(crate) struct Done<E> {
    lines: VecDeque<String>,
    end: Option<E>,
}

impl<E> Done<E> {
    /// These bytes were sent: `to` is `>` for the mail server and `<` for the client.
    pub(crate) fn sent(&mut self, to: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_suffix("\r\n").unwrap_or_else(|| panic!("no line end: {text:?}"));
        self.lines.extend(text.split("\r\n").map(|line| format!("{to} {line}")));
    }

    /// Something else was done.
    pub(crate) fn did(&mut self, name: &str) {
        self.lines.push_back(format!("({name})"));
    }

    /// The dialogue brought this.
    pub(crate) fn ends(&mut self, end: E) {
        self.end = Some(end);
    }
}

impl<M: Scripted> Actions<M> for Done<M::End> {
    fn push(&mut self, action: M::Action<'_>) {
        M::write(action, self);
    }
}

/// A dialogue under way.
pub(crate) struct Player<M: Scripted> {
    pub(crate) machine: M,
    pub(crate) now: Instant,
    done: Done<M::End>,
    step: usize,
}

impl<M: Scripted> Player<M> {
    /// Begins at `now`.
    pub(crate) fn new(mut machine: M, now: Instant) -> Self {
        let mut done = Done { lines: VecDeque::new(), end: None };
        machine.hear(Said::Begin, now, &mut done);
        Self { machine, now, done, step: usize::MAX }
    }

    /// The same with a client whose lines come byte by byte.
    pub(crate) fn bytewise(self) -> Self {
        Self { step: 1, ..self }
    }

    /// Plays the lines of a script, which may be a part of it.
    pub(crate) fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
            let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
            match kind {
                "S:" => self.hears(line, Said::Server(&with_literals(text))),
                "C:" => {
                    let bytes = match text.strip_suffix('\\') {
                        Some(part) => part.as_bytes().to_vec(),
                        None => format!("{text}\r\n").into_bytes(),
                    };
                    for piece in bytes.chunks(self.step.min(bytes.len()).max(1)) {
                        self.hears(line, Said::Client(piece));
                    }
                }
                "(later" => {
                    self.now += humantime::parse_duration(text.trim_end_matches(')')).unwrap();
                    self.hears(line, Said::Later);
                }
                _ => self.expects(line),
            }
        }
    }

    fn hears(&mut self, line: &str, said: Said<'_>) {
        assert!(self.done.lines.is_empty(), "before {line:?}: {:?}", self.done.lines);
        assert!(self.machine.hear(said, self.now, &mut self.done), "not understood: {line:?}");
    }

    /// The next action; or an input, if there is none.
    fn expects(&mut self, line: &str) {
        if let Some(next) = self.done.lines.pop_front() {
            return assert_eq!(next.trim_end(), line.trim_end());
        }
        let name = line.trim_end().strip_prefix('(').and_then(|name| name.strip_suffix(')'));
        let name = name.unwrap_or_else(|| panic!("nothing was done at {line:?}"));
        self.hears(line, Said::Event(name));
    }

    /// Everything that the machine did was in the script. Returns what it brought.
    pub(crate) fn end(self) -> (M, Option<M::End>) {
        assert!(self.done.lines.is_empty(), "left over: {:?}", self.done.lines);
        (self.machine, self.done.end)
    }
}

/// A line of the server: `{text}` is a literal, `|` a line end.
pub(crate) fn with_literals(text: &str) -> Vec<u8> {
    let mut line = String::new();
    for (index, part) in text.split(['{', '}']).enumerate() {
        let part = part.replace('|', "\r\n");
        if index % 2 == 1 {
            line += &format!("{{{}}}\r\n", part.len());
        }
        line += &part;
    }
    (line + "\r\n").into_bytes()
}
