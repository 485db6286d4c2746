//! The public page. It is readable without scripts; maud escapes all inserted text.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::json;

use super::settings::{PublicSite, SetUp};
use crate::client_setup::dclogin::LoginCode;
use crate::client_setup::is_mail_address;
use crate::config::{ListenerTls, Security};

/// Maximum length of an address, in bytes (RFC 5321 section 4.5.3.1.3, without the angle brackets).
const MAX_ADDRESS: usize = 254;

/// The first step: the form for the address. `refused` is an entered text that is no address.
pub(super) fn start(hostname: &str, refused: Option<&str>) -> Markup {
    frame(
        hostname,
        &html! {
            p {
                "This server adds push notifications to " a href="https://delta.chat" { "Delta Chat" }
                " for mail accounts whose mail server has none. It relays everything to your mail server and wakes "
                "your phone when a message arrives."
            }
            @if let Some(text) = refused { p.state.warn { (text) " is not a mail address." } }
            form method="get" action="/" {
                input type="email" name="address" required maxlength=(MAX_ADDRESS) autocapitalize="off"
                    placeholder="you@example.org" aria-label="Your mail address";
                button { "Show my settings" }
            }
            p.quiet {
                "The operator of this server can read your mail while it passes through, as your mail provider can. "
                "Use a server that you trust."
            }
        },
    )
}

/// The second step: the settings for `address`, and the form for the password.
pub(super) fn answer(site: &PublicSite, address: &str) -> Markup {
    let hostname = site.hostname();
    if !is_mail_address(address) || address.len() > MAX_ADDRESS {
        let shown: String = address.chars().take(60).collect();
        return start(hostname, Some(&shown));
    }
    let Some(set_up) = site.set_up(address) else {
        let text = "No listener of this server has TLS, so that nobody can log in from elsewhere.";
        return frame(hostname, &html! { p.state.bad { (text) } });
    };
    frame(
        hostname,
        &html! {
            h2 { (address) }
            @if !set_up.is_served {
                p.state.warn {
                    "This server has no settings for this address: is it spelled correctly? If the operator told you "
                    "that your address is served, use the settings below."
                }
            }
            (code(address, &set_up))
            (table(address, &set_up))
            p { a href="/" { "Another address" } }
        },
    )
}

/// The login code: the script shows the form, and then the code in place of the form.
fn code(address: &str, set_up: &SetUp) -> Markup {
    let SetUp { incoming, outgoing, any_certificate, .. } = set_up;
    let (outgoing, any_certificate) = (outgoing.as_ref(), *any_certificate);
    let code = LoginCode { address, incoming, outgoing, any_certificate };
    let (before, after) = code.around_password();
    // In a script element `<` is the only character that could end it or begin a comment.
    let settings = json!({"before": before, "after": after}).to_string().replace('<', "\\u003c");
    html! {
        h2 { "Set up with a login code" }
        noscript { p { "The login code needs JavaScript. Without it, enter the settings below." } }
        form #login hidden autocomplete="off" {
            input #password type="password" required maxlength="1000" autocomplete="off"
                placeholder="Password of your mail account" aria-label="Password of your mail account";
            button { "Show the code" }
        }
        p #note hidden role="status" {
            "Your browser makes the code: " b { "your password is not sent, not even to this server" } "."
        }
        section #code hidden {
            div #picture {}
            p {
                "Scan it with Delta Chat: add a profile, " i { "use other server" } ", scan. On this phone: "
                a #open { "open it in Delta Chat" } "."
            }
            p { b { "The code contains your password." } " Anyone who sees it, or a photo of it, can read your mail." }
        }
        script #settings type="application/json" { (PreEscaped(settings)) }
        script type="module" src="/script.js" {}
    }
}

/// The settings to enter by hand.
fn table(address: &str, set_up: &SetUp) -> Markup {
    let SetUp { incoming, outgoing, .. } = set_up;
    let domain = address.rsplit_once('@').map_or(address, |(_, domain)| domain);
    html! {
        h2 { "Set up by hand" }
        p { "In the advanced settings of the account, enter these, with the password of your mail account:" }
        table {
            thead { tr { th { } th { "Server" } th { "Port" } th { "Security" } th { "Login name" } } }
            tbody {
                (row("IMAP", &incoming.host, incoming.port, incoming.tls == ListenerTls::Implicit, address))
                @if let Some(outgoing) = outgoing {
                    @let server = outgoing.server.of(domain);
                    (row("SMTP", &server.host, server.port, server.security == Security::Tls, &outgoing.login.apply(address)))
                }
            }
        }
        @if outgoing.is_none() {
            p { "The SMTP server is not known. Leave it empty: Delta Chat tries the usual names." }
        }
    }
}

fn row(name: &str, host: &str, port: u16, is_tls: bool, login: &str) -> Markup {
    html! {
        tr {
            td { (name) }
            td data-name="Server" { (host) }
            td data-name="Port" { (port) }
            td data-name="Security" { @if is_tls { "SSL/TLS" } @else { "STARTTLS" } }
            td data-name="Login name" { (login) }
        }
    }
}

fn frame(hostname: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (hostname) }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
            }
            body.narrow {
                header { h1 { a href="/" { (hostname) } } }
                main { (content) }
            }
        }
    }
}
