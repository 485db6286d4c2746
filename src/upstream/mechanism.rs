//! Choice of the login mechanism: one that the server offers and that fits the credentials.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::capabilities::Capabilities;
use crate::credentials::Mechanism;
use crate::credentials::{CredentialKind, Credentials};
use crate::parser::quote::{is_quotable, push_quoted};
use crate::parser::sasl::encoded_name;

/// The longest initial response that goes into the line of its command, in base64. Some servers take no more than 8 KiB in a
/// line, and access tokens are long.
const MAX_INITIAL: usize = 4096;

/// The longest string that goes into a line of LOGIN, and not into a literal: lines may have an end (RFC 7162 section 4).
const MAX_IN_LINE: usize = 1000;

/// Number of a server's mechanisms that an error names.
const MAX_NAMED: usize = 10;

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginMethod {
    /// The LOGIN command.
    Login,
    /// AUTHENTICATE.
    Sasl {
        /// By which mechanism.
        mechanism: Mechanism,
        /// The first message goes into the command's line (RFC 4959).
        initial: bool,
    },
}

impl LoginMethod {
    /// The mechanism; `None` for the LOGIN command.
    pub(super) fn mechanism(self) -> Option<Mechanism> {
        match self {
            Self::Login => None,
            Self::Sasl { mechanism, .. } => Some(mechanism),
        }
    }
}

/// Experience with a server's login methods.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints {
    /// The method that worked there before: tried first.
    pub(super) preferred: Option<LoginMethod>,
    /// Methods that were refused in this login: left out.
    pub(super) refused: Vec<LoginMethod>,
}

/// The server offers no login method for these credentials: what is missing, and what there is.
#[derive(Debug)]
pub(super) struct NoMechanism(pub(super) String);

/// The login methods for a server that offers `capabilities`, in the order in which they are tried. Never empty.
///
/// # Errors
/// [`NoMechanism`] if it has none for these credentials.
pub(super) fn methods(
    credentials: &Credentials,
    capabilities: &Capabilities,
    hints: &Hints,
) -> Result<Vec<LoginMethod>, NoMechanism> {
    let mut methods = listed(credentials, capabilities);
    if let Some(at) =
        hints.preferred.and_then(|preferred| methods.iter().position(|method| *method == preferred))
    {
        methods.rotate_left(at);
    }
    methods.retain(|method| !hints.refused.contains(method));
    if methods.is_empty() {
        return Err(NoMechanism(offered(credentials, capabilities)));
    }
    Ok(methods)
}

fn listed(credentials: &Credentials, capabilities: &Capabilities) -> Vec<LoginMethod> {
    let offers = |mechanism: &Mechanism| capabilities.has(&format!("AUTH={}", mechanism.name()));
    let sasl = |wanted: &[Mechanism]| -> Vec<LoginMethod> {
        wanted
            .iter()
            .filter(|mechanism| offers(mechanism))
            .flat_map(|it| forms(*it, credentials, capabilities))
            .collect()
    };
    match credentials.kind {
        // Only PLAIN has an authorization identity.
        CredentialKind::Password if credentials.authorization.is_some() => {
            sasl(&[Mechanism::Plain])
        }
        CredentialKind::Password => {
            let login = Some(LoginMethod::Login).filter(|_| !capabilities.has("LOGINDISABLED"));
            let plain = sasl(&[Mechanism::Plain]);
            let auth_login = sasl(&[Mechanism::Login]);
            // LOGIN is one round trip where PLAIN would be two. Otherwise PLAIN goes first: its strings are UTF-8 by definition.
            let is_login_shorter =
                !capabilities.has("SASL-IR") && can_use_login_line(credentials, capabilities);
            if is_login_shorter {
                login.into_iter().chain(plain).chain(auth_login).collect()
            } else if plain.is_empty() {
                login.into_iter().chain(auth_login).collect()
            } else {
                plain.into_iter().chain(auth_login).chain(login).collect()
            }
        }
        // Servers that have both had XOAUTH2 first.
        CredentialKind::Token => sasl(&[Mechanism::XOAuth2, Mechanism::OAuthBearer]),
        CredentialKind::Exchange(mechanism) => sasl(&[mechanism]),
    }
}

/// A mechanism with an initial response, where the server takes one and it fits, and without.
fn forms(
    mechanism: Mechanism,
    credentials: &Credentials,
    capabilities: &Capabilities,
) -> impl Iterator<Item = LoginMethod> + use<> {
    // The first prompt of LOGIN is a question of the server's.
    let can_begin = mechanism != Mechanism::Login && capabilities.has("SASL-IR");
    let fits =
        messages(credentials, mechanism).first().is_some_and(|first| first.len() <= MAX_INITIAL);
    let initial =
        Some(LoginMethod::Sasl { mechanism, initial: true }).filter(|_| can_begin && fits);
    initial.into_iter().chain([LoginMethod::Sasl { mechanism, initial: false }])
}

/// Reports if LOGIN can replace PLAIN, in one line.
fn can_use_login_line(credentials: &Credentials, capabilities: &Capabilities) -> bool {
    let fits = |string: &[u8]| is_quotable(string) && string.len() <= MAX_IN_LINE;
    credentials.authorization.is_none()
        && !capabilities.has("LOGINDISABLED")
        && fits(credentials.user.as_bytes())
        && fits(credentials.password.expose())
}

/// The mechanisms that the client could use instead, in words.
fn offered(credentials: &Credentials, capabilities: &Capabilities) -> String {
    let what = match credentials.kind {
        CredentialKind::Password if credentials.authorization.is_some() => {
            "no AUTH=PLAIN, which a login to another user's mailbox needs"
        }
        CredentialKind::Password => "no LOGIN and no AUTH=PLAIN",
        CredentialKind::Token => "no login with an access token",
        CredentialKind::Exchange(Mechanism::ScramSha1) => "no AUTH=SCRAM-SHA-1",
        CredentialKind::Exchange(_) => "no AUTH=SCRAM-SHA-256",
    };
    let login = Some("LOGIN".to_owned()).filter(|_| !capabilities.has("LOGINDISABLED"));
    let mechanisms = capabilities
        .mechanisms()
        .filter(|name| !name.ends_with("-PLUS"))
        .map(|name| format!("AUTH={name}"));
    let names: Vec<String> = login.into_iter().chain(mechanisms).take(MAX_NAMED).collect();
    match names.as_slice() {
        [] => format!("{what}, and no other way to log in"),
        names => format!("{what}, but {}", names.join(" ")),
    }
}

/// deltapush's own messages of an exchange by `mechanism`, in base64.
pub(super) fn messages(credentials: &Credentials, mechanism: Mechanism) -> Vec<String> {
    let encoded = |message: &[u8]| STANDARD.encode(message);
    let secret = credentials.password.expose();
    match mechanism {
        Mechanism::Plain => vec![encoded(&credentials.plain_message())],
        Mechanism::Login => vec![encoded(credentials.user.as_bytes()), encoded(secret)],
        Mechanism::XOAuth2 => {
            let start = format!("user={}\u{1}auth=Bearer ", credentials.user);
            vec![encoded(&[start.as_bytes(), secret, b"\x01\x01"].concat())]
        }
        Mechanism::OAuthBearer => {
            let start = format!("n,a={},\u{1}auth=Bearer ", encoded_name(&credentials.user));
            vec![encoded(&[start.as_bytes(), secret, b"\x01\x01"].concat())]
        }
        Mechanism::ScramSha1 | Mechanism::ScramSha256 => vec![encoded(secret)],
    }
}

/// User name and password as LOGIN takes them, with the line end. It is cut where a literal has to wait for the server; the last
/// piece first.
pub(super) fn login_arguments(credentials: &Credentials) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new()];
    let strings = [credentials.user.as_bytes(), credentials.password.expose()];
    for (index, string) in strings.into_iter().enumerate() {
        let Some(piece) = pieces.last_mut() else { continue };
        if index > 0 {
            piece.push(b' ');
        }
        if is_quotable(string) && string.len() <= MAX_IN_LINE {
            piece.reserve_exact(string.len().saturating_mul(2).saturating_add(8));
            push_quoted(piece, string);
        } else {
            piece.extend_from_slice(format!("{{{}}}\r\n", string.len()).as_bytes());
            // With room for the line end.
            let mut literal = Vec::with_capacity(string.len().saturating_add(2));
            literal.extend_from_slice(string);
            pieces.push(literal);
        }
    }
    if let Some(last) = pieces.last_mut() {
        last.extend_from_slice(b"\r\n");
    }
    pieces.reverse();
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(list: &str) -> Capabilities {
        Capabilities::from_names(list.as_bytes().split(|byte| *byte == b' '))
    }

    fn way(credentials: &Credentials, list: &str) -> Result<LoginMethod, String> {
        let methods = methods(credentials, &capabilities(list), &Hints::default());
        methods.map(|methods| methods[0]).map_err(|NoMechanism(offered)| offered)
    }

    fn sasl(mechanism: Mechanism, initial: bool) -> Result<LoginMethod, String> {
        Ok(LoginMethod::Sasl { mechanism, initial })
    }

    #[test]
    fn password_goes_wherever_one_is_taken() {
        let password = Credentials::new("u", "p");
        assert_eq!(way(&password, "IMAP4rev1"), Ok(LoginMethod::Login));
        assert_eq!(way(&password, "AUTH=LOGIN SASL-IR"), Ok(LoginMethod::Login));
        assert_eq!(way(&password, "AUTH=LOGIN AUTH=PLAIN SASL-IR"), sasl(Mechanism::Plain, true));
        assert_eq!(
            way(&password, "AUTH=LOGIN AUTH=PLAIN"),
            Ok(LoginMethod::Login),
            "a round trip less"
        );
        assert_eq!(way(&password, "LOGINDISABLED AUTH=PLAIN"), sasl(Mechanism::Plain, false));
        assert_eq!(way(&Credentials::new("u", "pä"), "AUTH=PLAIN"), sasl(Mechanism::Plain, false));
        assert_eq!(
            way(&password, "LOGINDISABLED AUTH=PLAIN SASL-IR"),
            sasl(Mechanism::Plain, true)
        );
        assert_eq!(
            way(&password, "LOGINDISABLED AUTH=LOGIN SASL-IR"),
            sasl(Mechanism::Login, false)
        );
        assert_eq!(
            way(&Credentials::new("u", "p".repeat(9000)), "AUTH=PLAIN SASL-IR"),
            sasl(Mechanism::Plain, false)
        );
        assert_eq!(
            way(&password.clone().on_behalf_of("v".into()), "AUTH=PLAIN"),
            sasl(Mechanism::Plain, false)
        );
        for (list, expected) in [
            (
                "LOGINDISABLED AUTH=XOAUTH2 AUTH=OAUTHBEARER",
                "no AUTH=PLAIN, but AUTH=XOAUTH2 AUTH=OAUTHBEARER",
            ),
            (
                "LOGINDISABLED AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-256-PLUS",
                "no AUTH=PLAIN, but AUTH=SCRAM-SHA-256",
            ),
            ("LOGINDISABLED", "no LOGIN and no AUTH=PLAIN, and no other way to log in"),
        ] {
            let refused = way(&password, list).unwrap_err();
            assert!(refused.ends_with(expected), "{refused}");
        }
        let other = way(&password.on_behalf_of("v".into()), "AUTH=LOGIN").unwrap_err();
        assert!(
            other.ends_with(
                "no AUTH=PLAIN, which a login to another user's mailbox needs, but LOGIN AUTH=LOGIN"
            ),
            "{other}"
        );
    }

    #[test]
    fn methods_have_an_order_and_experience_changes_it() {
        let password = Credentials::new("u", "p");
        let order = |credentials: &Credentials, list: &str, hints: &Hints| {
            let shown = |method: LoginMethod| match method {
                LoginMethod::Login => "login".to_owned(),
                LoginMethod::Sasl { mechanism, initial } => {
                    format!("{}{}", mechanism.name(), if initial { "+" } else { "" })
                }
            };
            let methods = methods(credentials, &capabilities(list), hints).unwrap();
            methods.into_iter().map(shown).collect::<Vec<_>>().join(" ")
        };
        let none = Hints::default();
        assert_eq!(
            order(&password, "AUTH=PLAIN AUTH=LOGIN SASL-IR", &none),
            "PLAIN+ PLAIN LOGIN login"
        );
        assert_eq!(order(&password, "AUTH=PLAIN LOGINDISABLED", &none), "PLAIN");
        assert_eq!(order(&password, "AUTH=LOGIN", &none), "login LOGIN");
        assert_eq!(
            order(&password.clone().on_behalf_of("v".into()), "AUTH=PLAIN AUTH=LOGIN", &none),
            "PLAIN"
        );
        let token = Credentials::bearer("u", "t");
        let both = "AUTH=PLAIN AUTH=OAUTHBEARER AUTH=XOAUTH2 SASL-IR";
        assert_eq!(order(&token, both, &none), "XOAUTH2+ XOAUTH2 OAUTHBEARER+ OAUTHBEARER");
        let scram = Credentials::exchange(Mechanism::ScramSha256, "u", "n,,n=u,r=x");
        assert_eq!(
            order(&scram, "AUTH=SCRAM-SHA-256 AUTH=PLAIN SASL-IR", &none),
            "SCRAM-SHA-256+ SCRAM-SHA-256"
        );
        let login = Hints { preferred: Some(LoginMethod::Login), refused: vec![] };
        assert_eq!(order(&password, "AUTH=PLAIN SASL-IR", &login), "login PLAIN+ PLAIN");
        assert_eq!(
            order(&password, "AUTH=PLAIN LOGINDISABLED", &login),
            "PLAIN",
            "not listed any more"
        );
        let refused = vec![LoginMethod::Sasl { mechanism: Mechanism::Plain, initial: true }];
        let hints = Hints { preferred: None, refused };
        assert_eq!(order(&password, "AUTH=PLAIN SASL-IR", &hints), "PLAIN login");
    }

    #[test]
    fn tokens_and_exchanges_go_where_they_are_known() {
        let token = Credentials::bearer("u", "t");
        assert_eq!(
            way(&token, "AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER SASL-IR"),
            sasl(Mechanism::XOAuth2, true)
        );
        assert_eq!(way(&token, "AUTH=PLAIN AUTH=OAUTHBEARER"), sasl(Mechanism::OAuthBearer, false));
        let refused = way(&token, "AUTH=PLAIN").unwrap_err();
        assert!(
            refused.ends_with("no login with an access token, but LOGIN AUTH=PLAIN"),
            "{refused}"
        );
        let scram = |mechanism| Credentials::exchange(mechanism, "u", "n,,n=u,r=x");
        let list = "AUTH=PLAIN AUTH=SCRAM-SHA-256 SASL-IR";
        assert_eq!(way(&scram(Mechanism::ScramSha256), list), sasl(Mechanism::ScramSha256, true));
        let refused = way(&scram(Mechanism::ScramSha1), list).unwrap_err();
        assert!(
            refused.ends_with("no AUTH=SCRAM-SHA-1, but LOGIN AUTH=PLAIN AUTH=SCRAM-SHA-256"),
            "{refused}"
        );
        assert!(
            !refused.to_lowercase().contains("authentication"),
            "Delta Chat would blame the password"
        );
    }

    #[test]
    fn tokens_are_converted() {
        let token = Credentials::bearer("a,b=c@d", "t");
        let said = |mechanism| STANDARD.decode(messages(&token, mechanism)[0].as_str()).unwrap();
        assert_eq!(said(Mechanism::XOAuth2), b"user=a,b=c@d\x01auth=Bearer t\x01\x01");
        assert_eq!(said(Mechanism::OAuthBearer), b"n,a=a=2Cb=3Dc@d,\x01auth=Bearer t\x01\x01");
        for mechanism in [Mechanism::XOAuth2, Mechanism::OAuthBearer] {
            let read = match mechanism {
                Mechanism::XOAuth2 => crate::parser::sasl::xoauth2_message(&said(mechanism)),
                _ => crate::parser::sasl::oauthbearer_message(&said(mechanism)),
            };
            assert_eq!(read.as_ref(), Some(&token));
        }
    }
}
