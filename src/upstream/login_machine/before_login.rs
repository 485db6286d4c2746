//! From the greeting to the login: capabilities, STARTTLS, and who asks.

use super::{Introduced, LoginAction, LoginError, LoginMachine, LoginState, LoginStep};
use crate::parser::id::Field;
use crate::policy::Security;
use crate::upstream::id;

impl LoginMachine {
    pub(super) fn greeted(&mut self) -> LoginStep {
        match &self.capabilities {
            None => Ok(Some(self.ask_capabilities(LoginState::Capability))),
            Some(_) => self.after_capabilities(),
        }
    }

    pub(super) fn ask_capabilities(&mut self, state: LoginState) -> LoginAction {
        self.state = state;
        self.command("CAPABILITY\r\n", b"")
    }

    pub(super) fn after_capabilities(&mut self) -> LoginStep {
        if self.security != Security::StartTls || self.has_tls {
            return self.introduce_or_log_in().map(Some);
        }
        if !self.capable("STARTTLS") {
            return Err(LoginError::NoStartTls);
        }
        self.state = LoginState::StartTls;
        Ok(Some(self.command("STARTTLS\r\n", b"")))
    }

    /// The connection has TLS now: what was said before it counts no more (RFC 9051 section 6.2.1).
    pub(super) fn secured(&mut self) -> LoginAction {
        self.has_tls = true;
        self.capabilities = None;
        self.for_client = Vec::new();
        self.lines_for_client = 0;
        self.ask_capabilities(LoginState::Capability)
    }

    /// Says who asks, where the server wants to know it before the login and there is somebody to name.
    pub(super) fn introduce_or_log_in(&mut self) -> Result<LoginAction, LoginError> {
        if !self.capable("ID") {
            return self.log_in();
        }
        self.introduced = Introduced::No;
        match self.introduction.before_login() {
            Some(fields) => Ok(self.send_id(LoginState::IdBefore, &fields)),
            None => self.log_in(),
        }
    }

    pub(super) fn send_id(&mut self, state: LoginState, fields: &[Field]) -> LoginAction {
        self.state = state;
        self.command(&id::command(fields), b"")
    }
}
