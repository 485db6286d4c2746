//! Writes autoconfig XML for mail programs (draft-ietf-mailmaint-autoconfig); `upstream::discovery` reads such
//! documents.

use quick_xml::escape::escape;

use super::{Incoming, Outgoing};
use crate::config::{ListenerTls, LoginTemplate, Security};

/// The document for `domain`. Without `outgoing` a program has to find out itself where mail is sent.
#[must_use]
pub fn document(domain: &str, incoming: &[Incoming], outgoing: Option<&Outgoing>) -> String {
    let id = escape(domain);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<clientConfig version=\"1.1\">\n  <emailProvider id=\"{id}\">\n    \
         <domain>{id}</domain>\n    <displayName>{id}</displayName>\n    <displayShortName>{id}</displayShortName>\n"
    );
    for Incoming { host, port, tls } in incoming {
        let security = if *tls == ListenerTls::Implicit { "SSL" } else { "STARTTLS" };
        text.push_str(&server("incomingServer", "imap", host, *port, security, "%EMAILADDRESS%"));
    }
    if let Some(Outgoing { server: sending, login }) = outgoing {
        let security = if sending.security == Security::Tls { "SSL" } else { "STARTTLS" };
        let host = &sending.of(domain).host;
        text.push_str(&server(
            "outgoingServer",
            "smtp",
            host,
            sending.port,
            security,
            &placeholders(login),
        ));
    }
    text.push_str("  </emailProvider>\n</clientConfig>\n");
    text
}

fn server(element: &str, kind: &str, host: &str, port: u16, security: &str, login: &str) -> String {
    let (host, login) = (escape(host), escape(login));
    format!(
        "    <{element} type=\"{kind}\">\n      <hostname>{host}</hostname>\n      <port>{port}</port>\n      \
         <socketType>{security}</socketType>\n      <authentication>password-cleartext</authentication>\n      \
         <username>{login}</username>\n    </{element}>\n"
    )
}

/// The login with what programs put in by themselves.
fn placeholders(login: &LoginTemplate) -> String {
    let text = login.to_string();
    [("{login}", "%EMAILADDRESS%"), ("{local}", "%EMAILLOCALPART%"), ("{domain}", "%EMAILDOMAIN%")]
        .into_iter()
        .fold(text, |text, (ours, theirs)| text.replace(ours, theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_says_where_mail_is_read_and_sent() {
        let incoming = [
            Incoming { host: "push.example.org".into(), port: 993, tls: ListenerTls::Implicit },
            Incoming { host: "push.example.org".into(), port: 143, tls: ListenerTls::StartTls },
        ];
        let outgoing = Outgoing {
            server: "smtp://smtp.{domain}".parse().unwrap(),
            login: "a&b<{local}".parse().unwrap(),
        };
        let text = document("example.org", &incoming, Some(&outgoing));
        for part in [
            "<emailProvider id=\"example.org\">\n    <domain>example.org</domain>",
            "<incomingServer type=\"imap\">\n      <hostname>push.example.org</hostname>\n      <port>993</port>\n      \
             <socketType>SSL</socketType>\n      <authentication>password-cleartext</authentication>\n      \
             <username>%EMAILADDRESS%</username>\n",
            "<port>143</port>\n      <socketType>STARTTLS</socketType>",
            "<outgoingServer type=\"smtp\">\n      <hostname>smtp.example.org</hostname>\n      <port>587</port>\n      \
             <socketType>STARTTLS</socketType>",
            "<username>a&amp;b&lt;%EMAILLOCALPART%</username>",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!document("a\"<b", &[], None).contains("a\"<b"));
        assert!(!document("example.org", &incoming, None).contains("outgoingServer"));
    }
}
