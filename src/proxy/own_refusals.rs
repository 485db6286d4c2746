//! Refusals at the login that depend on the case. The fixed lines, and the rules for all of them, are in
//! [`own_lines`](super::own_lines).

use std::fmt;
use std::time::Duration;

use crate::admission::failed_logins::{Blocked, LoginLimit};
use crate::admission::report::in_words;
use crate::upstream::connect::ConnectError;
use crate::upstream::discovery::DiscoveryError;
use crate::upstream::login_machine::LoginError;

/// Why deltapush itself refuses a login, or ends a connection before one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OwnRefusal {
    /// A limit of failed logins is reached.
    Limit(Blocked),
    /// The mail server has refused this password before; after this time it is asked again.
    Repeated(Duration),
    /// A login with an invented name, to which there is no account.
    Invented,
    /// Others log in to the same mail server, and took all the time.
    OthersFirst,
    /// `allow` does not name the login.
    NotAllowed,
    /// No route is for the login.
    NoRoute,
    /// A mailbox of one domain, a login of another.
    OtherDomain,
    /// The login name is longer than this.
    LongName(usize),
    /// STARTTLS has to come first.
    NotEncrypted,
    /// SCRAM where the mail server has another name for the login.
    OtherName,
    /// The mail server gives no session.
    Unavailable(&'static str),
    /// The mail server ended the connection with these words.
    Bye(String),
    /// The mail server complained with these words, and then did not answer.
    Complaint(String),
    /// The mail server offers no way to log in with what the client gave, but these.
    NoMechanism(String),
    /// The connection has tried too many logins.
    TooManyTries,
    /// The login took too long.
    TookTooLong,
    /// There are too many connections.
    TooManyConnections,
}

impl OwnRefusal {
    /// The refusal of a login for which the mail server gives no session.
    pub(super) fn of_error(error: &ConnectError) -> Self {
        Self::Unavailable(match error {
            ConnectError::Login(LoginError::Bye(words)) => return Self::Bye(harmless(words)),
            ConnectError::Complaint { words, .. } => return Self::Complaint(harmless(words)),
            ConnectError::Login(LoginError::NoMechanism(offered)) => {
                return Self::NoMechanism(harmless(offered));
            }
            ConnectError::Unreachable(_) => "The mail server cannot be reached. Try again later.",
            ConnectError::Tls(_) | ConnectError::Login(LoginError::NoStartTls) => {
                "There is no secure connection to the mail server. Ask the operator of this server."
            }
            ConnectError::Broken(_) => "The mail server broke off the connection. Try again later.",
            ConnectError::TimedOut(_) => "The mail server did not answer in time. Try again later.",
            ConnectError::NotFound(DiscoveryError::Failed { .. }) => {
                "The mail server for this address cannot be found at the moment. Try again later."
            }
            ConnectError::NotFound(DiscoveryError::Unusable(_)) => {
                "The mail server for this address cannot be found. Ask the operator of this server."
            }
            ConnectError::NotFound(DiscoveryError::Absent(_) | DiscoveryError::NotOffered(_)) => {
                "There is no mail server for this address. Check the address."
            }
            ConnectError::NoPermit => return Self::OthersFirst,
            ConnectError::TooMuch | ConnectError::Injected | ConnectError::Login(_) => {
                "The mail server gave an answer that cannot be used. Ask the operator of this server."
            }
        })
    }

    /// The condition, with a response code (RFC 5530).
    fn condition(&self) -> &'static str {
        match self {
            Self::Limit(_)
            | Self::OthersFirst
            | Self::Unavailable(_)
            | Self::Bye(_)
            | Self::Complaint(_) => "NO [UNAVAILABLE]",
            Self::Repeated(_) | Self::Invented => "NO [AUTHENTICATIONFAILED]",
            Self::NotAllowed | Self::NoRoute | Self::OtherDomain => "NO [AUTHORIZATIONFAILED]",
            Self::NotEncrypted => "NO [PRIVACYREQUIRED]",
            Self::LongName(_) | Self::OtherName | Self::NoMechanism(_) => "NO [CANNOT]",
            Self::TooManyConnections => "BYE [UNAVAILABLE]",
            Self::TooManyTries | Self::TookTooLong => "BYE",
        }
    }
}

impl fmt::Display for OwnRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.condition())?;
        match self {
            Self::Limit(Blocked { limit, wait }) => {
                let what = match limit {
                    LoginLimit::Address => "Too many wrong passwords from this network.",
                    LoginLimit::Account => "Too many wrong passwords for this account.",
                    LoginLimit::Upstream => "Too many wrong passwords at this mail server.",
                    LoginLimit::Servers => "Too many different mail servers from this network.",
                };
                write!(f, "{what} Try again in {}.", in_words(*wait))
            }
            Self::Repeated(wait) => {
                write!(f, "The mail server has refused this password. Correct it, or try again in {}.", in_words(*wait))
            }
            Self::Invented => {
                f.write_str("There is no account with this name here. If it is yours, ask the operator of this server.")
            }
            Self::OthersFirst => {
                f.write_str("Many people log in to this mail server at the moment. Try again in a minute.")
            }
            Self::NotAllowed => f.write_str("This address may not be used here. Ask the operator of this server."),
            Self::NoRoute => f.write_str(
                "This server is not set up for this address. Check the address, or ask the operator of this server.",
            ),
            Self::OtherDomain => f.write_str("The login name and the mailbox are not of the same domain."),
            Self::LongName(most) => write!(f, "This login name is too long. It may have {most} bytes."),
            Self::NotEncrypted => f.write_str("This connection is not encrypted. Choose STARTTLS in the settings."),
            Self::OtherName => {
                f.write_str("SCRAM cannot be used with this mail server. Choose another way to log in: PLAIN.")
            }
            Self::Unavailable(words) => f.write_str(words),
            Self::Bye(words) => write!(f, "The mail server closed the connection: {}", sentence(words)),
            Self::Complaint(words) => write!(f, "The mail server does not let you in: {}", sentence(words)),
            Self::NoMechanism(offered) => write!(f, "The mail server offers {}", sentence(offered)),
            Self::TooManyTries => f.write_str("Too many logins failed in this connection. Check the password."),
            Self::TookTooLong => f.write_str("The login took too long. Try again."),
            Self::TooManyConnections => f.write_str("Too many connections at the moment. Try again later."),
        }
    }
}

/// Words with a full stop.
fn sentence(words: &str) -> String {
    let words = words.trim_end();
    let stop = if words.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{words}{stop}")
}

/// Words of a server that fit on a line, and in which Delta Chat does not find the one that makes it blame the password.
pub(super) fn harmless(words: &str) -> String {
    if words.to_lowercase().contains("authentication") {
        return "nobody can log in there at the moment.".into();
    }
    words.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;

    use super::*;

    /// One of each.
    pub(crate) fn all() -> Vec<OwnRefusal> {
        let wait = Duration::from_secs(471);
        let limits =
            [LoginLimit::Address, LoginLimit::Account, LoginLimit::Upstream, LoginLimit::Servers];
        let broken = || io::Error::other("x");
        let errors = [
            ConnectError::Unreachable(broken()),
            ConnectError::Tls(broken()),
            ConnectError::Broken(broken()),
            ConnectError::TimedOut(wait),
            ConnectError::TooMuch,
            ConnectError::Injected,
            ConnectError::NoPermit,
            DiscoveryError::Absent("lab.test".into()).into(),
            DiscoveryError::Unusable(Default::default()).into(),
            DiscoveryError::Failed { domain: "lab.test".into(), reason: "x".into() }.into(),
            LoginError::Bye("Authentication service is down".into()).into(),
            LoginError::NoMechanism("no PLAIN, but LOGIN".into()).into(),
            ConnectError::Complaint {
                words: "Enable IMAP.".into(),
                end: Box::new(ConnectError::TimedOut(wait)),
            },
            LoginError::Preauth.into(),
            LoginError::NoStartTls.into(),
            LoginError::Protocol("x").into(),
        ];
        let mut all = vec![
            OwnRefusal::Repeated(wait),
            OwnRefusal::Invented,
            OwnRefusal::OthersFirst,
            OwnRefusal::NotAllowed,
            OwnRefusal::NoRoute,
            OwnRefusal::OtherDomain,
            OwnRefusal::LongName(320),
            OwnRefusal::NotEncrypted,
            OwnRefusal::OtherName,
            OwnRefusal::TooManyTries,
            OwnRefusal::TookTooLong,
            OwnRefusal::TooManyConnections,
        ];
        all.extend(limits.map(|limit| OwnRefusal::Limit(Blocked { limit, wait })));
        all.extend(errors.iter().map(OwnRefusal::of_error));
        all
    }

    #[test]
    fn only_refusals_about_the_password_look_like_it() {
        for refusal in all() {
            let line = refusal.to_string();
            let text = line.split_once("] ").map_or(line.as_str(), |(_, text)| text).to_lowercase();
            assert!(!text.contains("authentication"), "{line}");
            let blames = line.to_lowercase().contains("authentication")
                || text.contains("password is wrong");
            let is_about_the_password =
                matches!(refusal, OwnRefusal::Repeated(_) | OwnRefusal::Invented);
            assert_eq!(blames, is_about_the_password, "{line}");
        }
    }

    #[test]
    fn every_refusal_is_documented() {
        let page = include_str!("../../docs/deltapush-own-lines.md");
        let documented = |line: &str| page.contains(line);
        let missing: Vec<String> = all()
            .iter()
            .filter(|refusal| {
                !matches!(
                    refusal,
                    OwnRefusal::Bye(_) | OwnRefusal::Complaint(_) | OwnRefusal::NoMechanism(_)
                )
            })
            .map(ToString::to_string)
            .filter(|line| !documented(line))
            .collect();
        assert!(missing.is_empty(), "{missing:#?}");
    }

    #[test]
    fn waiting_times_are_words() {
        let words = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(
            (words(0), words(60), words(61), words(471)),
            ("1 minute".into(), "1 minute".into(), "2 minutes".into(), "8 minutes".into())
        );
        assert_eq!(
            (words(5340), words(5400), words(24 * 3600)),
            ("89 minutes".into(), "2 hours".into(), "24 hours".into())
        );
    }
}
