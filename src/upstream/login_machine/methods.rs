//! The login itself: one method after the other, until one is accepted or a refusal judges the password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{
    LoginAction, LoginError, LoginMachine, LoginState, LoginStep, OutgoingLine, Purpose, answer_of,
};
use crate::credentials::Mechanism;
use crate::parser::response::{self, Condition, Status};
use crate::secret::Secret;
use crate::upstream::capabilities::Capabilities;
use crate::upstream::mechanism::{self, LoginMethod, NoMechanism};
use crate::upstream::refusal;

/// The longest challenge, in base64, that is handed on: those of SCRAM have some hundred bytes.
pub(super) const MAX_CHALLENGE: usize = 8192;

/// Challenges that are handed on in a login: SCRAM has two.
const MAX_CHALLENGES: usize = 2;

impl LoginMachine {
    pub(super) fn log_in(&mut self) -> Result<LoginAction, LoginError> {
        let none = Capabilities::default();
        let capabilities = self.capabilities.as_ref().unwrap_or(&none);
        self.untried = mechanism::methods(&self.credentials, capabilities, &self.hints)
            .map_err(|NoMechanism(offered)| LoginError::NoMechanism(offered))?;
        self.untried.reverse();
        let first = self.untried.pop();
        Ok(self.try_method(first.unwrap_or(LoginMethod::Login)))
    }

    pub(super) fn try_method(&mut self, method: LoginMethod) -> LoginAction {
        self.method = Some(method);
        self.has_sent_secret = false;
        self.was_answered = false;
        self.challenges = 0;
        let LoginMethod::Sasl { mechanism, initial } = method else { return self.login_command() };
        let mut messages = mechanism::messages(&self.credentials, mechanism);
        messages.reverse();
        let first = if initial { messages.pop() } else { None };
        self.has_sent_secret = first.is_some() && messages.is_empty();
        self.state = LoginState::Sasl(mechanism, messages);
        let command = format!("AUTHENTICATE {}", mechanism.name());
        match first {
            Some(first) => self.command(&format!("{command} "), &line_of(&first)),
            None => self.command(&format!("{command}\r\n"), b""),
        }
    }

    /// The method under way was refused: tries the next one if the refusal allows it.
    pub(super) fn method_refused(&mut self, status: Status<'_>) -> Result<LoginAction, LoginError> {
        let allowed = self.is_next_allowed(status);
        let Some(refused) = self.method.filter(|_| allowed) else {
            return Err(self.refused(status));
        };
        self.has_refused = true;
        self.hints.refused.push(refused);
        if status.condition == Condition::No {
            // It is the mechanism that it does not take, and not the form of the command.
            let is_same = |method: &LoginMethod| method.mechanism() == refused.mechanism();
            let (same, others) = std::mem::take(&mut self.untried).into_iter().partition(is_same);
            self.untried = others;
            self.hints.refused.extend::<Vec<_>>(same);
        }
        let Some(next) = self.untried.pop() else { return Err(self.refused(status)) };
        self.keep_alerts_only();
        Ok(self.try_method(next))
    }

    /// Drops lines of a refused attempt, which are no part of the login's answer; an alert must be seen.
    pub(super) fn keep_alerts_only(&mut self) {
        let lines = std::mem::take(&mut self.for_client);
        let is_alert =
            |line: &&[u8]| response::status(line).is_some_and(|status| status.has_code("ALERT"));
        self.for_client = lines
            .split_inclusive(|byte| *byte == b'\n')
            .filter(is_alert)
            .flatten()
            .copied()
            .collect();
    }

    /// The method that worked, if another one was refused before.
    pub(in crate::upstream) fn learned(&self) -> Option<LoginMethod> {
        self.method.filter(|_| !self.hints.refused.is_empty())
    }

    /// The methods to leave out in a new connection, should this one end now: those refused here, if the server has not
    /// responded to the next one, or the one under way, if the end is the response to it and does not judge the password.
    /// `None` if a new connection would not help.
    pub(in crate::upstream) fn refused_methods(&self) -> Option<Vec<LoginMethod>> {
        if !self.is_logging_in() {
            return None;
        }
        if self.has_refused {
            return (!self.was_answered).then(|| self.hints.refused.clone());
        }
        let is_refused = self.goodbye.unwrap_or(!self.has_sent_secret) && !self.untried.is_empty();
        let under_way = self.method.filter(|_| is_refused)?;
        Some(self.hints.refused.iter().copied().chain([under_way]).collect())
    }

    /// Returns true if this refusal of the method under way allows the next one.
    pub(super) fn is_next_allowed(&self, status: Status<'_>) -> bool {
        let is_judged = self.challenges > 0;
        !is_judged
            && refusal::allows_next_method(
                &answer_of(status),
                &self.for_client,
                self.has_sent_secret,
            )
    }

    pub(super) fn is_logging_in(&self) -> bool {
        matches!(self.state, LoginState::Sasl(..) | LoginState::Literal(_) | LoginState::Login)
    }

    pub(super) fn login_command(&mut self) -> LoginAction {
        let mut pieces = mechanism::login_arguments(&self.credentials);
        let first = pieces.pop().unwrap_or_default();
        self.has_sent_secret = pieces.is_empty();
        self.state =
            if pieces.is_empty() { LoginState::Login } else { LoginState::Literal(pieces) };
        self.command("LOGIN ", &first)
    }

    pub(super) fn continuation(&mut self, line: &[u8]) -> LoginStep {
        let is_first = !std::mem::replace(&mut self.was_answered, true);
        let next = match &mut self.state {
            LoginState::Sasl(Mechanism::Plain, messages)
                if messages.is_empty() && is_first && is_empty(line) =>
            {
                // It has overlooked the initial response: PLAIN has no challenges.
                line_of(
                    &mechanism::messages(&self.credentials, Mechanism::Plain)
                        .pop()
                        .unwrap_or_default(),
                )
            }
            LoginState::Sasl(mechanism, messages) => match messages.pop() {
                Some(message) => {
                    self.has_sent_secret = messages.is_empty();
                    line_of(&message)
                }
                None => {
                    let mechanism = *mechanism;
                    return self.challenged(mechanism, line).map(Some);
                }
            },
            LoginState::Literal(pieces) => {
                let next = pieces.pop().unwrap_or_default();
                if pieces.is_empty() {
                    self.has_sent_secret = true;
                    self.state = LoginState::Login;
                }
                next
            }
            _ => {
                return Err(LoginError::Protocol(
                    "it waits for more of a command that is complete",
                ));
            }
        };
        Ok(Some(LoginAction::Send(OutgoingLine::secretly(next))))
    }

    /// A challenge after all that deltapush has to say by itself: SCRAM goes on between client and server, and a server that
    /// refuses a token says why.
    pub(super) fn challenged(
        &mut self,
        mechanism: Mechanism,
        line: &[u8],
    ) -> Result<LoginAction, LoginError> {
        self.challenges = self.challenges.saturating_add(1);
        if self.challenges > MAX_CHALLENGES {
            return Err(LoginError::Protocol("its challenges do not end"));
        }
        let is_plain = matches!(mechanism, Mechanism::Plain | Mechanism::Login);
        if is_plain || self.purpose == Purpose::Watch {
            return Ok(LoginAction::Send(acknowledgement(mechanism)));
        }
        let challenge =
            line.trim_ascii_end().strip_prefix(b"+").unwrap_or_default().trim_ascii_start();
        if challenge.len() > MAX_CHALLENGE || STANDARD.decode(challenge).is_err() {
            return Err(LoginError::Protocol("its challenge is too long, or not base64"));
        }
        Ok(LoginAction::Challenge(challenge.to_vec()))
    }

    /// The client's answer to a challenge, for the server.
    pub(super) fn client_responds(&mut self, response: &Secret) -> OutgoingLine {
        match self.state {
            LoginState::Sasl(Mechanism::ScramSha1 | Mechanism::ScramSha256, _) => {
                let encoded = STANDARD.encode(response.expose());
                let line = line_of(&encoded);
                self.relayed.push(encoded);
                OutgoingLine::secretly(line)
            }
            // The client's mechanism may be another than the server's.
            LoginState::Sasl(mechanism, _) => acknowledgement(mechanism),
            _ => acknowledgement(Mechanism::Plain),
        }
    }

    /// Reports if a continuation request is part of a SASL exchange, so that its text is not for a transcript.
    #[must_use]
    pub fn is_in_exchange(&self) -> bool {
        matches!(self.state, LoginState::Sasl(..))
    }

    pub(super) fn refused(&mut self, status: Status<'_>) -> LoginError {
        let untagged = std::mem::take(&mut self.for_client);
        let answer = if self.repeats_secret(status.text) {
            b"NO The login was refused.".to_vec()
        } else {
            answer_of(status)
        };
        LoginError::Refused { answer, untagged }
    }
}

/// An empty line ends an exchange in which everything was said (RFC 4422 section 3), and the server its refusal.
fn acknowledgement(mechanism: Mechanism) -> OutgoingLine {
    // RFC 7628 section 3.2.3 wants a separator.
    let line = if mechanism == Mechanism::OAuthBearer { "AQ==" } else { "" };
    OutgoingLine::secretly(line_of(line))
}

/// Reports if a continuation request has an empty challenge.
fn is_empty(line: &[u8]) -> bool {
    line.trim_ascii_end() == b"+"
}

/// A message in base64 with its line end.
fn line_of(message: &str) -> Vec<u8> {
    [message.as_bytes(), b"\r\n"].concat()
}
