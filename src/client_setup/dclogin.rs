//! The login code that Delta Chat scans: `dclogin:`, version 1, as its core reads it (chatmail/core, `qr/dclogin_scheme.rs`). On the
//! public page the browser puts the password in.

use super::{Incoming, Outgoing};
use crate::config::{ListenerTls, Security};

/// The contents of a login code, without the password.
#[derive(Debug, Clone, Copy)]
pub struct LoginCode<'a> {
    /// The mail address, which is also the login name at deltapush.
    pub address: &'a str,
    /// The IMAP server.
    pub incoming: &'a Incoming,
    /// The SMTP server; without it Delta Chat tries `smtp.` and `mail.` and the address's domain.
    pub outgoing: Option<&'a Outgoing>,
    /// True if Delta Chat accepts any certificate, at both servers.
    pub any_certificate: bool,
}

impl LoginCode<'_> {
    /// The text of the code. It contains the password.
    #[must_use]
    pub fn link(&self, password: &str) -> String {
        let (before, after) = self.around_password();
        // Three times the longest password: a text that grows leaves copies behind.
        let room = password.len().saturating_mul(3);
        let room = room.saturating_add(before.len()).saturating_add(after.len());
        let mut text = String::with_capacity(room);
        text.push_str(&before);
        push_encoded(&mut text, password);
        text.push_str(&after);
        text
    }

    /// The text before and after the password. The password in between is percent-encoded, except for the unreserved
    /// characters of RFC 3986 section 2.3.
    #[must_use]
    pub fn around_password(&self) -> (String, String) {
        let Self { address, incoming, outgoing, any_certificate } = *self;
        let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
        let mut before = "dclogin://".to_owned();
        push_encoded(&mut before, local);
        before.push('@');
        push_encoded(&mut before, domain);
        before.push_str("/?p=");
        let mut after = "&v=1".to_owned();
        let security = if incoming.tls == ListenerTls::Implicit { "ssl" } else { "starttls" };
        push_server(&mut after, 'i', &incoming.host, incoming.port, security);
        if let Some(Outgoing { server, login }) = outgoing {
            let security = if server.security == Security::Tls { "ssl" } else { "starttls" };
            push_server(&mut after, 's', &server.of(domain).host, server.port, security);
            // Without a name, Delta Chat uses the address.
            let name = login.apply(address);
            if name != address {
                after.push_str("&su=");
                push_encoded(&mut after, &name);
            }
        }
        if any_certificate {
            after.push_str("&ic=2");
        }
        (before, after)
    }
}

fn push_server(text: &mut String, kind: char, host: &str, port: u16, security: &str) {
    for (key, value) in [('h', host), ('p', &*port.to_string()), ('s', security)] {
        text.extend(['&', kind, key, '=']);
        push_encoded(text, value);
    }
}

/// All but the unreserved characters as `%XX` (RFC 3986 section 2.3): nothing in a password can end its part.
fn push_encoded(out: &mut String, text: &str) {
    const HEX: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |value: u8| HEX.get(usize::from(value)).copied().unwrap_or_default();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_has_all_that_delta_chat_needs_and_no_more() {
        let incoming =
            Incoming { host: "push.example.org".into(), port: 993, tls: ListenerTls::Implicit };
        let outgoing = Outgoing {
            server: "smtp://smtp.{domain}".parse().unwrap(),
            login: "local".parse().unwrap(),
        };
        let login = LoginCode {
            address: "al+ice@example.org",
            incoming: &incoming,
            outgoing: Some(&outgoing),
            any_certificate: false,
        };
        assert_eq!(
            login.link("pä \"&?=+%#/\\"),
            "dclogin://al%2Bice@example.org/?p=p%C3%A4%20%22%26%3F%3D%2B%25%23%2F%5C&v=1\
             &ih=push.example.org&ip=993&is=ssl&sh=smtp.example.org&sp=587&ss=starttls&su=al%2Bice"
        );
        let incoming = Incoming { host: "::1".into(), port: 1143, tls: ListenerTls::StartTls };
        let login =
            LoginCode { incoming: &incoming, outgoing: None, any_certificate: true, ..login };
        assert_eq!(
            login.link("x"),
            "dclogin://al%2Bice@example.org/?p=x&v=1&ih=%3A%3A1&ip=1143&is=starttls&ic=2"
        );
    }
}
