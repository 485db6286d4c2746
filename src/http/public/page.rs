//! The public page. It is readable without scripts; maud escapes all inserted text.

use maud::{Markup, PreEscaped, html};
use serde_json::json;

use super::settings::{Coverage, PublicSite, SetUp};
use crate::client_setup::dclogin::LoginCode;
use crate::client_setup::is_mail_address;
use crate::config::{ListenerTls, Security};
use crate::http::html::{Page, document};

/// Maximum length of an address, in bytes (RFC 5321 section 4.5.3.1.3, without the angle brackets).
const MAX_ADDRESS: usize = 254;

/// The key of the query by which a visitor insists on the settings for an address that is not served.
pub(super) const CONFIRMED: &str = "confirmed";

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
            (address_form(refused.unwrap_or_default(), "Continue"))
            p.quiet {
                "The operator of this server can read your mail while it passes through, as your mail provider can. "
                "Use a server that you trust."
            }
        },
    )
}

/// The form for the address, with a text to begin with.
fn address_form(text: &str, button: &str) -> Markup {
    html! {
        form method="get" action="/" {
            label for="address" { "Your mail address" }
            input #address type="email" name="address" value=(text) required maxlength=(MAX_ADDRESS)
                autocapitalize="off" autocomplete="email" placeholder="you@example.org";
            button { (button) }
        }
    }
}

/// The second step: the settings for `address`, and the form for the password. An address that is not served gets them
/// only if its owner has confirmed it: nobody should type a password because of a misspelled address.
pub(super) fn answer(site: &PublicSite, address: &str, is_confirmed: bool) -> Markup {
    let hostname = site.hostname();
    if !is_mail_address(address) || address.len() > MAX_ADDRESS {
        let shown: String = address.chars().take(60).collect();
        return start(hostname, Some(&shown));
    }
    let Some(set_up) = site.set_up(address) else {
        let text = "No listener of this server has TLS, so that nobody can log in from elsewhere.";
        return frame(hostname, &html! { p.state.bad { (text) } });
    };
    if set_up.coverage == Coverage::Absent && !is_confirmed {
        return not_served(hostname, address);
    }
    frame(
        hostname,
        &html! {
            h2 { (address) }
            (warning(set_up.coverage))
            (code(address, &set_up))
            (table(address, &set_up))
            p { a href="/" { "Another address" } }
        },
    )
}

/// The refusal of an address, which its owner can correct or confirm.
fn not_served(hostname: &str, address: &str) -> Markup {
    frame(
        hostname,
        &html! {
            p.state.bad { "This server does not serve " (address) "." }
            p { "Is the address spelled correctly? Correct it, or ask the operator of this server." }
            (address_form(address, "Try again"))
            form method="get" action="/" {
                input type="hidden" name="address" value=(address);
                input type="hidden" name=(CONFIRMED) value="yes";
                button { "The operator told me that this address is served" }
            }
        },
    )
}

/// The warning above settings that may not work.
fn warning(coverage: Coverage) -> Markup {
    html! {
        @match coverage {
            Coverage::Named => {}
            Coverage::CatchAll => p.state.warn {
                "Is the address spelled correctly? This server serves all domains, so it cannot notice a mistake."
            }
            Coverage::Absent => p.state.bad {
                "This server does not serve this address: it will probably refuse the login. Enter your password only "
                "if the operator told you that the address is served."
            }
        }
    }
}

/// The login code: the script shows the form, and then the code in place of the form.
fn code(address: &str, set_up: &SetUp) -> Markup {
    html! {
        h2 { "Scan a code" }
        noscript { p { "The code needs JavaScript. Without it, enter the settings below." } }
        form #login hidden autocomplete="off" {
            label for="password" { "Password of your mail account" }
            input #password type="password" required maxlength="1000" autocomplete="off";
            button { "Make the code" }
        }
        p #note hidden {
            "Your browser makes the code: " b { "your password is not sent, not even to this server" } "."
        }
        p.state.bad #failure hidden role="alert" { "The settings do not fit into a code. Enter them yourself." }
        section #code hidden tabindex="-1" aria-label="Code for Delta Chat" {
            div #picture {}
            p {
                "Scan it with Delta Chat: add a profile, " i { "use other server" } ", scan. On this phone: "
                a #open { "open it in Delta Chat" } "."
            }
            p { b { "The code contains your password." } " Anyone who sees it, or a photo of it, can read your mail." }
            button #hide type="button" { "Hide the code" }
        }
        script #settings type="application/json" { (PreEscaped(around_password(address, set_up))) }
        script type="module" src="/script.js" {}
    }
}

/// The text of the code around the password, as JSON for the content of a script element.
fn around_password(address: &str, set_up: &SetUp) -> String {
    let SetUp { incoming, outgoing, any_certificate, .. } = set_up;
    let (outgoing, any_certificate) = (outgoing.as_ref(), *any_certificate);
    let code = LoginCode { address, incoming, outgoing, any_certificate };
    let (before, after) = code.around_password();
    // `<` is the only character that could end the element or begin a comment.
    json!({"before": before, "after": after}).to_string().replace('<', "\\u003c")
}

/// The settings to enter by hand.
fn table(address: &str, set_up: &SetUp) -> Markup {
    let SetUp { incoming, outgoing, .. } = set_up;
    let domain = address.rsplit_once('@').map_or(address, |(_, domain)| domain);
    html! {
        h2 { "Or enter the settings yourself" }
        p { "In the advanced settings of the account, enter these, with the password of your mail account:" }
        table {
            thead { tr { th { "Mail" } th { "Server" } th { "Port" } th { "Security" } th { "Login name" } } }
            tbody {
                (row("Incoming (IMAP)", &incoming.host, incoming.port, incoming.tls == ListenerTls::Implicit, address))
                @if let Some(outgoing) = outgoing {
                    @let server = outgoing.server.of(domain);
                    (row("Outgoing (SMTP)", &server.host, server.port, server.security == Security::Tls, &outgoing.login.apply(address)))
                }
            }
        }
        @if outgoing.is_none() {
            p { "The server for outgoing mail is not known. Leave it empty: Delta Chat tries the usual names." }
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
    document(&Page {
        title: hostname,
        head: None,
        is_narrow: true,
        header: html! { h1 { a href="/" { (hostname) } } },
        main: content,
        footer: None,
    })
}
