//! Published facts about large providers' mail servers: names, ports, and login requirements. From their own help
//! pages; used where a domain need not be asked, and for other domains whose mail such a provider has. None was tried
//! live.

use crate::config::{Security, Submission};

/// A provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name for people.
    pub name: &'static str,
    /// The domains of its addresses; none where people bring their own.
    pub domains: &'static [&'static str],
    /// Its IMAP servers, all with TLS from the first byte on port 993; the first is the one to take.
    pub imap: &'static [&'static str],
    /// Its submission server, and how TLS comes in there, on the usual port.
    pub smtp: (&'static str, Security),
    /// True if the IMAP server wants the part before the `@` as login.
    pub imap_by_local_part: bool,
    /// The same of the submission server.
    pub smtp_by_local_part: bool,
    /// A hint for the person before the first login; may be empty.
    pub hint: &'static str,
}

const TLS: Security = Security::Tls;
const STARTTLS: Security = Security::StartTls;

/// A provider of whom nothing odd is known.
const fn plain(
    name: &'static str,
    domains: &'static [&'static str],
    imap: &'static [&'static str],
    smtp: (&'static str, Security),
    hint: &'static str,
) -> Provider {
    Provider {
        name,
        domains,
        imap,
        smtp,
        imap_by_local_part: false,
        smtp_by_local_part: false,
        hint,
    }
}

const APP_PASSWORD: &str = "it requires an app password, created in the account's security settings, instead of the usual one";
const CODE: &str = "it requires an authorization code, created in the web mailer's settings, instead of the usual password";
const SWITCH_ON: &str = "IMAP must be switched on in the web mailer's settings first";

const PROVIDERS: &[Provider] = &[
    plain(
        "Gmail",
        &["gmail.com", "googlemail.com"],
        &["imap.gmail.com", "imap.googlemail.com"],
        ("smtp.gmail.com", TLS),
        "it requires an app password, created in the account's security settings, instead of the usual one; it allows \
         15 sessions for each account",
    ),
    plain(
        "Outlook.com and Microsoft 365",
        &[
            "outlook.com",
            "outlook.de",
            "hotmail.com",
            "hotmail.de",
            "live.com",
            "live.de",
            "msn.com",
        ],
        &["outlook.office365.com", "imap-mail.outlook.com"],
        ("smtp.office365.com", STARTTLS),
        "it accepts no passwords any more, only OAuth tokens, which current versions of Delta Chat do not have",
    ),
    plain(
        "Yahoo",
        &[
            "yahoo.com",
            "yahoo.de",
            "yahoo.fr",
            "yahoo.it",
            "yahoo.es",
            "yahoo.co.uk",
            "yahoo.co.in",
            "ymail.com",
            "rocketmail.com",
        ],
        &["imap.mail.yahoo.com"],
        ("smtp.mail.yahoo.com", TLS),
        APP_PASSWORD,
    ),
    plain("AOL", &["aol.com", "aim.com"], &["imap.aol.com"], ("smtp.aol.com", TLS), APP_PASSWORD),
    Provider {
        imap_by_local_part: true,
        ..plain(
            "iCloud",
            &["icloud.com", "me.com", "mac.com"],
            &["imap.mail.me.com"],
            ("smtp.mail.me.com", STARTTLS),
            APP_PASSWORD,
        )
    },
    plain(
        "GMX",
        &["gmx.de", "gmx.net", "gmx.at", "gmx.ch", "gmx.org", "gmx.eu", "gmx.info", "gmx.biz"],
        &["imap.gmx.net"],
        ("mail.gmx.net", TLS),
        SWITCH_ON,
    ),
    plain(
        "GMX",
        &["gmx.com", "gmx.us", "gmx.co.uk", "gmx.fr"],
        &["imap.gmx.com"],
        ("mail.gmx.com", TLS),
        SWITCH_ON,
    ),
    plain(
        "mail.com",
        &["mail.com", "email.com"],
        &["imap.mail.com"],
        ("smtp.mail.com", STARTTLS),
        SWITCH_ON,
    ),
    Provider {
        imap_by_local_part: true,
        smtp_by_local_part: true,
        ..plain("WEB.DE", &["web.de"], &["imap.web.de"], ("smtp.web.de", STARTTLS), SWITCH_ON)
    },
    plain("IONOS", &[], &["imap.ionos.de", "imap.1und1.de"], ("smtp.ionos.de", TLS), ""),
    plain("IONOS", &[], &["imap.ionos.com"], ("smtp.ionos.com", TLS), ""),
    plain(
        "T-Online",
        &["t-online.de", "magenta.de"],
        &["secureimap.t-online.de"],
        ("securesmtp.t-online.de", TLS),
        "it requires the separate password for mail programs, created in the customer centre",
    ),
    plain(
        "Posteo",
        &[
            "posteo.de",
            "posteo.net",
            "posteo.org",
            "posteo.eu",
            "posteo.at",
            "posteo.ch",
            "posteo.us",
        ],
        &["posteo.de"],
        ("posteo.de", TLS),
        "it counts the sessions of all devices that come through one proxy together",
    ),
    plain(
        "mailbox.org",
        &["mailbox.org"],
        &["imap.mailbox.org"],
        ("smtp.mailbox.org", TLS),
        "it limits the rate of logins, for all programs of an account together",
    ),
    plain(
        "Fastmail",
        &["fastmail.com", "fastmail.fm"],
        &["imap.fastmail.com"],
        ("smtp.fastmail.com", TLS),
        APP_PASSWORD,
    ),
    plain("163", &["163.com"], &["imap.163.com"], ("smtp.163.com", TLS), CODE),
    plain("126", &["126.com"], &["imap.126.com"], ("smtp.126.com", TLS), CODE),
    plain("QQ", &["qq.com", "foxmail.com"], &["imap.qq.com"], ("smtp.qq.com", TLS), CODE),
    plain(
        "mail.ru",
        &["mail.ru", "inbox.ru", "list.ru", "bk.ru", "internet.ru"],
        &["imap.mail.ru"],
        ("smtp.mail.ru", TLS),
        "its IDLE does not work, so push cannot work there; it requires a password for external applications",
    ),
    plain(
        "Yandex",
        &["yandex.com", "yandex.ru", "ya.ru", "yandex.by", "yandex.kz"],
        &["imap.yandex.com", "imap.yandex.ru"],
        ("smtp.yandex.com", TLS),
        "it requires an app password; IMAP must be switched on in the web mailer's settings first",
    ),
    plain("o2.pl", &["o2.pl", "tlen.pl"], &["poczta.o2.pl"], ("poczta.o2.pl", TLS), SWITCH_ON),
    plain("WP", &["wp.pl"], &["imap.wp.pl"], ("smtp.wp.pl", TLS), SWITCH_ON),
    plain(
        "Seznam",
        &["seznam.cz", "email.cz", "post.cz"],
        &["imap.seznam.cz"],
        ("smtp.seznam.cz", TLS),
        "",
    ),
    plain("Bluewin", &["bluewin.ch"], &["imaps.bluewin.ch"], ("smtpauths.bluewin.ch", TLS), ""),
    plain("freenet", &["freenet.de"], &["mx.freenet.de"], ("mx.freenet.de", STARTTLS), ""),
    plain("Zoho", &["zohomail.com"], &["imap.zoho.com"], ("smtp.zoho.com", TLS), SWITCH_ON),
    plain("Zoho", &["zohomail.eu"], &["imap.zoho.eu"], ("smtp.zoho.eu", TLS), SWITCH_ON),
    plain(
        "Purelymail",
        &["purelymail.com"],
        &["imap.purelymail.com"],
        ("smtp.purelymail.com", TLS),
        "",
    ),
    plain("Migadu", &[], &["imap.migadu.com"], ("smtp.migadu.com", TLS), ""),
    plain(
        "Infomaniak",
        &["ik.me", "ikmail.com"],
        &["mail.infomaniak.com"],
        ("mail.infomaniak.com", TLS),
        "",
    ),
    plain("Disroot", &["disroot.org"], &["disroot.org"], ("disroot.org", STARTTLS), ""),
    plain("Systemli", &["systemli.org"], &["mail.systemli.org"], ("mail.systemli.org", TLS), ""),
    Provider {
        imap_by_local_part: true,
        smtp_by_local_part: true,
        ..plain("Riseup", &["riseup.net"], &["mail.riseup.net"], ("mail.riseup.net", TLS), "")
    },
];

/// The provider whose addresses end in `domain` (in lower case).
#[must_use]
pub fn of_domain(domain: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.domains.contains(&domain))
}

/// The provider whose IMAP server is `host` (in lower case), for addresses of any domain.
#[must_use]
pub fn of_host(host: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.imap.contains(&host))
}

impl Provider {
    /// The IMAP server to take, on port 993 with TLS from the first byte.
    #[must_use]
    pub fn imap_host(&self) -> &'static str {
        self.imap.first().copied().unwrap_or_default()
    }

    /// The submission server.
    #[must_use]
    pub fn submission(&self) -> Submission {
        let (host, security) = self.smtp;
        Submission::new(security, host, Submission::usual_port(security))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::is_dns_name;

    #[test]
    fn table_is_sound() {
        let (mut domains, mut hosts) = (HashSet::new(), HashSet::new());
        for provider in PROVIDERS {
            assert!(!provider.imap.is_empty(), "{}", provider.name);
            for host in provider.imap {
                assert!(
                    is_dns_name(host) && hosts.insert(host) && host.to_lowercase() == *host,
                    "{host}"
                );
            }
            for domain in provider.domains {
                assert!(
                    is_dns_name(domain)
                        && domains.insert(domain)
                        && domain.to_lowercase() == *domain,
                    "{domain}"
                );
            }
            let smtp = provider.submission();
            assert_eq!(smtp.to_string().parse::<Submission>().unwrap(), smtp);
        }
    }

    #[test]
    fn providers_are_found_by_domain_and_by_server() {
        assert_eq!(of_domain("web.de").map(|provider| provider.imap_by_local_part), Some(true));
        assert_eq!(
            of_host("imap.ionos.de").unwrap().submission().to_string(),
            "smtps://smtp.ionos.de:465"
        );
        assert_eq!(of_domain("example.org"), None);
        assert_eq!(of_host("mail.example.org"), None);
    }
}
