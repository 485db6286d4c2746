//! Output of the demo: one line per step with its time, and below it what went over the wire.

use std::io::{self, IsTerminal as _, Stdout, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Actor of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who {
    MailServer,
    PushServer,
    Deltapush,
    Client,
}

/// Standard output, in colour if it is a terminal.
pub(crate) struct Screen {
    out: Stdout,
    colours: bool,
    start: Instant,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "1;32";

impl Screen {
    pub(crate) fn new() -> Self {
        let out = io::stdout();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colours = out.is_terminal() && !no_color;
        Self { out, colours, start: Instant::now() }
    }

    pub(crate) fn title(&mut self, title: &str) -> Result<()> {
        let title = self.painted(BOLD, title);
        Ok(writeln!(self.out, "{title}\n")?)
    }

    /// A step that has just been done.
    pub(crate) fn step(&mut self, who: Who, what: &str) -> Result<()> {
        let (name, colour) = match who {
            Who::MailServer => ("mail server", "33"),
            Who::PushServer => ("push server", "35"),
            Who::Deltapush => ("deltapush", "1;36"),
            Who::Client => ("client", "32"),
        };
        let time = format!("{:5.3} s", self.start.elapsed().as_secs_f64());
        let (time, name) = (self.painted(DIM, &time), self.painted(colour, &format!("{name:<11}")));
        Ok(writeln!(self.out, "{time}  {name}  {what}")?)
    }

    /// Prints a line of the protocol.
    pub(crate) fn line(&mut self, who: &str, text: &str) -> Result<()> {
        let line = self.painted(DIM, &format!("{who:>10}: {text}"));
        Ok(writeln!(self.out, "{line}")?)
    }

    /// The list `after`, in which what `before` lacks stands out.
    pub(crate) fn added(&mut self, who: &str, before: &str, after: &str) -> Result<()> {
        let known: Vec<&str> = before.split(' ').collect();
        let (same, new): (Vec<&str>, Vec<&str>) =
            after.split(' ').partition(|name| known.contains(name));
        let same = self.painted(DIM, &format!("{who:>10}: {}", same.join(" ")));
        let new = self.painted(BOLD, &new.join(" "));
        Ok(writeln!(self.out, "{same} {new}")?)
    }

    pub(crate) fn succeeded(&mut self, latency: Duration) -> Result<()> {
        let verdict = self.painted(GREEN, "The push arrived");
        Ok(writeln!(
            self.out,
            "\n{verdict} {:.1} ms after the message.",
            latency.as_secs_f64() * 1e3
        )?)
    }

    pub(crate) fn failed(&mut self, error: &anyhow::Error) {
        let verdict = self.painted(RED, "The demo failed");
        // There is nobody to tell if the terminal has gone; the exit code still says it.
        let _ = writeln!(self.out, "\n{verdict}: {error:#}");
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
