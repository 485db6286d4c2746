//! The response to a client whose login failed.

use std::time::Duration;

use super::own_refusals::OwnRefusal;
use crate::parser::response;
use crate::telemetry::LoginResult;
use crate::upstream::connect::ConnectError;
use crate::upstream::login_machine::LoginError;
use crate::upstream::refusal::{self, LoginRefusal};

/// The answer to a failed login: untagged lines, and the tagged answer without its tag.
pub(super) struct Refused {
    pub(super) untagged: Vec<u8>,
    pub(super) answer: Vec<u8>,
    /// Delay of the answer.
    pub(super) delay: Duration,
    /// The result for counters.
    pub(super) result: LoginResult,
}

impl Refused {
    pub(super) fn new(result: LoginResult, answer: &str) -> Self {
        Self { untagged: Vec::new(), answer: answer.into(), delay: Duration::ZERO, result }
    }

    /// A refusal of deltapush's own.
    pub(super) fn own(result: LoginResult, refusal: &OwnRefusal) -> Self {
        Self::new(result, &refusal.to_string())
    }

    /// The same, said after a wait.
    pub(super) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// A refusal of the server goes on as it is if it is about the password. All else is no wrong password, and must not look
    /// like one: Delta Chat warns its user if it finds the word "authentication".
    pub(super) fn from_error(error: ConnectError) -> Self {
        match error {
            ConnectError::Login(LoginError::Refused { answer, untagged }) => {
                let result = match refusal::classify(&answer, &untagged) {
                    LoginRefusal::Credentials | LoginRefusal::Unclear => LoginResult::Refused,
                    LoginRefusal::TooManySessions
                    | LoginRefusal::Temporary
                    | LoginRefusal::Throttled
                    | LoginRefusal::Disabled => LoginResult::Unavailable,
                };
                let (answer, untagged) = refusal::for_client(answer, untagged);
                let (untagged, line) =
                    (stay(&untagged), stay(&[b"* ", answer.as_slice(), b"\r\n"].concat()));
                let answer = line.get(2..).unwrap_or_default().trim_ascii_end().to_vec();
                Self { untagged, answer, delay: Duration::ZERO, result }
            }
            // The next login would fare no better (RFC 5530 section 3).
            ConnectError::Login(LoginError::NoMechanism(_)) => {
                Self::own(LoginResult::NoMechanism, &OwnRefusal::of_error(&error))
            }
            error => Self::own(LoginResult::Unavailable, &OwnRefusal::of_error(&error)),
        }
    }
}

/// Lines without referrals to servers that the client would reach without deltapush.
fn stay(lines: &[u8]) -> Vec<u8> {
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    lines
        .flat_map(|line| response::without_referral(line).unwrap_or_else(|| line.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outage_never_looks_like_a_wrong_password() {
        let bye = LoginError::Bye("Authentication service is down".into());
        let refused = Refused::from_error(bye.into());
        assert_eq!(
            refused.answer,
            b"NO [UNAVAILABLE] The mail server closed the connection: nobody can log in there at the moment."
        );
        let bye = LoginError::Bye("too many\r\nsessions".into());
        let refused = Refused::from_error(bye.into());
        assert_eq!(
            refused.answer,
            b"NO [UNAVAILABLE] The mail server closed the connection: too many  sessions."
        );
        let answer = b"NO [AUTHENTICATIONFAILED] wrong".to_vec();
        let refused = Refused::from_error(
            LoginError::Refused { answer: answer.clone(), untagged: vec![] }.into(),
        );
        assert_eq!(refused.answer, answer);
        let answer = b"NO [REFERRAL IMAP://u@two.example/] Try two.example".to_vec();
        let untagged =
            b"* OK [REFERRAL IMAP://u@two.example/] moved\r\n* NO [ALERT] x\r\n".to_vec();
        let refused = Refused::from_error(LoginError::Refused { answer, untagged }.into());
        assert_eq!(refused.answer, b"NO Try two.example");
        assert_eq!(refused.untagged, b"* OK moved\r\n* NO [ALERT] x\r\n");
    }
}
