//! The end of `init` on a machine with systemd: deltapush is started with its sockets, and looked at as clients see it.

use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::findings::name::NameFacts;
use super::super::findings::service::remedy_of_exit;
use super::super::findings::systemd::{self, SERVICE, UnitFacts};
use super::super::findings::{certificate, outside};
use super::super::{CommandError, Fault};
use super::place;
use crate::config::{Config, LiveConfig};
use crate::dns::DnsResolver;

/// The unit of which each port has an instance.
const SOCKET_TEMPLATE: &str = "deltapush@.socket";

/// Time limit for the first certificate; the authority needs seconds.
const CERTIFICATE_TIME: Duration = Duration::from_secs(60);
/// Time between two looks at the certificate.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// True if `init` can start the service with the configuration in `file`.
pub(super) fn can_start(file: &Path) -> bool {
    systemd::is_booted()
        && systemd::has_unit(SERVICE)
        && systemd::is_of_service(file)
        && rustix::process::geteuid().is_root()
}

/// Decides about the start: as the command line has it, or by a question.
pub(super) fn is_wanted(start: bool, no_start: bool) -> bool {
    let is_asked = io::stdin().is_terminal() && io::stdout().is_terminal();
    match (start, no_start) {
        (true, _) => true,
        (_, true) => false,
        _ => is_asked && super::questions::confirm("Start deltapush now, and at each boot?", true),
    }
}

/// Starts the service, or restarts it, and enables it and its sockets. Returns when it is ready.
///
/// # Errors
/// Why it does not run, with its last words and the remedy.
pub(super) async fn start(config: &Config, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    let facts = UnitFacts::look().await.unwrap_or_default();
    let wanted =
        if systemd::has_unit(SOCKET_TEMPLATE) { socket_ports(&config.live) } else { vec![] };
    say(if facts.active == "active" {
        "deltapush is running: restarting it with the new configuration …"
    } else {
        "Starting deltapush …"
    });
    for request in requests(&facts, &wanted) {
        let arguments: Vec<_> = request.iter().map(String::as_str).collect();
        if let Err(error) = systemd::systemctl(&arguments).await {
            return Err(failed(&error).await);
        }
    }
    let sockets = if wanted.is_empty() { "" } else { "; systemd holds its ports during a restart" };
    say(&format!("deltapush runs, and starts at each boot{sockets}."));
    Ok(())
}

/// The ports that systemd can hold: those on all addresses.
fn socket_ports(config: &LiveConfig) -> Vec<u16> {
    let any: IpAddr = if place::has_ipv6() { [0; 16].into() } else { [0; 4].into() };
    let open = config.public_addresses().filter(|address| address.ip() == any);
    open.map(|address| address.port()).collect()
}

/// The requests to systemctl, in their order.
fn requests(facts: &UnitFacts, wanted: &[u16]) -> Vec<Vec<String>> {
    let units = |ports: Vec<u16>| ports.into_iter().map(|port| format!("deltapush@{port}.socket"));
    let request = |words: &[&str], units: Vec<String>| {
        words.iter().map(ToString::to_string).chain(units).collect::<Vec<_>>()
    };
    let active = &facts.sockets;
    let stray: Vec<u16> = active.iter().filter(|port| !wanted.contains(port)).copied().collect();
    let missing = wanted.iter().any(|port| !active.contains(port));
    let mut requests = Vec::new();
    if !stray.is_empty() {
        requests.push(request(&["disable", "--now"], units(stray).collect()));
    }
    if missing && facts.active != "inactive" && !facts.active.is_empty() {
        // It has the ports itself.
        requests.push(request(&["stop"], vec![SERVICE.to_owned()]));
    }
    if !wanted.is_empty() {
        requests.push(request(&["enable", "--now"], units(wanted.to_vec()).collect()));
    }
    requests.push(request(&["enable"], vec![SERVICE.to_owned()]));
    // Ready when it returns: the unit has `Type=notify`. Starts what does not run.
    requests.push(request(&["restart"], vec![SERVICE.to_owned()]));
    requests
}

async fn failed(error: &str) -> CommandError {
    let code = UnitFacts::look().await.map_or(0, |facts| facts.exit_code);
    Fault::Unavailable.because(failure(error, code, &systemd::last_words().await))
}

/// The end of the service in words: its own, and the remedy.
fn failure(error: &str, code: u8, last_words: &[String]) -> String {
    let mut text = format!("deltapush does not start: {error}\n");
    for line in last_words {
        text.push_str(&format!("  {line}\n"));
    }
    let remedy = remedy_of_exit(code).unwrap_or("see its last words above");
    text.push_str(&format!(
        "{remedy}. Then: systemctl restart deltapush; deltapush doctor; and for the login code deltapush qr"
    ));
    text
}

/// Waits until the authority has issued the certificate, if one is to come, for a minute at most.
pub(super) async fn await_certificate(config: &LiveConfig, say: &mut dyn FnMut(&str)) {
    if config.certificate.acme.is_none() {
        return;
    }
    say("Waiting for the certificate …");
    let facts = NameFacts::look(&config.hostname, &DnsResolver::new(config.dns.server)).await;
    let deadline = Instant::now() + CERTIFICATE_TIME;
    while Instant::now() < deadline {
        let visits = outside::visit(config, &facts).await;
        // Until it comes, deltapush shows a self-signed one.
        if certificate::look(config, &visits).is_some_and(|found| !found.is_self_signed) {
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(active: &str, sockets: &[u16]) -> UnitFacts {
        UnitFacts { active: active.to_owned(), sockets: sockets.to_vec(), ..UnitFacts::default() }
    }

    fn planned(active: &str, sockets: &[u16], wanted: &[u16]) -> Vec<String> {
        requests(&facts(active, sockets), wanted).iter().map(|words| words.join(" ")).collect()
    }

    const ENABLE: &str = "enable --now deltapush@993.socket deltapush@443.socket";

    #[test]
    fn sockets_open_before_the_service() {
        let end = ["enable deltapush.service", "restart deltapush.service"];
        assert_eq!(planned("inactive", &[], &[993, 443]), [ENABLE, end[0], end[1]]);
        assert_eq!(planned("inactive", &[], &[]), end);
        assert_eq!(planned("active", &[993, 443], &[993, 443]), [ENABLE, end[0], end[1]]);
    }

    #[test]
    fn service_gives_its_ports_to_the_sockets() {
        let stop = "stop deltapush.service";
        assert_eq!(planned("active", &[], &[993, 443])[..2], [stop, ENABLE]);
        assert_eq!(planned("failed", &[], &[993, 443])[..2], [stop, ENABLE]);
    }

    #[test]
    fn socket_without_a_listener_is_closed() {
        let planned = planned("active", &[443, 993], &[993]);
        assert_eq!(planned[0], "disable --now deltapush@443.socket");
    }

    #[test]
    fn failure_has_the_last_words_and_the_remedy() {
        let words = ["config.yaml:3:1: unknown key".to_owned()];
        let text = failure("Job failed", 78, &words);
        assert!(text.contains("\n  config.yaml:3:1: unknown key\n"), "{text}");
        assert!(text.contains("`deltapush check`"), "{text}");
        assert!(failure("Job failed", 1, &words).contains("see its last words above"));
    }
}
