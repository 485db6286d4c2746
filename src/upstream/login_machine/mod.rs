//! Logging in to an upstream, as a machine: responses in, actions out. Used by the proxy and by the watchers.
//!
//! A login method that the server lists may not work there. After a refusal that does not judge the password the next method
//! is tried in the same connection ([`refusal::allows_next_method`]).

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

mod after_login;
mod before_login;
mod methods;
mod secrets;
#[cfg(test)]
mod tests;
mod types;

use std::time::Instant;

use super::capabilities::Capabilities;
use super::id::Introduction;
use super::mechanism::{Hints, LoginMethod};
use super::refusal;
use crate::credentials::{Credentials, Mechanism};
use crate::machine::{Actions, Machine};
use crate::parser::response::{self, Condition, ResponseHead, Status};
use crate::policy::Security;
pub use types::{LoggedIn, LoginAction, LoginError, LoginInput, OutgoingLine, Purpose};

/// Untagged lines that are kept for the client during a login. A server has a handful to say.
const MAX_FOR_CLIENT: usize = 32;

/// The awaited response.
enum LoginState {
    Greeting,
    /// The list before the login; the server did not volunteer it, or TLS made it invalid.
    Capability,
    StartTls,
    /// The end of ID before the login.
    IdBefore,
    /// A `+` in an exchange by this mechanism, or its end, with what is to be said next, the last first.
    Sasl(Mechanism, Vec<String>),
    /// The `+` of a literal in LOGIN, with what follows it, the last first.
    Literal(Vec<Vec<u8>>),
    /// The end of LOGIN.
    Login,
    /// The list after the login.
    CapabilityAfter,
    /// The answer to whether the server pushes.
    Probe,
    /// The end of ID.
    Id,
}

/// The state of the identification before the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Introduced {
    /// Nothing: the server had no ID then.
    Impossible,
    /// Nothing, though the server had ID: there was nothing to say, and the client may say it after the login.
    No,
    /// The server has accepted it.
    Accepted,
    /// The server has not, as o2.pl, where ID works only after the login.
    Refused,
}

/// The machine.
pub struct LoginMachine {
    credentials: Credentials,
    security: Security,
    purpose: Purpose,
    introduction: Introduction,
    introduced: Introduced,
    state: LoginState,
    tag: u32,
    capabilities: Option<Capabilities>,
    has_tls: bool,
    for_client: Vec<u8>,
    lines_for_client: usize,
    answer: Vec<u8>,
    pushes: bool,
    /// The client's answers to challenges, in base64: never to be shown.
    relayed: Vec<String>,
    challenges: usize,
    /// The methods to begin with or to leave out.
    hints: Hints,
    /// The method under way.
    method: Option<LoginMethod>,
    /// Methods that are left to try, the next one last.
    untried: Vec<LoginMethod>,
    /// The password, the token or the first message of an exchange was sent by the method under way.
    has_sent_secret: bool,
    /// The server has responded to the method under way.
    was_answered: bool,
    /// A method was refused in this connection.
    has_refused: bool,
    /// Returns true if the server's goodbye refuses the method under way and not the password.
    goodbye: Option<bool>,
    /// An untagged BAD was taken for the answer to a command: its tagged answer may follow late.
    has_lost_step: bool,
    /// The last untagged NO, BAD or alert.
    complaint: Option<String>,
}

/// The result of an input: at most one action, or the end.
type LoginStep = Result<Option<LoginAction>, LoginError>;

impl Machine for LoginMachine {
    type Input<'a> = LoginInput<'a>;
    type Action<'a> = LoginAction;

    fn handle(&mut self, input: LoginInput<'_>, _: Instant, actions: &mut impl Actions<Self>) {
        let step = match input {
            LoginInput::Response(line) => self.response(line),
            LoginInput::Secured => Ok(Some(self.secured())),
            LoginInput::ClientResponse(response) => {
                Ok(Some(LoginAction::Send(self.client_responds(response))))
            }
        };
        match step {
            Ok(None) => {}
            Ok(Some(action)) => actions.push(action),
            Err(error) => actions.push(LoginAction::Failed(error)),
        }
    }

    /// None: the driver has one time limit for the whole attempt.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

impl LoginMachine {
    /// A login with `credentials` over a connection on which nothing was said yet.
    #[must_use]
    pub fn new(credentials: Credentials, security: Security, purpose: Purpose) -> Self {
        Self {
            credentials,
            security,
            purpose,
            introduction: Introduction::default(),
            introduced: Introduced::Impossible,
            state: LoginState::Greeting,
            tag: 0,
            capabilities: None,
            has_tls: security == Security::Tls,
            for_client: Vec::new(),
            lines_for_client: 0,
            answer: Vec::new(),
            pushes: false,
            relayed: Vec::new(),
            challenges: 0,
            hints: Hints::default(),
            method: None,
            untried: Vec::new(),
            has_sent_secret: false,
            was_answered: false,
            has_refused: false,
            goodbye: None,
            has_lost_step: false,
            complaint: None,
        }
    }

    /// The same, with what is known of this server's methods.
    #[must_use]
    pub(super) fn with_hints(self, hints: Hints) -> Self {
        Self { hints, ..self }
    }

    /// The same, saying who asks.
    #[must_use]
    pub fn introducing(self, introduction: Introduction) -> Self {
        Self { introduction, ..self }
    }

    /// Takes a whole response.
    fn response(&mut self, line: &[u8]) -> LoginStep {
        if let Some(names) = response::capabilities(line) {
            self.capabilities = Some(Capabilities::from_names(names));
        }
        match (response::head(line), response::status(line)) {
            (Some(ResponseHead::Continuation), _) => self.continuation(line),
            (Some(ResponseHead::TaggedContinuation { tag }), _)
                if tag == self.current_tag().as_bytes() =>
            {
                self.continuation(line.get(tag.len()..).unwrap_or_default().trim_ascii_start())
            }
            (_, Some(status)) if status.tag.is_none() => self.untagged_status(line, status),
            (_, Some(status)) if status.tag == Some(self.current_tag().as_bytes()) => {
                self.tagged(status)
            }
            (_, Some(status)) if self.has_lost_step && self.is_earlier(status.tag) => Ok(None),
            (_, Some(_)) => Err(LoginError::Protocol("an answer to a command that was not sent")),
            _ => {
                self.untagged(line);
                Ok(None)
            }
        }
    }

    fn untagged_status(&mut self, line: &[u8], status: Status<'_>) -> LoginStep {
        self.note_complaint(line, status);
        if status.condition == Condition::Bye {
            self.goodbye =
                Some(self.is_next_allowed(Status { condition: Condition::No, ..status }));
        }
        match (status.condition, &self.state) {
            (Condition::Bye, _) if self.repeats_secret(line) => {
                Err(LoginError::Bye("it repeats the login".into()))
            }
            (Condition::Bye, _) => Err(LoginError::Bye(refusal::words(status))),
            (Condition::Preauth, _) => Err(LoginError::Preauth),
            (Condition::Ok, LoginState::Greeting) => {
                if status.has_code("ALERT") {
                    self.keep_for_client(line);
                }
                self.greeted()
            }
            (_, LoginState::Greeting) if self.repeats_secret(line) => {
                Err(LoginError::Bye("it repeats the login".into()))
            }
            (_, LoginState::Greeting) => Err(LoginError::Bye(refusal::words(status))),
            // One command is under way: it is the one that was not understood (RFC 9051 section 7.1.3).
            (Condition::Bad, _) => {
                self.has_lost_step = true;
                self.tagged(status)
            }
            _ => {
                self.untagged(line);
                Ok(None)
            }
        }
    }

    /// An untagged line: for the client if it belongs to the login or is an alert, which must be seen.
    fn untagged(&mut self, line: &[u8]) {
        let is_alert = response::status(line).is_some_and(|status| status.has_code("ALERT"));
        match self.state {
            LoginState::Sasl(..) | LoginState::Literal(_) | LoginState::Login => {
                self.keep_for_client(line)
            }
            LoginState::Probe => self.read_probe(line),
            _ if is_alert => self.keep_for_client(line),
            _ => {}
        }
    }

    fn keep_for_client(&mut self, line: &[u8]) {
        if self.repeats_secret(line) {
            return;
        }
        if self.lines_for_client < MAX_FOR_CLIENT {
            self.lines_for_client = self.lines_for_client.saturating_add(1);
            self.for_client.extend_from_slice(line);
        }
    }

    fn tagged(&mut self, status: Status<'_>) -> LoginStep {
        let accepted = status.condition == Condition::Ok;
        match (&self.state, accepted) {
            (LoginState::Capability, true) => self.after_capabilities(),
            (LoginState::StartTls, true) => Ok(Some(LoginAction::StartTls)),
            (LoginState::StartTls, false) => Err(LoginError::NoStartTls),
            // A refusal of ID makes no difference to the login.
            (LoginState::IdBefore, _) => {
                self.introduced = if accepted { Introduced::Accepted } else { Introduced::Refused };
                self.log_in().map(Some)
            }
            (LoginState::Login, true) => Ok(Some(self.accepted(status))),
            (LoginState::Sasl(_, unsaid), true) if unsaid.is_empty() => {
                Ok(Some(self.accepted(status)))
            }
            (LoginState::Sasl(..) | LoginState::Literal(_) | LoginState::Login, false) => {
                self.method_refused(status).map(Some)
            }
            (LoginState::Capability, false) => Err(self.refused(status)),
            (LoginState::CapabilityAfter, _) => Ok(Some(self.after_login())),
            (LoginState::Id, _) => Ok(Some(self.after_id())),
            (LoginState::Probe, _) => Ok(Some(self.finish())),
            _ => Err(LoginError::Protocol("an answer that fits no command")),
        }
    }

    /// The last untagged NO, BAD or alert, which may be the reason for whatever goes wrong next.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    fn note_complaint(&mut self, line: &[u8], status: Status<'_>) {
        if refusal::is_complaint(status) && !self.repeats_secret(line) {
            self.complaint = Some(refusal::words(status));
        }
    }

    fn capable(&self, name: &str) -> bool {
        self.capabilities.as_ref().is_some_and(|capabilities| capabilities.has(name))
    }

    fn current_tag(&self) -> String {
        format!("dp{}", self.tag)
    }

    /// Reports if `tag` is that of a command before the current one.
    fn is_earlier(&self, tag: Option<&[u8]>) -> bool {
        let number = tag.and_then(|tag| {
            std::str::from_utf8(tag.strip_prefix(b"dp")?).ok()?.parse::<u32>().ok()
        });
        number.is_some_and(|number| number > 0 && number < self.tag)
    }

    /// A command under a new tag, `secret` last.
    fn command(&mut self, text: &str, secret: &[u8]) -> LoginAction {
        self.tag = self.tag.saturating_add(1);
        let plain = format!("{} {text}", self.current_tag());
        let mut bytes = Vec::with_capacity(plain.len().saturating_add(secret.len()));
        bytes.extend_from_slice(plain.as_bytes());
        bytes.extend_from_slice(secret);
        LoginAction::Send(OutgoingLine { bytes, secret_from: plain.len() })
    }
}

/// Condition, code and text, as the client gets them behind its own tag.
fn answer_of(status: Status<'_>) -> Vec<u8> {
    let condition: &[u8] = match status.condition {
        Condition::Ok => b"OK",
        Condition::No => b"NO",
        _ => b"BAD",
    };
    if status.text.is_empty() {
        // iCloud says no more than that; a client may want the space and the text that the grammar demands.
        return [condition, b" done"].concat();
    }
    [condition, b" ", status.text].concat()
}
