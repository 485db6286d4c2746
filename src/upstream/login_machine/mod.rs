//! Logging in to an upstream, as a machine: responses in, steps out. Used by the proxy and by the watchers.
//!
//! A login method that the server lists may not work there. After a refusal that does not judge the password the next method
//! is tried in the same connection ([`refusal::allows_next_method`]).

mod types;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::id::{self, Introduction};
use super::mechanism::{self, Hints, LoginMethod};
use super::refusal;
use crate::credentials::Credentials;
use crate::credentials::Mechanism;
use crate::parser::id::Field;
use crate::parser::metadata;
use crate::parser::quote::push_quoted;
use crate::parser::response::{self, Condition, ResponseHead, Status};
use crate::policy::Security;
use crate::secret::Secret;
pub use types::{Capabilities, DialogueStep, LoggedIn, LoginError, OutgoingLine, Purpose};

/// The entry that a server which pushes by itself answers (chatmail relays; chatmail/core reads it).
const MAX_RECIPIENTS: &str = "/shared/vendor/deltachat/maxsmtprecipients";

/// Untagged lines that are kept for the client during a login. A server has a handful to say.
const MAX_FOR_CLIENT: usize = 32;

/// The longest challenge, in base64, that is handed on: those of SCRAM have some hundred bytes.
const MAX_CHALLENGE: usize = 8192;

/// Challenges that are handed on in a login: SCRAM has two.
const MAX_CHALLENGES: usize = 2;

/// What is to be awaited.
enum DialogueState {
    Greeting,
    /// The list before the login; the server did not volunteer it, or TLS made it invalid.
    Capability,
    StartTls,
    /// The end of ID before the login.
    IdBefore,
    /// A `+` in an exchange by this mechanism, or its end, with what is to be said next, the last first.
    Sasl(Mechanism, Vec<Zeroizing<String>>),
    /// The `+` of a literal in LOGIN, with what follows it, the last first.
    Literal(Vec<Zeroizing<Vec<u8>>>),
    /// The end of LOGIN.
    Login,
    /// The list after the login.
    CapabilityAfter,
    /// The answer to whether the server pushes.
    Probe,
    /// The end of ID.
    Id,
}

/// What was said before the login of who asks.
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
pub struct Dialogue {
    credentials: Credentials,
    security: Security,
    purpose: Purpose,
    introduction: Introduction,
    introduced: Introduced,
    state: DialogueState,
    tag: u32,
    capabilities: Option<Capabilities>,
    has_tls: bool,
    for_client: Vec<u8>,
    lines_for_client: usize,
    answer: Vec<u8>,
    pushes: bool,
    /// What the client answered to challenges, in base64: never to be shown.
    relayed: Vec<Zeroizing<String>>,
    challenges: usize,
    /// Which methods to begin with or to leave out.
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

impl Dialogue {
    /// A login with `credentials` over a connection on which nothing was said yet.
    #[must_use]
    pub fn new(credentials: Credentials, security: Security, purpose: Purpose) -> Self {
        Self {
            credentials,
            security,
            purpose,
            introduction: Introduction::default(),
            introduced: Introduced::Impossible,
            state: DialogueState::Greeting,
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

    /// Takes a whole response. `Ok(None)` if there is nothing to do but wait for the next.
    ///
    /// # Errors
    /// [`LoginError`] if the login has failed.
    pub fn response(&mut self, line: &[u8]) -> Result<Option<DialogueStep>, LoginError> {
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

    fn untagged_status(
        &mut self,
        line: &[u8],
        status: Status<'_>,
    ) -> Result<Option<DialogueStep>, LoginError> {
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
            (Condition::Ok, DialogueState::Greeting) => {
                if status.has_code("ALERT") {
                    self.keep_for_client(line);
                }
                self.greeted()
            }
            (_, DialogueState::Greeting) if self.repeats_secret(line) => {
                Err(LoginError::Bye("it repeats the login".into()))
            }
            (_, DialogueState::Greeting) => Err(LoginError::Bye(refusal::words(status))),
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
            DialogueState::Sasl(..) | DialogueState::Literal(_) | DialogueState::Login => {
                self.keep_for_client(line)
            }
            DialogueState::Probe => self.read_probe(line),
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

    fn greeted(&mut self) -> Result<Option<DialogueStep>, LoginError> {
        match &self.capabilities {
            None => Ok(Some(self.ask_capabilities(DialogueState::Capability))),
            Some(_) => self.after_capabilities(),
        }
    }

    fn ask_capabilities(&mut self, state: DialogueState) -> DialogueStep {
        self.state = state;
        self.command("CAPABILITY\r\n", b"")
    }

    fn after_capabilities(&mut self) -> Result<Option<DialogueStep>, LoginError> {
        if self.security != Security::StartTls || self.has_tls {
            return self.introduce_or_log_in().map(Some);
        }
        if !self.capable("STARTTLS") {
            return Err(LoginError::NoStartTls);
        }
        self.state = DialogueState::StartTls;
        Ok(Some(self.command("STARTTLS\r\n", b"")))
    }

    /// The connection has TLS now: what was said before it counts no more (RFC 9051 section 6.2.1).
    pub fn secured(&mut self) -> DialogueStep {
        self.has_tls = true;
        self.capabilities = None;
        self.for_client = Vec::new();
        self.lines_for_client = 0;
        self.ask_capabilities(DialogueState::Capability)
    }

    fn capable(&self, name: &str) -> bool {
        self.capabilities.as_ref().is_some_and(|capabilities| capabilities.has(name))
    }

    /// Says who asks, where the server wants to know it before the login and there is somebody to name.
    fn introduce_or_log_in(&mut self) -> Result<DialogueStep, LoginError> {
        if !self.capable("ID") {
            return self.log_in();
        }
        self.introduced = Introduced::No;
        match self.introduction.before_login() {
            Some(fields) => Ok(self.say_id(DialogueState::IdBefore, &fields)),
            None => self.log_in(),
        }
    }

    fn say_id(&mut self, state: DialogueState, fields: &[Field]) -> DialogueStep {
        self.state = state;
        self.command(&id::command(fields), b"")
    }

    fn log_in(&mut self) -> Result<DialogueStep, LoginError> {
        let none = Capabilities::default();
        let capabilities = self.capabilities.as_ref().unwrap_or(&none);
        self.untried = mechanism::methods(&self.credentials, capabilities, &self.hints)?;
        self.untried.reverse();
        let first = self.untried.pop();
        Ok(self.try_method(first.unwrap_or(LoginMethod::Login)))
    }

    fn try_method(&mut self, method: LoginMethod) -> DialogueStep {
        self.method = Some(method);
        self.has_sent_secret = false;
        self.was_answered = false;
        self.challenges = 0;
        let LoginMethod::Sasl { mechanism, initial } = method else { return self.login_command() };
        let mut messages = mechanism::messages(&self.credentials, mechanism);
        messages.reverse();
        let first = if initial { messages.pop() } else { None };
        self.has_sent_secret = first.is_some() && messages.is_empty();
        self.state = DialogueState::Sasl(mechanism, messages);
        let command = format!("AUTHENTICATE {}", mechanism.name());
        match first {
            Some(first) => self.command(&format!("{command} "), &line_of(&first)),
            None => self.command(&format!("{command}\r\n"), b""),
        }
    }

    /// The method under way was refused: tries the next one if the refusal allows it.
    fn method_refused(&mut self, status: Status<'_>) -> Result<DialogueStep, LoginError> {
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

    /// What belongs to a refused attempt is no part of the login's answer, but an alert must be seen.
    fn keep_alerts_only(&mut self) {
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
    pub(super) fn learned(&self) -> Option<LoginMethod> {
        self.method.filter(|_| !self.hints.refused.is_empty())
    }

    /// The methods to leave out in a new connection, should this one end now: those refused here, if the server has not
    /// responded to the next one, or the one under way, if the end is the response to it and does not judge the password.
    /// `None` if a new connection would not help.
    pub(super) fn refused_methods(&self) -> Option<Vec<LoginMethod>> {
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
    fn is_next_allowed(&self, status: Status<'_>) -> bool {
        let is_judged = self.challenges > 0;
        !is_judged
            && refusal::allows_next_method(
                &answer_of(status),
                &self.for_client,
                self.has_sent_secret,
            )
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

    fn is_logging_in(&self) -> bool {
        matches!(
            self.state,
            DialogueState::Sasl(..) | DialogueState::Literal(_) | DialogueState::Login
        )
    }

    fn login_command(&mut self) -> DialogueStep {
        let mut pieces = mechanism::login_arguments(&self.credentials);
        let first = pieces.pop().unwrap_or_default();
        self.has_sent_secret = pieces.is_empty();
        self.state =
            if pieces.is_empty() { DialogueState::Login } else { DialogueState::Literal(pieces) };
        self.command("LOGIN ", &first)
    }

    fn continuation(&mut self, line: &[u8]) -> Result<Option<DialogueStep>, LoginError> {
        let is_first = !std::mem::replace(&mut self.was_answered, true);
        let next = match &mut self.state {
            DialogueState::Sasl(Mechanism::Plain, messages)
                if messages.is_empty() && is_first && is_empty(line) =>
            {
                // It has overlooked the initial response: PLAIN has no challenges.
                line_of(
                    &mechanism::messages(&self.credentials, Mechanism::Plain)
                        .pop()
                        .unwrap_or_default(),
                )
            }
            DialogueState::Sasl(mechanism, messages) => match messages.pop() {
                Some(message) => {
                    self.has_sent_secret = messages.is_empty();
                    line_of(&message)
                }
                None => {
                    let mechanism = *mechanism;
                    return self.challenged(mechanism, line).map(Some);
                }
            },
            DialogueState::Literal(pieces) => {
                let next = pieces.pop().unwrap_or_default();
                if pieces.is_empty() {
                    self.has_sent_secret = true;
                    self.state = DialogueState::Login;
                }
                next
            }
            _ => {
                return Err(LoginError::Protocol(
                    "it waits for more of a command that is complete",
                ));
            }
        };
        Ok(Some(DialogueStep::Send(OutgoingLine::secretly(next))))
    }

    /// A challenge after all that deltapush has to say by itself: SCRAM goes on between client and server, and a server that
    /// refuses a token says why.
    fn challenged(
        &mut self,
        mechanism: Mechanism,
        line: &[u8],
    ) -> Result<DialogueStep, LoginError> {
        self.challenges = self.challenges.saturating_add(1);
        if self.challenges > MAX_CHALLENGES {
            return Err(LoginError::Protocol("its challenges do not end"));
        }
        let is_plain = matches!(mechanism, Mechanism::Plain | Mechanism::Login);
        if is_plain || self.purpose == Purpose::Watch {
            return Ok(DialogueStep::Send(acknowledgement(mechanism)));
        }
        let challenge =
            line.trim_ascii_end().strip_prefix(b"+").unwrap_or_default().trim_ascii_start();
        if challenge.len() > MAX_CHALLENGE || STANDARD.decode(challenge).is_err() {
            return Err(LoginError::Protocol("its challenge is too long, or not base64"));
        }
        Ok(DialogueStep::Challenge(challenge.to_vec()))
    }

    /// Takes the client's answer to a [`DialogueStep::Challenge`]; what is returned goes to the server.
    pub fn client_responds(&mut self, response: &Secret) -> OutgoingLine {
        match self.state {
            DialogueState::Sasl(Mechanism::ScramSha1 | Mechanism::ScramSha256, _) => {
                let encoded = Zeroizing::new(STANDARD.encode(response.expose()));
                let line = line_of(&encoded);
                self.relayed.push(encoded);
                OutgoingLine::secretly(line)
            }
            // The client's mechanism may be another than the server's.
            DialogueState::Sasl(mechanism, _) => acknowledgement(mechanism),
            _ => acknowledgement(Mechanism::Plain),
        }
    }

    /// Whether a continuation request is part of a SASL exchange, so that what it says is not for a transcript.
    #[must_use]
    pub fn is_in_exchange(&self) -> bool {
        matches!(self.state, DialogueState::Sasl(..))
    }

    fn tagged(&mut self, status: Status<'_>) -> Result<Option<DialogueStep>, LoginError> {
        let accepted = status.condition == Condition::Ok;
        match (&self.state, accepted) {
            (DialogueState::Capability, true) => self.after_capabilities(),
            (DialogueState::StartTls, true) => Ok(Some(DialogueStep::StartTls)),
            (DialogueState::StartTls, false) => Err(LoginError::NoStartTls),
            // Whether the server likes to know who asks makes no difference.
            (DialogueState::IdBefore, _) => {
                self.introduced = if accepted { Introduced::Accepted } else { Introduced::Refused };
                self.log_in().map(Some)
            }
            (DialogueState::Login, true) => Ok(Some(self.accepted(status))),
            (DialogueState::Sasl(_, unsaid), true) if unsaid.is_empty() => {
                Ok(Some(self.accepted(status)))
            }
            (DialogueState::Sasl(..) | DialogueState::Literal(_) | DialogueState::Login, false) => {
                self.method_refused(status).map(Some)
            }
            (DialogueState::Capability, false) => Err(self.refused(status)),
            (DialogueState::CapabilityAfter, _) => Ok(Some(self.after_login())),
            (DialogueState::Id, _) => Ok(Some(self.after_id())),
            (DialogueState::Probe, _) => Ok(Some(self.finish())),
            _ => Err(LoginError::Protocol("an answer that fits no command")),
        }
    }

    fn refused(&mut self, status: Status<'_>) -> LoginError {
        let untagged = std::mem::take(&mut self.for_client);
        let answer = if self.repeats_secret(status.text) {
            b"NO The login was refused.".to_vec()
        } else {
            answer_of(status)
        };
        LoginError::Refused { answer, untagged }
    }

    /// Whether `line` has the password in it, or a message that carries it: some servers repeat what they do not understand.
    #[must_use]
    pub fn repeats_secret(&self, line: &[u8]) -> bool {
        let password = self.credentials.password.expose();
        // Some repeat the command in capital letters.
        let has = |secret: &[u8]| {
            line.windows(secret.len().max(1)).any(|part| part.eq_ignore_ascii_case(secret))
        };
        let messages = Mechanism::ALL.iter().flat_map(|(mechanism, _)| {
            // LOGIN's first message is the name.
            mechanism::messages(&self.credentials, *mechanism).into_iter().next_back()
        });
        let mut quoted =
            Zeroizing::new(Vec::with_capacity(password.len().saturating_mul(2).saturating_add(2)));
        push_quoted(&mut quoted, password);
        // As LOGIN has it: with `"` and `\` escaped.
        let escaped = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        // A password of a letter or two stands in any line; in base64 these are four.
        password.len() > 3 && (has(password) || has(escaped))
            || !password.is_empty() && has(&quoted)
            || messages
                .chain(self.relayed.iter().cloned())
                .any(|message| message.len() > 4 && has(message.as_bytes()))
    }

    fn accepted(&mut self, status: Status<'_>) -> DialogueStep {
        self.answer =
            if self.repeats_secret(status.text) { b"OK done".to_vec() } else { answer_of(status) };
        // What was listed before the login counts no more, unless it came with it.
        let fresh = status.has_code("CAPABILITY")
            || self
                .for_client
                .split_inclusive(|byte| *byte == b'\n')
                .any(|line| response::capabilities(line).is_some());
        if fresh {
            self.after_login()
        } else {
            self.ask_capabilities(DialogueState::CapabilityAfter)
        }
    }

    fn after_login(&mut self) -> DialogueStep {
        self.pushes = self.capable("XDELTAPUSH");
        if self.has_to_introduce() {
            return self.say_id(DialogueState::Id, &self.introduction.after_login());
        }
        self.after_id()
    }

    /// Whether deltapush says who asks after the login. Some servers open no mailbox before (163.com: "Unsafe Login"). A
    /// client that said nothing before its login speaks for itself after it, unless it was right to say nothing: where ID
    /// comes only with the login.
    fn has_to_introduce(&self) -> bool {
        let client_said = self.introduction.client.is_some();
        self.capable("ID")
            && match (self.purpose, self.introduced) {
                (Purpose::Watch, _) | (_, Introduced::Impossible) => true,
                (_, Introduced::Refused) => client_said,
                (_, Introduced::No | Introduced::Accepted) => false,
            }
    }

    fn after_id(&mut self) -> DialogueStep {
        let has_metadata = self.capable("METADATA") || self.capable("METADATA-SERVER");
        match self.purpose {
            Purpose::Client { probe: true } if has_metadata && !self.pushes => {
                self.ask_whether_it_pushes()
            }
            Purpose::Client { .. } | Purpose::Watch => self.finish(),
        }
    }

    fn ask_whether_it_pushes(&mut self) -> DialogueStep {
        self.state = DialogueState::Probe;
        let mut command = b"GETMETADATA \"\" (".to_vec();
        command.extend_from_slice(MAX_RECIPIENTS.as_bytes());
        command.extend_from_slice(b")\r\n");
        self.command(&String::from_utf8_lossy(&command), b"")
    }

    fn read_probe(&mut self, line: &[u8]) {
        if let Some(values) = metadata::values(line) {
            self.pushes |= values.entries.iter().any(|(entry, value)| {
                value.is_some() && entry.eq_ignore_ascii_case(MAX_RECIPIENTS.as_bytes())
            });
        }
    }

    fn finish(&mut self) -> DialogueStep {
        DialogueStep::LoggedIn(LoggedIn {
            answer: std::mem::take(&mut self.answer),
            untagged: std::mem::take(&mut self.for_client),
            capabilities: self.capabilities.clone().unwrap_or_default(),
            pushes: self.pushes,
        })
    }

    fn current_tag(&self) -> String {
        format!("dp{}", self.tag)
    }

    /// Whether `tag` is that of a command before the current one.
    fn is_earlier(&self, tag: Option<&[u8]>) -> bool {
        let number = tag.and_then(|tag| {
            std::str::from_utf8(tag.strip_prefix(b"dp")?).ok()?.parse::<u32>().ok()
        });
        number.is_some_and(|number| number > 0 && number < self.tag)
    }

    /// A command under a new tag, `secret` last.
    fn command(&mut self, text: &str, secret: &[u8]) -> DialogueStep {
        self.tag = self.tag.saturating_add(1);
        let plain = format!("{} {text}", self.current_tag());
        let mut bytes =
            Zeroizing::new(Vec::with_capacity(plain.len().saturating_add(secret.len())));
        bytes.extend_from_slice(plain.as_bytes());
        bytes.extend_from_slice(secret);
        DialogueStep::Send(OutgoingLine { bytes, secret_from: plain.len() })
    }
}

/// An empty line ends an exchange in which everything was said (RFC 4422 section 3), and the server its refusal.
fn acknowledgement(mechanism: Mechanism) -> OutgoingLine {
    // RFC 7628 section 3.2.3 wants a separator.
    let line = if mechanism == Mechanism::OAuthBearer { "AQ==" } else { "" };
    OutgoingLine::secretly(line_of(line))
}

/// Whether a continuation request has an empty challenge.
fn is_empty(line: &[u8]) -> bool {
    line.trim_ascii_end() == b"+"
}

/// A message in base64 with its line end.
fn line_of(message: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([message.as_bytes(), b"\r\n"].concat())
}

/// Condition, code and text, as the client shall get them behind its own tag.
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

#[cfg(test)]
mod tests;
