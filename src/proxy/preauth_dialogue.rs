//! Clients before their login, for tests and fuzz targets: a driver without peers and without logins.

use std::time::{Duration, Instant};

use super::preauth::{
    Allowance, NotAuthenticated, PreauthEvent, PreauthInput, PreauthTurn, Protection,
};
use crate::trace::Transcript;

/// A client of a listener with TLS, with so small an allowance that short dialogues go over it. Time stands still.
pub struct PreauthDialogue {
    machine: NotAuthenticated,
    now: Instant,
}

impl PreauthDialogue {
    /// Begins now.
    #[must_use]
    pub fn begin() -> Self {
        let now = Instant::now();
        let allowed = Duration::from_secs(60);
        let allowance = Allowance {
            command: 400,
            commands: 20,
            wrong: 10,
            logins: 9,
            login_name: 320,
            command_time: allowed,
        };
        let end = now.checked_add(allowed).unwrap_or(now);
        Self { machine: NotAuthenticated::new(Protection::Tls, allowance, end), now }
    }

    /// The client sends bytes. Returns the answers, or `None` if they close the connection. A login is neither tried nor refused.
    pub fn client_says(
        &mut self,
        mut bytes: &[u8],
        transcript: &mut dyn Transcript,
    ) -> Option<Vec<u8>> {
        let mut answers = vec![];
        while !bytes.is_empty() {
            let input = PreauthInput::Received(bytes);
            let turn = PreauthTurn::of(&mut self.machine, input, self.now, Some(transcript));
            bytes = bytes.get(turn.used..).unwrap_or_default();
            answers.extend(turn.answer);
            if turn.event == Some(PreauthEvent::Close) {
                return None;
            }
        }
        Some(answers)
    }
}
