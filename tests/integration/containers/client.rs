//! A mail program that connects to the VPS.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::first_evening::internet;
use crate::support::client::quoted;

/// A connection with TLS. It waits until the other side ends it, or the test.
pub(super) struct MailProgram {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl MailProgram {
    /// Connects to a port of the VPS, and asks for a certificate of `name`, which may be of any authority.
    pub(super) fn connect(name: &str, port: u16) -> Self {
        let address = format!("{}:{port}", internet::public("203.0.113.7"));
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-connect", &address, "-servername", name]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut program = Self { child, input, output };
        program.expect("* OK");
        program
    }

    /// Logs in.
    pub(super) fn log_in(&mut self, user: &str, password: &str) {
        self.send(&format!("in LOGIN {user} {}", quoted(password)));
        self.expect("in OK");
    }

    /// Sends a line.
    pub(super) fn send(&mut self, line: &str) {
        write!(self.input, "{line}\r\n").unwrap();
    }

    /// Reads up to a line that begins so.
    pub(super) fn expect(&mut self, prefix: &str) {
        let mut heard = String::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "the connection has ended without {prefix:?}: {heard}");
            if line.starts_with(prefix) {
                return;
            }
            heard += &line;
        }
    }
}

impl Drop for MailProgram {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
