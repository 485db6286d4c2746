//! Dialogues with a machine as text: one language for the tests of all machines that have dialogues.
//!
//! | line | meaning |
//! | --- | --- |
//! | `S: …` `C: …` | the mail server, the client sends this line |
//! | `> …` `< …` | the mail server, the client gets exactly this next |
//! | `(later 9m)` | time passes |
//! | `(…)` | an action; or another input, if there is no action left. Each machine's tests name theirs |
//!
//! | in a line | meaning |
//! | --- | --- |
//! | `\` at its end | no line end: the next line goes on |
//! | `{text}` in a line that is sent | a literal of this text, in which `\|` is a line end: `{4}`, a line end, `text` |
//! | `{4}` `{4+}` | itself: the announcement of a literal as it is sent, mostly at the end of a line. The data is in the next lines |
//! | a single `{` or `}` | itself |
//!
//! A literal of any form can have `~` before it. Blanks before a line do not count.
//!
//! All outputs of the machine must stand in the script, in their order and before the next input. A player can cut the lines of both
//! peers into pieces, and the same script holds: until a line is whole there is no output. A machine that relays also relays pieces;
//! then bytes for the two peers that follow each other may stand in any order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Actions, Machine};

/// An input of a script.
#[derive(Clone, Copy)]
pub(crate) enum Said<'a> {
    /// The beginning, before the first line.
    Begin,
    /// A line of the mail server with its literals and its line end, or a piece of it.
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
    fn give(&mut self, said: Said<'_>, now: Instant, done: &mut Done<Self::End>) -> bool;

    /// Writes down an action.
    fn write(action: Self::Action<'_>, done: &mut Done<Self::End>);
}

/// A part in a script: a machine, or a machine with what a driver has to hold for it.
pub(crate) trait Playable {
    /// The result that a dialogue may bring.
    type End;

    /// It relays pieces of lines.
    const RELAYS: bool;

    /// Gives it an input. Returns false for one that it does not have.
    fn play(&mut self, said: Said<'_>, now: Instant, done: &mut Done<Self::End>) -> bool;
}

impl<M: Scripted> Playable for M {
    type End = M::End;

    const RELAYS: bool = false;

    fn play(&mut self, said: Said<'_>, now: Instant, done: &mut Done<Self::End>) -> bool {
        self.give(said, now, done)
    }
}

/// An output that the script has not named yet.
#[derive(Debug)]
enum Output {
    /// Bytes for the peer with this sign: `>` is the mail server, `<` the client.
    Sent(&'static str, Vec<u8>),
    /// Another action.
    Action(String),
}

impl Output {
    fn is_sent(&self) -> bool {
        matches!(self, Self::Sent(..))
    }

    fn is_for(&self, peer: &str) -> bool {
        matches!(self, Self::Sent(to, _) if *to == peer)
    }
}

/// The actions of a machine that the script has not named yet.
pub(crate) struct Done<E> {
    outputs: VecDeque<Output>,
    /// The script names them in their order; otherwise bytes for the two peers that follow each other may be named in any order.
    is_in_order: bool,
    end: Option<E>,
}

impl<E> Done<E> {
    /// These bytes were sent: `to` is `>` for the mail server and `<` for the client.
    pub(crate) fn sent(&mut self, to: &'static str, bytes: &[u8]) {
        let last = if self.is_in_order {
            self.outputs.back_mut()
        } else {
            let mut since = self.outputs.iter_mut().rev().take_while(|output| output.is_sent());
            since.find(|output| output.is_for(to))
        };
        match last {
            _ if bytes.is_empty() => {}
            Some(Output::Sent(last, sent)) if *last == to => sent.extend_from_slice(bytes),
            _ => self.outputs.push_back(Output::Sent(to, bytes.to_vec())),
        }
    }

    /// Something else was done.
    pub(crate) fn did(&mut self, name: &str) {
        self.outputs.push_back(Output::Action(name.to_owned()));
    }

    /// The dialogue brought this.
    pub(crate) fn ends(&mut self, end: E) {
        self.end = Some(end);
    }

    /// The outputs, for people.
    fn pending(&self) -> String {
        let text = |output: &Output| match output {
            Output::Sent(to, bytes) => format!("{to} {}", bytes.escape_ascii()),
            Output::Action(name) => format!("({name})"),
        };
        self.outputs.iter().map(text).collect::<Vec<_>>().join("; ")
    }

    /// The next bytes are these, for that peer.
    fn take_sent(&mut self, to: &str, bytes: &[u8], line: &str) {
        let mut sent = self.outputs.iter().take_while(|output| output.is_sent());
        let index = sent.position(|output| output.is_for(to));
        let index = index.filter(|_| !self.is_in_order).unwrap_or(0);
        match self.outputs.get_mut(index) {
            Some(Output::Sent(peer, sent)) if *peer == to && sent.starts_with(bytes) => {
                sent.drain(..bytes.len());
                if sent.is_empty() {
                    self.outputs.remove(index);
                }
            }
            _ => panic!("at {line:?}: {}", self.pending()),
        }
    }

    /// The next action has this name.
    fn take_action(&mut self, name: &str, line: &str) {
        match self.outputs.front() {
            Some(Output::Action(did)) if did.trim_end() == name => self.outputs.pop_front(),
            _ => panic!("at {line:?}: {}", self.pending()),
        };
    }
}

impl<M: Scripted> Actions<M> for Done<M::End> {
    fn push(&mut self, action: M::Action<'_>) {
        M::write(action, self);
    }
}

/// A dialogue under way.
pub(crate) struct Player<P: Playable> {
    pub(crate) machine: P,
    pub(crate) now: Instant,
    done: Done<P::End>,
    step: usize,
}

impl<P: Playable> Player<P> {
    /// Begins at `now`.
    pub(crate) fn new(mut machine: P, now: Instant) -> Self {
        let mut done = Done { outputs: VecDeque::new(), is_in_order: true, end: None };
        machine.play(Said::Begin, now, &mut done);
        Self { machine, now, done, step: usize::MAX }
    }

    /// The same with peers whose lines come byte by byte.
    pub(crate) fn bytewise(self) -> Self {
        self.in_pieces(1)
    }

    /// The same with peers whose lines come in pieces of so many bytes.
    pub(crate) fn in_pieces(self, step: usize) -> Self {
        let done = Done { is_in_order: !P::RELAYS, ..self.done };
        Self { step, done, ..self }
    }

    /// Plays the lines of a script, which may be a part of it.
    pub(crate) fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
            let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
            match kind {
                "S:" => self.sends(line, ">", &with_literals(text)),
                "C:" => self.sends(line, "<", &with_literals(text)),
                ">" | "<" => self.done.take_sent(kind, ended(text).as_bytes(), line),
                "(later" => {
                    self.later(humantime::parse_duration(text.trim_end_matches(')')).unwrap());
                }
                _ => self.expects(line),
            }
        }
    }

    /// Time passes.
    pub(crate) fn later(&mut self, time: Duration) {
        self.now += time;
        self.gives("later", Said::Later);
    }

    /// The peer with this sign sends bytes.
    fn sends(&mut self, line: &str, peer: &str, bytes: &[u8]) {
        self.expect_no_output(line);
        for piece in bytes.chunks(self.step) {
            if !P::RELAYS {
                self.expect_no_output(line);
            }
            let said = if peer == ">" { Said::Server(piece) } else { Said::Client(piece) };
            assert!(self.machine.play(said, self.now, &mut self.done), "not understood: {line:?}");
        }
    }

    fn gives(&mut self, line: &str, said: Said<'_>) {
        self.expect_no_output(line);
        assert!(self.machine.play(said, self.now, &mut self.done), "not understood: {line:?}");
    }

    fn expect_no_output(&self, line: &str) {
        assert!(self.done.outputs.is_empty(), "before {line:?}: {}", self.done.pending());
    }

    /// The next action; or an input, if there is none.
    fn expects(&mut self, line: &str) {
        let name = line.trim_end().strip_prefix('(').and_then(|name| name.strip_suffix(')'));
        let name = name.unwrap_or_else(|| panic!("no line of a script: {line:?}"));
        if self.done.outputs.is_empty() {
            self.gives(line, Said::Event(name));
        } else {
            self.done.take_action(name, line);
        }
    }

    /// Everything that the machine did was in the script. Returns what it brought.
    pub(crate) fn end(self) -> (P, Option<P::End>) {
        self.expect_no_output("the end");
        (self.machine, self.done.end)
    }
}

/// A line with its line end, which a `\` at its end leaves out.
fn ended(text: &str) -> String {
    text.strip_suffix('\\').map_or_else(|| format!("{text}\r\n"), str::to_owned)
}

/// A line as it is sent, with its literals and its line end.
pub(crate) fn with_literals(text: &str) -> Vec<u8> {
    let text = ended(text);
    let (mut line, mut rest) = (String::new(), text.as_str());
    while let Some((before, (literal, after))) =
        rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        let digits = literal.strip_suffix('+').unwrap_or(literal);
        let is_announcement =
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        line += before;
        if is_announcement {
            line += &format!("{{{literal}}}");
        } else {
            let data = literal.replace('|', "\r\n");
            line += &format!("{{{}}}\r\n{data}", data.len());
        }
        rest = after;
    }
    (line + rest).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_counted_and_announcements_stand_for_themselves() {
        let sent = |text| String::from_utf8(with_literals(text)).unwrap();
        assert_eq!(sent("a {b|c} {} ~{d}"), "a {4}\r\nb\r\nc {0}\r\n ~{1}\r\nd\r\n");
        assert_eq!(sent("a {3} ~{4+}"), "a {3} ~{4+}\r\n");
        assert_eq!(sent("p} {q"), "p} {q\r\n");
        assert_eq!(sent("half\\"), "half");
        assert_eq!(sent(""), "\r\n");
    }
}
