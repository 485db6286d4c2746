//! Reading the servers out of an autoconfig document, in the form that Thunderbird made common.
//!
//! A document that Delta Chat can use must be of use here too, so this reader is as tolerant as its own (`auto_mozilla.rs` of chatmail
//! core): names in any case, any encoding, any root element, a missing `socketType`; unknown entities are skipped. A
//! document that is not well-formed XML is a [`DocumentFlaw`] with its line, for the person who has to correct it.

use std::str;

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use super::DiscoveredServer;
use super::fetch::MAX_BODY;
use crate::config::{Security, is_dns_name};
use crate::encoding::{utf8, utf16};

/// Servers of one document that are read.
const MAX_SERVERS: usize = 8;
/// The deepest nesting of elements; documents that are in use have 5.
const MAX_DEPTH: usize = 64;
/// The longest description of a flaw, in characters: it may quote the document.
const MAX_PROBLEM: usize = 200;

/// The servers that are looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ServerKind {
    /// Servers for incoming mail.
    #[default]
    Imap,
    /// Server for outgoing mail.
    Smtp,
}

impl ServerKind {
    /// The element of such a server, in lower case, its `type`, and its usual ports with TLS and with STARTTLS.
    fn description(self) -> (&'static str, &'static str, [u16; 2]) {
        match self {
            Self::Imap => ("incomingserver", "imap", [993, 143]),
            Self::Smtp => ("outgoingserver", "smtp", [465, 587]),
        }
    }
}

/// Why a document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DocumentFlaw {
    /// The line, from 1.
    pub(super) line: usize,
    /// The fault; of bounded length and without control characters.
    pub(super) problem: String,
}

impl DocumentFlaw {
    fn at(document: &str, offset: u64, problem: &str) -> Self {
        let before = document.bytes().take(usize::try_from(offset).unwrap_or(usize::MAX));
        let line = before.filter(|byte| *byte == b'\n').count().saturating_add(1);
        let harmless = |char: char| if char.is_control() { ' ' } else { char };
        Self { line, problem: problem.chars().take(MAX_PROBLEM).map(harmless).collect() }
    }

    /// A document of which only the beginning was fetched.
    pub(super) fn too_long(beginning: &str) -> Self {
        let problem = format!("the document is longer than {} KiB", MAX_BODY.div_euclid(1024));
        Self::at(beginning, u64::MAX, &problem)
    }

    /// Something that is no autoconfig document.
    pub(super) fn foreign(document: &str) -> Self {
        Self::at(
            document,
            0,
            "not an autoconfig document: it contains no clientConfig and no server",
        )
    }
}

/// The text of a document. An encoding that is declared does not count: all that matters is ASCII, so bytes that are not UTF-8
/// are read as Latin-1.
pub(super) fn decoded(bytes: &[u8]) -> String {
    // UTF-16 without a byte order mark (XML 1.0, appendix F).
    match bytes {
        [b'<', 0, ..] => return utf16(bytes, u16::from_le_bytes),
        [0, b'<', ..] => return utf16(bytes, u16::from_be_bytes),
        _ => {}
    }
    let bytes = utf8(bytes);
    match str::from_utf8(&bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

/// Returns true if `document` is meant as autoconfig, usable or not. Many web servers answer every path with some page.
pub(super) fn is_autoconfig(document: &str) -> bool {
    let document = document.to_ascii_lowercase();
    ["clientconfig", "incomingserver", "outgoingserver"].iter().any(|name| document.contains(name))
}

/// Reads the servers of this kind with TLS, in the order of the document. Empty if the document has no server of the kind.
///
/// # Errors
/// [`DocumentFlaw`] if the document is not well-formed, or if none of its servers of this kind can be used: the first of them.
pub(super) fn servers(
    document: &str,
    domain: &str,
    kind: ServerKind,
) -> Result<Vec<DiscoveredServer>, DocumentFlaw> {
    let mut reader = Reader::from_str(document);
    let mut found = ParsedServers { domain, kind, ..ParsedServers::default() };
    loop {
        // Taken before: errors of quick-xml have a place of their own.
        let offset = reader.buffer_position();
        match reader.read_event() {
            Ok(Event::Start(start)) => found.start(&start, offset),
            Ok(Event::End(_)) => found.end(),
            Ok(Event::Text(text)) => found.text.push_str(&text),
            Ok(Event::CData(text)) => found.text.push_str(&text),
            Ok(Event::GeneralRef(reference)) => found.reference(&reference),
            Ok(Event::Eof) => break,
            // No entity of a document type is known, so none is resolved and none is fetched.
            Ok(
                Event::DocType(_)
                | Event::Empty(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_),
            ) => {}
            Err(error) => {
                return Err(DocumentFlaw::at(
                    document,
                    reader.error_position(),
                    &error.to_string(),
                ));
            }
        }
        if found.depth > MAX_DEPTH {
            return Err(DocumentFlaw::at(document, offset, "elements are nested too deep"));
        }
    }
    found.end_of_document();
    match found.refused {
        Some((offset, problem)) if found.offers.is_empty() => {
            Err(DocumentFlaw::at(document, offset, &problem))
        }
        _ => Ok(found.offers),
    }
}

/// The servers read so far.
#[derive(Default)]
struct ParsedServers<'a> {
    domain: &'a str,
    kind: ServerKind,
    depth: usize,
    /// The depth at which a server of the kind began, and its place in the document.
    server: Option<(usize, u64)>,
    /// The innermost element that is open, in lower case; empty after an end tag.
    element: String,
    text: String,
    host: Option<String>,
    port: Option<String>,
    socket: String,
    username: String,
    offers: Vec<DiscoveredServer>,
    /// The place of the first server that cannot be used, and the reason.
    refused: Option<(u64, String)>,
}

impl ParsedServers<'_> {
    fn start(&mut self, start: &BytesStart<'_>, offset: u64) {
        self.depth = self.depth.saturating_add(1);
        self.element = AsRef::<str>::as_ref(&start.local_name()).to_lowercase();
        self.text.clear();
        let (element, kind, _) = self.kind.description();
        if self.server.is_none() && self.element == element && is_of_type(start, kind) {
            self.server = Some((self.depth, offset));
            (self.host, self.port, self.socket, self.username) = Default::default();
        }
    }

    /// Numbers and XML's own five entities stand for characters; others are skipped.
    fn reference(&mut self, reference: &BytesRef<'_>) {
        match reference.resolve_char_ref() {
            Ok(Some(char)) => self.text.push(char),
            Ok(None) => {
                self.text.push_str(resolve_predefined_entity(reference).unwrap_or_default())
            }
            Err(_) => {}
        }
    }

    fn end(&mut self) {
        match self.server {
            Some((depth, offset)) if depth == self.depth => {
                self.server = None;
                match self.offers() {
                    Ok(offers) => self.add(offers),
                    Err(problem) => self.refused = self.refused.take().or(Some((offset, problem))),
                }
            }
            Some(_) => self.value(),
            None => {}
        }
        self.element.clear();
        self.text.clear();
        self.depth = self.depth.saturating_sub(1);
    }

    fn value(&mut self) {
        let text = self.text.trim();
        match self.element.as_str() {
            "hostname" => self.host = (!text.is_empty()).then(|| text.to_owned()),
            "port" => self.port = (!text.is_empty()).then(|| text.to_owned()),
            "sockettype" => self.socket = text.to_lowercase(),
            "username" => text.clone_into(&mut self.username),
            _ => {}
        }
    }

    /// Takes a server that is complete but for its end tag. Not one that ends within a value: half a host name is another host.
    fn end_of_document(&mut self) {
        if self.server.is_some() && self.element.is_empty() {
            let offers = self.offers().unwrap_or_default();
            self.add(offers);
        }
    }

    fn add(&mut self, offers: Vec<DiscoveredServer>) {
        for offer in offers {
            if self.offers.len() < MAX_SERVERS {
                let priority = u16::try_from(self.offers.len()).unwrap_or(u16::MAX);
                self.offers.push(DiscoveredServer { priority, ..offer });
            }
        }
    }

    /// The server that was just read, once for each way to connect that is to be tried. A login never goes in clear to where a document
    /// says.
    fn offers(&self) -> Result<Vec<DiscoveredServer>, String> {
        let host = self
            .host
            .as_deref()
            .ok_or("a server without a hostname")?
            .replace("%EMAILDOMAIN%", self.domain);
        let host = host.strip_suffix('.').unwrap_or(&host).to_ascii_lowercase();
        if !is_dns_name(&host) {
            return Err(format!("the hostname {host:?} is not a DNS name"));
        }
        let port = self.port.as_deref().ok_or_else(|| format!("no port for {host}"))?;
        // 0 stands for the usual port, and for a number that cannot be read.
        let ways = self.ways(port.parse().unwrap_or(0))?;
        let by_local_part = self.username == "%EMAILLOCALPART%";
        let host = host.into();
        let offer = |(security, port)| DiscoveredServer {
            host: std::sync::Arc::clone(&host),
            port,
            security,
            priority: 0,
            weight: 0,
            by_local_part,
        };
        Ok(ways.into_iter().map(offer).collect())
    }

    fn ways(&self, port: u16) -> Result<Vec<(Security, u16)>, String> {
        let (_, _, [tls_port, starttls_port]) = self.kind.description();
        let or_usual = |usual| if port == 0 { usual } else { port };
        let tls = (Security::Tls, or_usual(tls_port));
        let starttls = (Security::StartTls, or_usual(starttls_port));
        match self.socket.as_str() {
            "ssl" => Ok(vec![tls]),
            "starttls" => Ok(vec![starttls]),
            "plain" => {
                Err("socketType plain, without encryption; TLS (SSL) or STARTTLS is needed"
                    .to_owned())
            }
            // Not said, or not known: both, the likelier first.
            _ if [starttls_port, 25].contains(&port) => Ok(vec![starttls, tls]),
            _ => Ok(vec![tls, starttls]),
        }
    }
}

fn is_of_type(start: &BytesStart<'_>, wanted: &str) -> bool {
    let is_type = |key: &str| key.trim().eq_ignore_ascii_case("type");
    let attribute = start
        .attributes()
        .flatten()
        .find(|attribute| is_type(AsRef::<str>::as_ref(&attribute.key)));
    let value =
        attribute.and_then(|attribute| attribute.normalized_value(XmlVersion::Implicit1_0).ok());
    value.is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
#[path = "autoconfig_tests.rs"]
mod tests;
