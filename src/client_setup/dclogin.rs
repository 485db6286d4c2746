//! The login code that Delta Chat scans: `dclogin:`, version 1, as its core reads it (chatmail/core, `qr/dclogin_scheme.rs`). The
//! page's script builds the same: `http/public/script.js`.

use zeroize::Zeroizing;

use super::{Incoming, Outgoing};
use crate::config::{ListenerTls, Security};

/// The contents of a login code.
#[derive(Clone, Copy)]
pub struct LoginCode<'a> {
    /// The mail address, which is also the login name at deltapush.
    pub address: &'a str,
    /// The password.
    pub password: &'a str,
    /// The IMAP server.
    pub incoming: &'a Incoming,
    /// The SMTP server; without it Delta Chat tries `smtp.` and `mail.` and the address's domain.
    pub outgoing: Option<&'a Outgoing>,
    /// True if Delta Chat accepts any certificate, at both servers.
    pub any_certificate: bool,
}

/// The text of the code. It contains the password.
#[must_use]
pub fn link(login: &LoginCode<'_>) -> Zeroizing<String> {
    let LoginCode { address, password, incoming, outgoing, any_certificate } = *login;
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    // Three times the longest password and some: a text that grows leaves copies behind.
    let room = password.len().saturating_add(address.len()).saturating_mul(3).saturating_add(1024);
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str("dclogin://");
    push_encoded(&mut text, local);
    text.push('@');
    push_encoded(&mut text, domain);
    text.push_str("/?p=");
    push_encoded(&mut text, password);
    text.push_str("&v=1");
    let security = if incoming.tls == ListenerTls::Implicit { "ssl" } else { "starttls" };
    push_server(&mut text, 'i', &incoming.host, incoming.port, security);
    if let Some(Outgoing { server, login }) = outgoing {
        let security = if server.security == Security::Tls { "ssl" } else { "starttls" };
        push_server(&mut text, 's', &server.of(domain).host, server.port, security);
        // The address is what a missing name stands for.
        let name = login.apply(address);
        if name != address {
            text.push_str("&su=");
            push_encoded(&mut text, &name);
        }
    }
    if any_certificate {
        text.push_str("&ic=2");
    }
    text
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
            password: "pä \"&?=+%#/\\",
            incoming: &incoming,
            outgoing: Some(&outgoing),
            any_certificate: false,
        };
        assert_eq!(
            *link(&login),
            "dclogin://al%2Bice@example.org/?p=p%C3%A4%20%22%26%3F%3D%2B%25%23%2F%5C&v=1\
             &ih=push.example.org&ip=993&is=ssl&sh=smtp.example.org&sp=587&ss=starttls&su=al%2Bice"
        );
        let incoming = Incoming { host: "::1".into(), port: 1143, tls: ListenerTls::StartTls };
        let login = LoginCode {
            password: "x",
            incoming: &incoming,
            outgoing: None,
            any_certificate: true,
            ..login
        };
        assert_eq!(
            *link(&login),
            "dclogin://al%2Bice@example.org/?p=x&v=1&ih=%3A%3A1&ip=1143&is=starttls&ic=2"
        );
    }
}
