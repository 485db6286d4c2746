//! Autoconfig documents in odd forms: encodings, references, missing parts, random damage.

use proptest::prelude::*;

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
const BOTH: [&str; 2] = ["imap.example.org 993 Tls", "mail.example.net 143 StartTls"];

fn read(document: &str) -> Result<Vec<String>, DocumentFlaw> {
    let shown =
        |offer: &DiscoveredServer| format!("{} {} {:?}", offer.host, offer.port, offer.security);
    servers(document, "example.org", ServerKind::Imap)
        .map(|offers| offers.iter().map(shown).collect())
}

/// The reading of one server, or the reason why it cannot be used.
fn read_server(inside: &str) -> String {
    let document = format!(
        "<clientConfig>\n<incomingServer type=\"imap\">{inside}</incomingServer></clientConfig>"
    );
    match read(&document) {
        Ok(servers) => servers.join(", "),
        Err(DocumentFlaw { line, problem }) => format!("{line}: {problem}"),
    }
}

#[test]
fn submission_servers_with_tls_are_read_with_their_login() {
    let found = servers(DOCUMENT, "example.org", ServerKind::Smtp).unwrap();
    let shown = |offer: &DiscoveredServer| {
        format!("{} {} {:?} {}", offer.host, offer.port, offer.security, offer.by_local_part)
    };
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), ["smtp.example.org 465 Tls true"]);
    let unsaid = DOCUMENT.replace(">465<", ">587<").replace("SSL", "");
    assert_eq!(
        shown(&servers(&unsaid, "example.org", ServerKind::Smtp).unwrap()[0]),
        "smtp.example.org 587 StartTls true"
    );
}

#[test]
fn imap_servers_with_tls_are_read() {
    assert_eq!(read(DOCUMENT).unwrap(), BOTH);
}

#[test]
fn references_are_resolved_and_unknown_entities_skipped() {
    let names =
        "<displayName>L&#228;nder &amp; M&#xE4;rkte &auml; &#0; &#x110000; &#;</displayName>";
    assert_eq!(read(&DOCUMENT.replace("<domain>", &format!("{names}<domain>"))).unwrap(), BOTH);
    assert_eq!(read(&DOCUMENT.replace("IMAP.", "&#73;MA&x;P&#x2e;")).unwrap(), BOTH);
    assert_eq!(
        read_server("<hostname>a.example</hostname><port>&x;</port>"),
        "2: no port for a.example"
    );
}

#[test]
fn document_type_passes_and_its_entities_mean_nothing() {
    for doctype in [
        "<!DOCTYPE clientConfig>",
        "<!DOCTYPE clientConfig SYSTEM \"file:///etc/passwd\">",
        "<!DOCTYPE a [<!ENTITY x \"evil.example\"><!ENTITY y SYSTEM \"file:///etc/passwd\">]>",
    ] {
        let document = DOCUMENT.replace("<clientConfig", &format!("{doctype}<clientConfig"));
        assert_eq!(read(&document).unwrap(), BOTH, "{doctype}");
        let document =
            document.replace("mail.example.net", "&x;").replace("<![CDATA[", "").replace("]]>", "");
        assert_eq!(read(&document).unwrap(), BOTH[..1], "{doctype}");
    }
}

#[test]
fn any_encoding_is_read() {
    let named = DOCUMENT.replace("<domain>", "<displayName>Länder</displayName><domain>");
    let declared = |name: &str| named.replace("?>", &format!(" encoding=\"{name}\"?>"));
    let latin1 = |text: &str| {
        text.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect::<Vec<u8>>()
    };
    let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    for bytes in [
        named.as_bytes().to_vec(),
        [b"\xef\xbb\xbf", named.as_bytes()].concat(),
        declared("UTF-8").into_bytes(),
        latin1(&declared("ISO-8859-1")),
        latin1(&named),
        declared("iso-8859-1").into_bytes(),
        declared("nonsense").into_bytes(),
        [vec![0xff, 0xfe], little(&declared("UTF-16"))].concat(),
        [vec![0xfe, 0xff], big(&declared("UTF-16"))].concat(),
        little(&declared("UTF-16LE")),
        big(&named),
    ] {
        let text = decoded(&bytes);
        assert!(is_autoconfig(&text));
        assert_eq!(read(&text).unwrap(), BOTH, "{}", text.lines().next().unwrap());
    }
}

#[test]
fn names_count_in_any_case_and_below_any_root() {
    let shouted = DOCUMENT
        .to_uppercase()
        .replace("<![CDATA[", "")
        .replace("]]>", "")
        .replace("<?XML", "<?xml");
    assert_eq!(read(&shouted).unwrap(), BOTH);
    let bare =
        DOCUMENT.replace("clientConfig", "x").replace("<emailProvider id=\"example.org\">", "<y>");
    assert_eq!(read(&bare.replace("</emailProvider>", "</y>")).unwrap(), BOTH);
}

#[test]
fn missing_or_unknown_socket_type_means_both_ways() {
    let server = |more: &str| read_server(&format!("<hostname>a.example</hostname>{more}"));
    assert_eq!(server("<port>993</port>"), "a.example 993 Tls, a.example 993 StartTls");
    assert_eq!(
        server("<port>143</port><socketType>TLS</socketType>"),
        "a.example 143 StartTls, a.example 143 Tls"
    );
    assert_eq!(server("<port>x</port>"), "a.example 993 Tls, a.example 143 StartTls");
    assert_eq!(
        server("<port>70000</port><socketType>starttls</socketType>"),
        "a.example 143 StartTls"
    );
    assert_eq!(server("<port>0</port><socketType>Ssl</socketType>"), "a.example 993 Tls");
}

#[test]
fn server_that_cannot_be_used_is_named_with_its_line() {
    assert!(
        read_server("<hostname>a.example</hostname><port>1</port><socketType>plain</socketType>")
            .starts_with("2: socketType plain")
    );
    assert_eq!(
        read_server("<hostname>192.0.2.1</hostname><port>1</port>"),
        "2: the hostname \"192.0.2.1\" is not a DNS name"
    );
    assert_eq!(read_server("<port>993</port>"), "2: a server without a hostname");
    assert_eq!(read(&DOCUMENT.replace("\"imap\"", "\"pop3\"")), Ok(vec![]));
}

#[test]
fn flaw_is_named_with_its_line() {
    let flaw = |document: &str| read(document).unwrap_err();
    let mismatched = flaw(&DOCUMENT.replacen("</incomingServer>", "</incomingserver>", 1));
    assert_eq!(mismatched.line, 5, "{mismatched:?}");
    assert!(mismatched.problem.contains("incomingServer"), "{mismatched:?}");
    assert_eq!(flaw(&DOCUMENT.replace("IMAP.", "A & B")).line, 7);
    assert_eq!(flaw(DOCUMENT.strip_suffix("Config>").unwrap()).line, DOCUMENT.lines().count());
    assert_eq!(
        flaw(&"<a>\n".repeat(MAX_DEPTH + 1)),
        DocumentFlaw { line: 65, problem: "elements are nested too deep".into() }
    );
    let long = flaw(&format!("<a></{}\n\u{1b}>", "x".repeat(5000)));
    assert!(
        long.problem.chars().count() <= MAX_PROBLEM && !long.problem.contains(char::is_control),
        "{long:?}"
    );
}

#[test]
fn document_without_servers_has_none() {
    for document in ["", "<html><body/></html>", "not found", "<clientConfig>", "<clientConfig/>"] {
        assert_eq!(read(document), Ok(vec![]), "{document}");
    }
}

#[test]
fn cut_document_names_what_is_complete() {
    let cut = |at: &str| read(DOCUMENT.split_once(at).unwrap().0);
    assert_eq!(cut("<![CDATA").unwrap(), BOTH[..1]);
    assert_eq!(cut("</clientConfig").unwrap(), BOTH);
    assert_eq!(cut("<username>").unwrap(), BOTH[..1]);
    let server = "<incomingServer type=\"imap\"><port>993</port><hostname>imap.example.co";
    assert_eq!(read(server), Ok(vec![]), "half a host name is another host");
}

#[test]
fn number_of_servers_is_bounded() {
    let server = DOCUMENT.lines().skip(5).take(4).collect::<String>();
    let many = DOCUMENT.replace("<domain>", &format!("{}<domain>", server.repeat(50)));
    assert_eq!(read(&many).unwrap().len(), MAX_SERVERS);
    assert_eq!(read(&many.replace("SSL", "")).unwrap().len(), MAX_SERVERS);
}

/// Text between two elements that means nothing.
fn padding() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "",
        " ",
        "\r\n",
        "\t",
        "<!-- <hostname>x</hostname> -->",
        "<?php <port> ?>",
        "L&#228;nder",
        "&nbsp;",
        "&lt;",
        "<br/>",
        "<x:y a='1' a=2>&bullet;</x:y>",
        "<![CDATA[</incomingServer>]]>",
    ])
}

/// `text` in another case, with some characters as references, and with what means nothing around and between.
fn disguised(text: &str, choices: &mut impl Iterator<Item = u8>) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match choices.next().unwrap_or_default() % 6 {
            0 => out += &format!("&#{};", u32::from(char)),
            1 => out += &format!("&#x{:X};", u32::from(char)),
            2 => out.extend(
                ["<!-- x -->", "&unknown;"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain([char.to_string()]),
            ),
            3 => out += &format!("<![CDATA[{char}]]>"),
            _ => out.push(char),
        }
    }
    format!(" \n{out}\t")
}

fn in_some_case(name: &str, choices: &mut impl Iterator<Item = u8>) -> String {
    let either = |char: char, upper: bool| {
        if upper { char.to_ascii_uppercase() } else { char.to_ascii_lowercase() }
    };
    name.chars()
        .map(|char| either(char, choices.next().unwrap_or_default().is_multiple_of(2)))
        .collect()
}

proptest! {
    #[test]
    fn document_in_any_disguise_names_the_same_server(
        choices in prop::collection::vec(any::<u8>(), 400),
        pads in prop::collection::vec(padding(), 12),
        encoding in 0..4_u8,
    ) {
        let mut choices = choices.into_iter();
        let mut pads = pads.into_iter();
        let mut pad = || pads.next().unwrap_or_default();
        let mut element = |name: &str, value: &str| {
            let name = in_some_case(name, &mut choices);
            format!("<{name}>{}</{name}>", disguised(value, &mut choices))
        };
        let (host, port) = (element("hostname", "imap.example.org"), element("port", "993"));
        let (socket, user) = (element("socketType", "SSL"), element("username", "%EMAILLOCALPART%"));
        let server = in_some_case("incomingServer", &mut choices);
        let kind = in_some_case("type", &mut choices);
        let document = format!(
            "<?xml version='1.0'?>{}<!DOCTYPE a [<!ENTITY b 'c'>]><{server} x='&#228;' {kind} = ' I&#109;ap '>{}{host}{}{port}{}{socket}{}{user}{}</{server}>{}",
            pad(), pad(), pad(), pad(), pad(), pad(), pad()
        );
        let bytes = match encoding {
            0 => document.into_bytes(),
            1 => [b"\xef\xbb\xbf", document.as_bytes()].concat(),
            2 => document.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            _ => [b"\xfe\xff".to_vec(), document.encode_utf16().flat_map(u16::to_be_bytes).collect()].concat(),
        };
        let found = servers(&decoded(&bytes), "example.org", ServerKind::Imap).unwrap();
        prop_assert_eq!(found.len(), 1);
        let DiscoveredServer { host, port, security, by_local_part, .. } = &found[0];
        prop_assert_eq!((&**host, *port, *security, *by_local_part), ("imap.example.org", 993, Security::Tls, true));
    }

    #[test]
    fn no_bytes_panic_and_every_flaw_is_within_the_document(
        edits in prop::collection::vec((0..DOCUMENT.len(), any::<u8>(), 0..4_u8), 0..20),
        kind in prop::sample::select(vec![ServerKind::Imap, ServerKind::Smtp]),
    ) {
        let mut bytes = DOCUMENT.as_bytes().to_vec();
        for (at, byte, what) in edits {
            let at = at.min(bytes.len());
            match what {
                0 => bytes.insert(at, byte),
                1 => bytes.truncate(at.max(1)),
                2 => drop(bytes.drain(at..bytes.len().min(at + usize::from(byte)))),
                _ => bytes.splice(at..at, [b'<', b'&', b'>', b'"', b'\'', b'!', b'?', b'/'][usize::from(byte % 8)..].to_vec()).for_each(drop),
            }
        }
        let text = decoded(&bytes);
        match servers(&text, "example.org", kind) {
            Ok(found) => prop_assert!(found.len() <= MAX_SERVERS && found.iter().all(|offer| is_dns_name(&offer.host) && offer.port > 0)),
            Err(flaw) => prop_assert!((1..=text.lines().count() + 1).contains(&flaw.line) && !flaw.problem.is_empty()),
        }
    }

    #[test]
    fn no_noise_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = decoded(&bytes);
        let _ = servers(&text, "example.org", ServerKind::Imap);
        let _ = is_autoconfig(&text);
    }
}
