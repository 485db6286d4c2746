//! The end of `init`: the settings for Delta Chat, and the login code.

use std::io;
use std::path::Path;

use super::super::findings::systemd::is_of_service;
use super::super::findings::{Finding, outcome};
use super::super::qr::{self, CodeSettings};
use super::super::{CommandError, Fault};
use super::server::AddressParts;
use crate::client_setup::{self, Outgoing, outgoing};
use crate::config::{Config, ListenerTls};

/// The state of deltapush at the end.
pub(super) enum ServiceState {
    /// The operator starts it.
    NotStarted,
    /// It runs, with these findings.
    Running(Vec<Finding>),
}

/// Prints the settings for Delta Chat, and the code if a password was given.
pub(super) fn conclude(
    config: &Config,
    address: &AddressParts,
    file: &Path,
    password: Option<&str>,
    state: &ServiceState,
    say: &mut dyn FnMut(&str),
) -> Result<(), CommandError> {
    let settings = show_settings(config, address, say);
    let (once_it_runs, works) = match state {
        ServiceState::NotStarted => (", once deltapush runs,", Ok(())),
        ServiceState::Running(findings) => ("", outcome(findings)),
    };
    let (Some(password), Some(settings)) = (password, settings) else {
        let config = if is_of_service(file) {
            String::new()
        } else {
            format!(" --config {}", file.display())
        };
        say(&format!(
            "or{once_it_runs} scan the code that this command prints: deltapush qr {}{config}",
            address.whole
        ));
        return works;
    };
    if works.is_err() {
        say(
            "The code below works when the failures above are mended; `deltapush doctor` shows them again.",
        );
    }
    say(&format!("or{once_it_runs} scan this code:\n"));
    let printed =
        qr::print(&settings, password, false, &mut io::stdout().lock(), &mut io::stderr());
    printed.map_err(|error| Fault::System.because(format!("cannot print: {error}")))??;
    works
}

/// Prints the settings for Delta Chat; returns those for the code.
fn show_settings(
    config: &Config,
    address: &AddressParts,
    say: &mut dyn FnMut(&str),
) -> Option<CodeSettings> {
    let route = client_setup::route_of(&config.live, &address.whole);
    say("In Delta Chat, enter for incoming mail:");
    let reachable = client_setup::incoming(&config.live, route);
    for incoming in &reachable {
        let security = if incoming.tls == ListenerTls::Implicit { "SSL/TLS" } else { "STARTTLS" };
        say(&format!(
            "  IMAP server {}, port {}, security {security}",
            incoming.host, incoming.port
        ));
    }
    say(&format!("  login name {}, and the password of the account", address.whole));
    let outgoing = route
        .and_then(|route| outgoing::at_once(route, &address.domain))
        .map(|found| found.outgoing);
    if let Some(Outgoing { server, login }) = &outgoing {
        say(&format!(
            "and for outgoing mail:\n  {server}, login name {}",
            login.apply(&address.whole)
        ));
    }
    let incoming = reachable.into_iter().next()?;
    let any_certificate = client_setup::needs_any_certificate(&config.live, &incoming.host);
    if any_certificate {
        say("  certificate checks: accept invalid certificates");
    }
    Some(CodeSettings { address: address.whole.clone(), incoming, outgoing, any_certificate })
}
