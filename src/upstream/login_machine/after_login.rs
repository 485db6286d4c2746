//! After the login: the capabilities that count from now on, who asks, and whether the server pushes by itself.

use super::{Introduced, LoggedIn, LoginAction, LoginMachine, LoginState, Purpose, answer_of};
use crate::parser::metadata;
use crate::parser::response::{self, Status};

/// The entry that a server which pushes by itself answers (chatmail relays; chatmail/core reads it).
const MAX_RECIPIENTS: &str = "/shared/vendor/deltachat/maxsmtprecipients";

impl LoginMachine {
    pub(super) fn accepted(&mut self, status: Status<'_>) -> LoginAction {
        self.answer =
            if self.repeats_secret(status.text) { b"OK done".to_vec() } else { answer_of(status) };
        // A list from before the login counts no more, unless one came with it.
        let fresh = status.has_code("CAPABILITY")
            || self
                .for_client
                .split_inclusive(|byte| *byte == b'\n')
                .any(|line| response::capabilities(line).is_some());
        if fresh { self.after_login() } else { self.ask_capabilities(LoginState::CapabilityAfter) }
    }

    pub(super) fn after_login(&mut self) -> LoginAction {
        self.pushes = self.capable("XDELTAPUSH");
        if self.has_to_introduce() {
            return self.send_id(LoginState::Id, &self.introduction.after_login());
        }
        self.after_id()
    }

    /// Reports if deltapush must identify itself after the login. Some servers open no mailbox before (163.com: "Unsafe
    /// Login"). A client that sent no ID before its login sends one itself after it, unless it could not have known:
    /// where ID comes only with the login.
    pub(super) fn has_to_introduce(&self) -> bool {
        let client_said = self.introduction.client.is_some();
        self.capable("ID")
            && match (self.purpose, self.introduced) {
                (Purpose::Watch, _) | (_, Introduced::Impossible) => true,
                (_, Introduced::Refused) => client_said,
                (_, Introduced::No | Introduced::Accepted) => false,
            }
    }

    pub(super) fn after_id(&mut self) -> LoginAction {
        let has_metadata = self.capable("METADATA") || self.capable("METADATA-SERVER");
        match self.purpose {
            Purpose::Client { probe: true } if has_metadata && !self.pushes => {
                self.ask_whether_it_pushes()
            }
            Purpose::Client { .. } | Purpose::Watch => self.finish(),
        }
    }

    pub(super) fn ask_whether_it_pushes(&mut self) -> LoginAction {
        self.state = LoginState::Probe;
        let mut command = b"GETMETADATA \"\" (".to_vec();
        command.extend_from_slice(MAX_RECIPIENTS.as_bytes());
        command.extend_from_slice(b")\r\n");
        self.command(&String::from_utf8_lossy(&command), b"")
    }

    pub(super) fn read_probe(&mut self, line: &[u8]) {
        if let Some(values) = metadata::values(line) {
            self.pushes |= values.entries.iter().any(|(entry, value)| {
                value.is_some() && entry.eq_ignore_ascii_case(MAX_RECIPIENTS.as_bytes())
            });
        }
    }

    pub(super) fn finish(&mut self) -> LoginAction {
        LoginAction::LoggedIn(LoggedIn {
            answer: std::mem::take(&mut self.answer),
            untagged: std::mem::take(&mut self.for_client),
            capabilities: self.capabilities.clone().unwrap_or_default(),
            pushes: self.pushes,
        })
    }
}
