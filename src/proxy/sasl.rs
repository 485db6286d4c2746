//! A SASL exchange (RFC 9051 section 6.2.2) with a client before its login, up to the credentials in it, as a machine.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use super::own_lines;
use crate::credentials::Credentials;
use crate::credentials::Mechanism;
use crate::parser::sasl::{self, NoScram, SaslLine};

/// `Username:` and `Password:`, as every server asks that has LOGIN.
const PROMPTS: (&str, &str) = ("VXNlcm5hbWU6", "UGFzc3dvcmQ6");

/// The client's next line.
pub(super) enum Exchange {
    /// The only message of its mechanism, the first of SCRAM, or the user name of LOGIN.
    First(Mechanism),
    /// The password of LOGIN.
    Password {
        /// The user name, which came before.
        user: String,
    },
    /// The answer to a challenge of the upstream's.
    Relayed,
}

/// The result of a line.
pub(super) enum SaslStep {
    /// This challenge, in base64, goes to the client, and then it is its turn.
    Ask(&'static str, Exchange),
    /// The client has said who it is.
    LogIn(Credentials),
    /// For the upstream.
    Relay(SaslLine),
    /// The exchange is over, with these words.
    Refuse(&'static str),
}

/// AUTHENTICATE with the mechanism of that name, and perhaps an initial response (RFC 4959).
pub(super) fn begin(mechanism: &[u8], initial: Option<&[u8]>) -> SaslStep {
    let Some(mechanism) = Mechanism::from_name(mechanism) else {
        return SaslStep::Refuse(own_lines::NO_SUCH_MECHANISM);
    };
    let exchange = Exchange::First(mechanism);
    match initial {
        Some(line) => exchange.line(line),
        None if mechanism == Mechanism::Login => SaslStep::Ask(PROMPTS.0, exchange),
        None => SaslStep::Ask("", exchange),
    }
}

impl Exchange {
    /// Takes the client's line, with or without its line end.
    pub(super) fn line(self, line: &[u8]) -> SaslStep {
        let response = match (sasl::sasl_line(line), &self) {
            (line, Self::Relayed) => return SaslStep::Relay(line),
            (SaslLine::Cancelled, _) => return SaslStep::Refuse(own_lines::CANCELLED),
            (SaslLine::Malformed, _) => return SaslStep::Refuse(own_lines::NOT_BASE64),
            (SaslLine::Response(response), _) => response,
        };
        let message = response.expose();
        match self {
            Self::First(Mechanism::Login) => {
                match sasl::user_name(message).filter(|user| !user.is_empty()) {
                    Some(user) => SaslStep::Ask(PROMPTS.1, Self::Password { user }),
                    None => SaslStep::Refuse(own_lines::NOT_A_USER_NAME),
                }
            }
            Self::Password { user } if sasl::is_password(message) => {
                SaslStep::LogIn(Credentials::new(user, message))
            }
            Self::Password { .. } => SaslStep::Refuse(own_lines::NOT_A_PASSWORD),
            Self::First(mechanism) => first(mechanism, message),
            // Returned above.
            Self::Relayed => SaslStep::Refuse(own_lines::CANCELLED),
        }
    }
}

fn first(mechanism: Mechanism, message: &[u8]) -> SaslStep {
    let (credentials, malformed) = match mechanism {
        Mechanism::XOAuth2 => (sasl::xoauth2_message(message), own_lines::NOT_XOAUTH2),
        Mechanism::OAuthBearer => (sasl::oauthbearer_message(message), own_lines::NOT_OAUTHBEARER),
        Mechanism::ScramSha1 | Mechanism::ScramSha256 => {
            match sasl::scram_first(mechanism, message) {
                Err(NoScram::ChannelBinding) => {
                    return SaslStep::Refuse(own_lines::NO_CHANNEL_BINDING);
                }
                first => (first.ok(), own_lines::NOT_SCRAM),
            }
        }
        Mechanism::Plain | Mechanism::Login => (sasl::plain_message(message), own_lines::NOT_PLAIN),
    };
    credentials.map_or(SaslStep::Refuse(malformed), SaslStep::LogIn)
}
