//! One login attempt at the account's mail server, in which the client may have to answer: SCRAM is passed on between
//! the two, and a server explains why it refuses an access token.

use std::sync::Arc;

use super::client_stream::Conversation;
use super::incoming_client::{IncomingClient, NoLogin};
use super::own_lines;
use super::preauth::{NotAuthenticated, PreauthEvent, PreauthInput};
use crate::credentials::Credentials;
use crate::parser::sasl::SaslLine;
use crate::secret::Secret;
use crate::trace::{Mark, Piece, Speaker};
use crate::upstream::connect::{ConnectError, Connected, LoginRequest, LoginStage};
use crate::upstream::login_machine::{LoginError, Purpose};
use crate::upstream::permit::Permit;
use crate::upstream::refusal::{LoginRefusal, classify, classify_bye};
use crate::upstream::route::Target;

/// A client that waits for its login to be answered, and may be asked for more meanwhile.
pub(super) struct WaitingClient<'a> {
    pub(super) client: &'a mut Conversation,
    pub(super) machine: &'a mut NotAuthenticated,
    pub(super) received: &'a mut Vec<u8>,
    /// It was.
    pub(super) was_asked: bool,
}

/// Why an attempt brought no session.
pub(super) enum AttemptError {
    /// The upstream gave none.
    Upstream(ConnectError),
    /// The client has left an exchange; this is what it hears.
    GaveUp(&'static str),
    /// The client is gone.
    Client(NoLogin),
}

impl From<ConnectError> for AttemptError {
    fn from(error: ConnectError) -> Self {
        Self::Upstream(error)
    }
}

impl From<NoLogin> for AttemptError {
    fn from(end: NoLogin) -> Self {
        Self::Client(end)
    }
}

impl AttemptError {
    /// Reports if the server has no session left for this account.
    pub(super) fn is_too_many(&self) -> bool {
        let Self::Upstream(error) = self else { return false };
        match error.end() {
            ConnectError::Login(LoginError::Refused { answer, untagged }) => {
                classify(answer, untagged) == LoginRefusal::TooManySessions
            }
            // Some say it in a BYE, with or without an alert.
            ConnectError::Login(LoginError::Bye(words)) => {
                classify_bye(words) == LoginRefusal::TooManySessions
            }
            _ => false,
        }
    }
}

impl IncomingClient {
    /// Connects to `target` and logs in there.
    pub(super) async fn attempt(
        &mut self,
        target: &Target,
        credentials: &Credentials,
        probe: bool,
        permit: &dyn Permit,
        waiting: &mut WaitingClient<'_>,
    ) -> Result<Connected, AttemptError> {
        let upstreams = Arc::clone(&self.proxy.upstreams);
        let purpose = Purpose::Client { probe };
        let origin = Some(self.origin());
        let introduction = (*self.introduction).clone();
        let credentials = credentials.clone();
        let permit = Some(permit);
        let attempt = LoginRequest {
            target,
            upstreams: &upstreams,
            credentials,
            purpose,
            origin,
            introduction,
            permit,
        };
        let mut progress = attempt.begin(self.trace.transcript()).await?;
        loop {
            match progress {
                LoginStage::LoggedIn(connected) => return Ok(*connected),
                LoginStage::Challenge { challenge, login } => {
                    let response = self.ask(waiting, &challenge).await?;
                    progress = login.respond(&response, self.trace.transcript()).await?;
                }
            }
        }
    }

    /// Hands a challenge of the upstream's to the client, and waits for the answer.
    async fn ask(
        &mut self,
        waiting: &mut WaitingClient<'_>,
        challenge: &[u8],
    ) -> Result<Secret, AttemptError> {
        waiting.was_asked = true;
        self.handle(waiting.client, waiting.machine, PreauthInput::Challenge).await?;
        if let Some(transcript) = self.trace.transcript() {
            transcript.piece(Speaker::ToClient, Mark::Relayed, Piece::Text(b"+ "));
            transcript.piece(Speaker::ToClient, Mark::Relayed, Piece::Masked(challenge.len()));
            transcript.piece(Speaker::ToClient, Mark::Relayed, Piece::Text(b"\r\n"));
        }
        waiting.client.send(&[b"+ ", challenge, b"\r\n"].concat()).await.map_err(NoLogin::from)?;
        match self.next_event(waiting.client, waiting.machine, waiting.received).await? {
            PreauthEvent::Response(SaslLine::Response(response)) => Ok(response),
            PreauthEvent::Response(SaslLine::Cancelled) => {
                Err(AttemptError::GaveUp(own_lines::CANCELLED))
            }
            PreauthEvent::Response(SaslLine::Malformed) => {
                Err(AttemptError::GaveUp(own_lines::NOT_BASE64))
            }
            PreauthEvent::TimedOut => Err(NoLogin::TimedOut.into()),
            _ => Err(NoLogin::Closed.into()),
        }
    }
}
