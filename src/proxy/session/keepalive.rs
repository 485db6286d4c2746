//! Keepalives for an idling client: one line just often enough that no router on the way forgets the connection,
//! instead of the server's own.
//!
//! Only in IDLE (RFC 2177). There the client has said that it waits; everywhere else the server's autologout makes it speak
//! itself (RFC 9051 section 5.4), in NOTIFY without IDLE too.

use std::time::Duration;

use super::{ClientState, Session};
use crate::machine::Actions;
use crate::parser::command::Verb;
use crate::parser::response::{self, Condition};
use crate::trace::{Mark, Speaker};

/// deltapush's keepalive.
const STILL_HERE: &[u8] = b"* OK Still here\r\n";

/// Texts of servers' keepalives: Dovecot and Apache James send the first, Dovecot in long commands the second. Cyrus,
/// Courier and Stalwart send none, as far as their sources show.
const KNOWN: [&str; 2] = ["Still here", "Hang in there"];

impl Session {
    /// Longest silence to the client from now on; `None` if it does not matter: the client does not wait, a response is
    /// in progress, or keepalives are left to the server.
    #[must_use]
    pub fn keepalive(&self) -> Option<Duration> {
        self.settings
            .keepalive
            .filter(|_| self.is_idling() && !self.is_within_response() && !self.server.said_bye)
    }

    /// Says that the connection lives. Only where [`keepalive`](Self::keepalive) says so.
    pub(super) fn keep_alive(&mut self, out: &mut impl Actions<Session>) {
        if self.keepalive().is_some() {
            self.send_own_now(out, STILL_HERE);
        }
    }

    /// Reports if an untagged `OK` may be a keepalive that the client does not need.
    pub(super) fn absorbs_keepalives(&self) -> bool {
        self.settings.keepalive.is_some() && self.is_idling()
    }

    /// An untagged `OK` is complete: it goes on if it says anything.
    pub(super) fn release_ok(&mut self, line: &[u8], out: &mut impl Actions<Session>) {
        if is_keepalive(line) {
            return self.show(out, Speaker::Upstream, Mark::Kept, line, false);
        }
        self.hand_on(line, out);
    }

    /// Reports if the client has asked for IDLE and not ended it.
    pub(super) fn is_in_idle(&self) -> bool {
        let state = self.client.state;
        matches!(state, ClientState::AwaitingContinuation | ClientState::Continuing)
            && self.client.verb == Verb::Idle
    }

    fn is_idling(&self) -> bool {
        self.client.state == ClientState::Continuing && self.client.verb == Verb::Idle
    }
}

/// Reports if an untagged line shows only that the server is there: an `OK` without response code, and with no text or a
/// known one. An unknown text may be meant for a person (RFC 9051 section 7.1).
fn is_keepalive(line: &[u8]) -> bool {
    let Some(status) = response::status(line) else { return false };
    if status.tag.is_some() || status.condition != Condition::Ok || !status.code.is_empty() {
        return false;
    }
    let text = status.human_text();
    let words = text.trim_end_matches(['.', '!']);
    words.is_empty() || KNOWN.iter().any(|known| known.eq_ignore_ascii_case(words))
}

#[cfg(test)]
mod tests {
    use super::is_keepalive;

    #[test]
    fn only_what_says_nothing_is_a_keepalive() {
        for line in [
            "* OK Still here",
            "* ok still here",
            "* OK Still here.",
            "* OK",
            "* OK ",
            "* OK Hang in there..",
        ] {
            assert!(is_keepalive(format!("{line}\r\n").as_bytes()), "{line}");
        }
        for line in [
            "* OK [ALERT] Still here",
            "* OK [NOTIFICATIONOVERFLOW] x",
            "* OK [INPROGRESS (\"a\" 1 2)] Still here",
            "* OK [unclosed",
            "* OK The server goes down at noon",
            "* OK Still here, but not for long",
            "* NO Still here",
            "* BYE Still here",
            "a OK Still here",
            "* 1 EXISTS",
        ] {
            assert!(!is_keepalive(format!("{line}\r\n").as_bytes()), "{line}");
        }
    }
}
