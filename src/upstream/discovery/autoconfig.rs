//! A domain's autoconfig XML, in the form that Thunderbird made common: fetching it over HTTPS, and reading the servers out of it.

use std::sync::Arc;
use std::time::Duration;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{StatusCode, Url};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use super::Offer;
use crate::causes::{causes, with_causes};
use crate::config::{Security, is_dns_name};
use crate::upstream::dns::{DnsError, HttpDns};

/// The whole fetch, redirections included.
const FETCH: Duration = Duration::from_secs(8);
/// The largest document that is read.
const MAX_BODY: usize = 64 * 1024;
/// How often the server may send on.
const MAX_REDIRECTIONS: usize = 3;
/// Servers of one document that are read.
const MAX_SERVERS: usize = 8;

/// What came of a fetch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// The document.
    Document(String),
    /// There is none.
    Absent,
    /// It may be there, but cannot be had now.
    Failed(String),
}

/// Fetches the document at `url`. The login is not told to anybody: no provider's document is known to need it.
pub(super) async fn fetch(url: &str, tls: &Arc<ClientConfig>, dns: HttpDns) -> Fetched {
    match timeout(FETCH, Box::pin(fetch_unbounded(url, tls, dns))).await {
        Ok(Ok(fetched)) => fetched,
        Ok(Err(error)) => failed(&error.without_url()),
        Err(_) => Fetched::Failed("it takes too long".to_owned()),
    }
}

async fn fetch_unbounded(url: &str, tls: &Arc<ClientConfig>, dns: HttpDns) -> Result<Fetched, reqwest::Error> {
    // A proxy of the environment would connect to what the filter of `dns` forbids.
    let client = reqwest::Client::builder()
        .user_agent(concat!("deltapush/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(ClientConfig::clone(tls))
        .https_only(true)
        .no_proxy()
        .redirect(Policy::custom(follow))
        .dns_resolver(Arc::new(dns))
        .build()?;
    let mut response = client.get(url).send().await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => return Ok(Fetched::Absent),
        status => return Ok(Fetched::Failed(format!("the web server answers {}", status.as_u16()))),
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len().saturating_add(chunk.len()) > MAX_BODY {
            return Ok(Fetched::Absent);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(body).map_or(Fetched::Absent, Fetched::Document))
}

/// A web server that DNS does not know has no document. All else may pass.
fn failed(error: &reqwest::Error) -> Fetched {
    match causes(error).find_map(|cause| cause.downcast_ref::<DnsError>()) {
        Some(DnsError::Absent { .. }) => Fetched::Absent,
        Some(error) => Fetched::Failed(error.to_string()),
        None => Fetched::Failed(with_causes(error)),
    }
}

/// To names only, whose addresses the resolver filters: an address in the URL would go past it.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTIONS || !has_name(attempt.url()) {
        return attempt.error("the web server redirects to where it must not be followed");
    }
    attempt.follow()
}

/// Whether the host is a name and not an address.
pub(super) fn has_name(url: &Url) -> bool {
    url.host_str().is_some_and(is_dns_name)
}

/// Which servers are looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Where mail is read.
    #[default]
    Imap,
    /// Where mail is sent.
    Smtp,
}

/// The servers of this kind with TLS in a document, in its order. `None` if it is no such document. No entity but XML's own
/// five is known, and a document type is none of autoconfig.
pub(super) fn servers(document: &str, domain: &str, kind: Kind) -> Option<Vec<Offer>> {
    let mut reader = Reader::from_str(document);
    let mut found = Found { domain, kind, ..Found::default() };
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => found.start(&start),
            Event::End(_) => found.end(),
            Event::Text(text) => found.text.push_str(&text),
            Event::CData(text) => found.text.push_str(&text),
            Event::GeneralRef(name) => found.text.push_str(resolve_predefined_entity(&name)?),
            Event::DocType(_) => return None,
            Event::Eof => return found.is_autoconfig.then_some(found.offers),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
        if found.depth > 32 {
            return None;
        }
    }
}

/// What was read so far.
#[derive(Default)]
struct Found<'a> {
    domain: &'a str,
    kind: Kind,
    depth: usize,
    is_autoconfig: bool,
    /// The depth at which a server of the kind began.
    server: Option<usize>,
    element: String,
    text: String,
    host: String,
    port: String,
    socket: String,
    username: String,
    offers: Vec<Offer>,
}

impl Found<'_> {
    fn start(&mut self, start: &BytesStart<'_>) {
        self.depth = self.depth.saturating_add(1);
        self.element = AsRef::<str>::as_ref(&start.local_name()).to_owned();
        self.text.clear();
        match self.element.as_str() {
            "clientConfig" => self.is_autoconfig = true,
            "incomingServer" if self.kind == Kind::Imap && is_of_type(start, "imap") => self.begin_server(),
            "outgoingServer" if self.kind == Kind::Smtp && is_of_type(start, "smtp") => self.begin_server(),
            _ => {}
        }
    }

    fn begin_server(&mut self) {
        self.server = Some(self.depth);
        (self.host, self.port, self.socket, self.username) = Default::default();
    }

    fn end(&mut self) {
        if self.server == Some(self.depth) {
            self.server = None;
            if self.offers.len() < MAX_SERVERS {
                self.offers.extend(self.offer());
            }
        } else if self.server.is_some() {
            let text = self.text.trim().to_owned();
            match self.element.as_str() {
                "hostname" => self.host = text,
                "port" => self.port = text,
                "socketType" => self.socket = text,
                "username" => self.username = text,
                _ => {}
            }
        }
        self.element.clear();
        self.text.clear();
        self.depth = self.depth.saturating_sub(1);
    }

    /// The server, if it has TLS: a login never goes in clear to where a document says.
    fn offer(&self) -> Option<Offer> {
        let security = match self.socket.as_str() {
            "SSL" => Security::Tls,
            "STARTTLS" => Security::StartTls,
            _ => return None,
        };
        let host = self.host.replace("%EMAILDOMAIN%", self.domain).to_ascii_lowercase();
        let port = self.port.parse().ok().filter(|port| *port > 0)?;
        let priority = u16::try_from(self.offers.len()).ok()?;
        let by_local_part = self.username == "%EMAILLOCALPART%";
        is_dns_name(&host).then(|| Offer { host: host.into(), port, security, priority, weight: 0, by_local_part })
    }
}

fn is_of_type(start: &BytesStart<'_>, wanted: &str) -> bool {
    let kind = start.attributes().flatten().find(|attribute| AsRef::<str>::as_ref(&attribute.key) == "type");
    kind.is_some_and(|kind| &*kind.value == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"<?xml version="1.0"?>
<clientConfig version="1.1">
  <emailProvider id="example.org">
    <domain>example.org</domain>
    <incomingServer type="pop3"><hostname>pop.example.org</hostname><port>995</port><socketType>SSL</socketType></incomingServer>
    <incomingServer type="imap">
      <hostname> IMAP.%EMAILDOMAIN% </hostname><port>993</port><socketType>SSL</socketType>
      <username>%EMAILADDRESS%</username>
    </incomingServer>
    <incomingServer type="imap">
      <hostname><![CDATA[mail.example.net]]></hostname><port>143</port><socketType>STARTTLS</socketType>
    </incomingServer>
    <incomingServer type="imap"><hostname>plain.example.org</hostname><port>143</port><socketType>plain</socketType></incomingServer>
    <incomingServer type="imap"><hostname>127.0.0.1</hostname><port>143</port><socketType>SSL</socketType></incomingServer>
    <outgoingServer type="smtp"><hostname>smtp.example.org</hostname><port>465</port><socketType>SSL</socketType>
      <username>%EMAILLOCALPART%</username></outgoingServer>
    <outgoingServer type="smtp"><hostname>plain.example.org</hostname><port>25</port><socketType>plain</socketType></outgoingServer>
  </emailProvider>
</clientConfig>"#;

    fn read(document: &str) -> Option<Vec<String>> {
        let shown = |offer: &Offer| format!("{} {} {:?}", offer.host, offer.port, offer.security);
        servers(document, "example.org", Kind::Imap).map(|offers| offers.iter().map(shown).collect())
    }

    #[test]
    fn submission_servers_with_tls_are_read_with_their_login() {
        let found = servers(DOCUMENT, "example.org", Kind::Smtp).unwrap();
        let shown =
            |offer: &Offer| format!("{} {} {:?} {}", offer.host, offer.port, offer.security, offer.by_local_part);
        assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), ["smtp.example.org 465 Tls true"]);
    }

    #[test]
    fn imap_servers_with_tls_are_read() {
        assert_eq!(read(DOCUMENT).unwrap(), ["imap.example.org 993 Tls", "mail.example.net 143 StartTls"]);
    }

    #[test]
    fn what_is_no_autoconfig_says_nothing() {
        for document in ["", "<html><body/></html>", "not found", "<clientConfig>", "<a></b>"] {
            assert!(read(document).unwrap_or_default().is_empty(), "{document}");
        }
        let bomb = DOCUMENT.replace("<clientConfig", "<!DOCTYPE a [<!ENTITY x \"y\">]><clientConfig");
        assert_eq!(read(&bomb), None);
        assert_eq!(read(&DOCUMENT.replace("143", "&x;")), None);
        assert_eq!(read(&"<a>".repeat(100)), None);
        let many = DOCUMENT.replace(
            "<domain>",
            &format!("{}<domain>", DOCUMENT.lines().skip(5).take(4).collect::<String>().repeat(50)),
        );
        assert_eq!(read(&many).unwrap().len(), MAX_SERVERS);
    }

    #[test]
    fn redirections_lead_to_names_only() {
        for (url, expected) in [
            ("https://autoconfig.example.org/a", true),
            ("https://127.0.0.1/a", false),
            ("https://[::1]/a", false),
            ("https://0x7f.1/a", false),
            ("https://2130706433/a", false),
        ] {
            assert_eq!(Url::parse(url).is_ok_and(|url| has_name(&url)), expected, "{url}");
        }
    }
}
