//! Client messages of a SASL exchange (RFC 4422), as far as deltapush reads them: the mechanisms, and the messages with the
//! login name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::credentials::{Credentials, Mechanism};
use crate::secret::Secret;

/// A client's answer to a SASL challenge (RFC 9051 section 6.2.2).
#[derive(Debug, PartialEq, Eq)]
pub enum SaslLine {
    /// `*`: the exchange is cancelled.
    Cancelled,
    /// The decoded response.
    Response(Secret),
    /// Not base64.
    Malformed,
}

/// Reads a line that the client sent in a SASL exchange, with or without its line end; `=` stands for an empty initial
/// response (RFC 4959 section 3).
#[must_use]
pub fn sasl_line(line: &[u8]) -> SaslLine {
    match line.trim_ascii_end() {
        b"*" => SaslLine::Cancelled,
        b"=" => SaslLine::Response(Secret::new(Vec::new())),
        encoded => match STANDARD.decode(encoded) {
            Ok(decoded) => SaslLine::Response(Secret::new(decoded)),
            Err(_) => SaslLine::Malformed,
        },
    }
}

/// A login name as deltapush accepts it, from any mechanism: UTF-8, without what would end a line or a message of PLAIN.
#[must_use]
pub fn user_name(bytes: &[u8]) -> Option<String> {
    let name = String::from_utf8(bytes.to_vec()).ok()?;
    (!name.contains(['\0', '\r', '\n'])).then_some(name)
}

/// A password as it can be handed on: NUL fits neither into a literal (RFC 9051 section 4.3) nor into a message of PLAIN.
#[must_use]
pub fn is_password(bytes: &[u8]) -> bool {
    !bytes.contains(&0)
}

/// The credentials in a message of SASL PLAIN (RFC 4616 section 2). `None` if it is malformed.
#[must_use]
pub fn plain_message(message: &[u8]) -> Option<Credentials> {
    let mut parts = message.split(|byte| *byte == 0);
    let (authorization, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || user.is_empty() || password.is_empty() {
        return None;
    }
    Some(Credentials::new(user_name(user)?, password).on_behalf_of(user_name(authorization)?))
}

/// Between the fields of XOAUTH2 and OAUTHBEARER.
const SEPARATOR: u8 = 1;

/// The credentials in a message of XOAUTH2: `user=` name ^A `auth=Bearer ` token ^A ^A. `None` if it is malformed.
#[must_use]
pub fn xoauth2_message(message: &[u8]) -> Option<Credentials> {
    let mut fields =
        message.strip_suffix(&[SEPARATOR, SEPARATOR])?.split(|byte| *byte == SEPARATOR);
    let user = fields.next()?.strip_prefix(b"user=").filter(|user| !user.is_empty())?;
    let token = bearer(fields.next()?)?;
    if fields.next().is_some() {
        return None;
    }
    Some(Credentials::bearer(user_name(user)?, token))
}

/// The credentials in a message of OAUTHBEARER (RFC 7628 section 3.1). `None` if it is malformed, wants channel binding, or
/// does not say whose token it is: without a name there is no telling whose server to ask.
#[must_use]
pub fn oauthbearer_message(message: &[u8]) -> Option<Credentials> {
    let mut fields =
        message.strip_suffix(&[SEPARATOR, SEPARATOR])?.split(|byte| *byte == SEPARATOR);
    let (user, rest) = gs2_header(fields.next()?).ok()?;
    let user = user.filter(|_| rest.is_empty())?;
    // `host` and `port` name deltapush: they are not handed on.
    let token = fields.find_map(bearer)?;
    Some(Credentials::bearer(user, token))
}

/// The token in `auth=Bearer token` (RFC 6750 section 2.1).
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.strip_prefix(b"auth=")?.split_at_checked(b"Bearer ".len())?;
    let is_token = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    (is_token && scheme.eq_ignore_ascii_case(b"Bearer ")).then_some(token)
}

/// Why the first message of a SCRAM exchange is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoScram {
    /// It wants to be bound to the TLS channel, of which there are two.
    ChannelBinding,
    /// It is none of RFC 5802.
    Malformed,
}

/// The credentials of a SCRAM exchange that begins with `message` (RFC 5802 section 7: client-first-message), good for that
/// exchange only.
///
/// # Errors
/// [`NoScram`].
pub fn scram_first(mechanism: Mechanism, message: &[u8]) -> Result<Credentials, NoScram> {
    let (authorization, bare) = gs2_header(message)?;
    // An attribute m= is an extension that must be understood, and nobody has defined one.
    let mut attributes = bare.split(|byte| *byte == b',');
    let user =
        attributes.next().and_then(|name| name.strip_prefix(b"n=")).ok_or(NoScram::Malformed)?;
    let user = sasl_name(user).ok_or(NoScram::Malformed)?;
    let has_nonce =
        attributes.next().is_some_and(|nonce| nonce.starts_with(b"r=") && nonce.len() > 2);
    if !has_nonce || !message.iter().all(|byte| !matches!(byte, 0 | b'\r' | b'\n')) {
        return Err(NoScram::Malformed);
    }
    Ok(Credentials::exchange(mechanism, user, message)
        .on_behalf_of(authorization.unwrap_or_default()))
}

/// The GS2 header (RFC 5801 section 4): the authorization identity, and what follows.
fn gs2_header(message: &[u8]) -> Result<(Option<String>, &[u8]), NoScram> {
    let mut parts = message.splitn(3, |byte| *byte == b',');
    let (Some(flag), Some(authorization), Some(rest)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(NoScram::Malformed);
    };
    match flag {
        // y: the client could bind, and believes that the server cannot. The server judges whether that is so.
        b"n" | b"y" => {}
        _ if flag.starts_with(b"p=") => return Err(NoScram::ChannelBinding),
        _ => return Err(NoScram::Malformed),
    }
    let authorization = match authorization {
        b"" => None,
        named => Some(named.strip_prefix(b"a=").and_then(sasl_name).ok_or(NoScram::Malformed)?),
    };
    Ok((authorization, rest))
}

/// A name in which `=2C` stands for a comma and `=3D` for an equals sign (RFC 5801 section 4: saslname).
fn sasl_name(encoded: &[u8]) -> Option<String> {
    let mut parts = encoded.split(|byte| *byte == b'=');
    let mut name = parts.next()?.to_vec();
    for part in parts {
        let (escape, rest) = part.split_at_checked(2)?;
        name.push(match escape {
            b"2C" | b"2c" => b',',
            b"3D" | b"3d" => b'=',
            _ => return None,
        });
        name.extend_from_slice(rest);
    }
    user_name(&name).filter(|name| !name.is_empty())
}

/// A name as `sasl_name` reads it.
#[must_use]
pub fn encoded_name(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::CredentialKind;

    fn given(credentials: Option<Credentials>) -> Option<(Option<String>, String, String)> {
        let credentials = credentials?;
        let secret = String::from_utf8(credentials.password.expose().to_vec()).unwrap();
        Some((credentials.authorization, credentials.user, secret))
    }

    fn plainly(user: &str, secret: &str) -> Option<(Option<String>, String, String)> {
        Some((None, user.into(), secret.into()))
    }

    #[test]
    fn lines_and_names() {
        assert_eq!(sasl_line(b"*\r\n"), SaslLine::Cancelled);
        assert_eq!(sasl_line(b"%%\r\n"), SaslLine::Malformed);
        assert_eq!(sasl_line(b"=\r\n"), SaslLine::Response(Secret::new(vec![])));
        assert_eq!(sasl_line(b"\r\n"), SaslLine::Response(Secret::new(vec![])));
        assert_eq!(sasl_line(b"AGEAYg==\r\n"), SaslLine::Response(Secret::new(b"\0a\0b".to_vec())));
        assert!(!format!("{:?}", sasl_line(b"AGEAYg==")).contains("97"), "it shows the response");
        for (mechanism, name) in Mechanism::ALL {
            assert_eq!(Mechanism::from_name(name.to_lowercase().as_bytes()), Some(mechanism));
            assert_eq!(mechanism.name(), name);
        }
        for unknown in ["SCRAM-SHA-256-PLUS", "EXTERNAL", "ANONYMOUS", "GSSAPI", ""] {
            assert_eq!(Mechanism::from_name(unknown.as_bytes()), None);
        }
    }

    #[test]
    fn plain_messages() {
        assert_eq!(given(plain_message(b"\0a\0b")), plainly("a", "b"));
        assert_eq!(given(plain_message(b"a\0a\0b")), plainly("a", "b"));
        assert_eq!(plain_message(b"z\0a\0b").unwrap().authorization.as_deref(), Some("z"));
        assert_eq!(given(plain_message(b"\0a\0b\r\nc")), plainly("a", "b\r\nc"));
        for message in [
            &b"a\0b"[..],
            b"\0\0b",
            b"\0a\0",
            b"\0a\0b\0c",
            b"",
            b"\0a\nb\0c",
            b"\0a\rb\0c",
            b"x\ny\0a\0b",
            b"\0\xff\0b",
        ] {
            assert!(plain_message(message).is_none(), "{message:?}");
        }
    }

    #[test]
    fn tokens_in_both_forms() {
        let xoauth2 = xoauth2_message(b"user=a@b.c\x01auth=Bearer ya29.x~y=\x01\x01");
        assert_eq!(
            xoauth2.as_ref().map(|credentials| credentials.kind),
            Some(CredentialKind::Token)
        );
        assert_eq!(given(xoauth2), plainly("a@b.c", "ya29.x~y="));
        for message in [
            &b""[..],
            b"user=a\x01auth=Bearer t\x01",
            b"user=\x01auth=Bearer t\x01\x01",
            b"user=a\x01auth=Bearer \x01\x01",
            b"user=a\x01auth=Basic t\x01\x01",
            b"user=a\x01auth=Bearer t u\x01\x01",
            b"user=a\x01auth=Bearer t\r\n\x01\x01",
            b"user=a\nb\x01auth=Bearer t\x01\x01",
            b"user=a\x01auth=Bearer t\x01x=y\x01\x01",
        ] {
            assert!(xoauth2_message(message).is_none(), "{message:?}");
        }
        let bearer = |message: &[u8]| given(oauthbearer_message(message));
        assert_eq!(
            bearer(b"n,a=a@b.c,\x01host=push.example\x01port=993\x01auth=Bearer t\x01\x01"),
            plainly("a@b.c", "t")
        );
        assert_eq!(bearer(b"y,a=x=2Cy=3Dz,\x01auth=bearer t\x01\x01"), plainly("x,y=z", "t"));
        for message in [
            &b"n,,\x01auth=Bearer t\x01\x01"[..],
            b"n,a=u,\x01\x01",
            b"n,a=u,x\x01auth=Bearer t\x01\x01",
            b"p=tls-exporter,a=u,\x01auth=Bearer t\x01\x01",
            b"n,a=u=2,\x01auth=Bearer t\x01\x01",
        ] {
            assert_eq!(bearer(message), None, "{message:?}");
        }
    }

    #[test]
    fn name_in_a_scram_exchange() {
        let first = |message: &str| scram_first(Mechanism::ScramSha256, message.as_bytes());
        let credentials = first("n,,n=user,r=nonce").unwrap();
        assert_eq!(credentials.kind, CredentialKind::Exchange(Mechanism::ScramSha256));
        assert_eq!(
            (credentials.user.as_str(), credentials.password.expose()),
            ("user", &b"n,,n=user,r=nonce"[..])
        );
        assert_eq!(first("y,,n=a=2Cb=3Dc@d,r=x,ext=1").unwrap().user, "a,b=c@d");
        let other = first("n,a=boss,n=user,r=x").unwrap();
        assert_eq!((other.authorization.as_deref(), other.user.as_str()), (Some("boss"), "user"));
        assert_eq!(first("p=tls-unique,,n=user,r=x"), Err(NoScram::ChannelBinding));
        for message in [
            "",
            "n,,",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,m=x,n=user,r=x",
            "n,,n=,r=x",
            "n,,n=a=,r=x",
            "n,,n=a=2X,r=x",
            "x,,n=user,r=x",
            "n,b=c,n=user,r=x",
            "n,a=,n=user,r=x",
            "n,,n=u\nv,r=x",
            "n,,n=u\0v,r=x",
            "n,,n=u,r=x\r\n",
        ] {
            assert_eq!(first(message), Err(NoScram::Malformed), "{message:?}");
        }
        for name in ["a,b=c", "=2C", "gr\u{fc}n"] {
            assert_eq!(sasl_name(encoded_name(name).as_bytes()).as_deref(), Some(name));
        }
    }
}
