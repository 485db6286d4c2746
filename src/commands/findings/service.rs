//! The running deltapush, and its service.

use jiff::Timestamp;

use super::super::Fault;
use super::systemd::{SERVICE, UnitFacts};
use super::{Finding, listed};
use crate::admin::format::{counted, moment};

const SUBJECT: &str = "service";

/// Automatic restarts that are worth a look.
const MANY_RESTARTS: u32 = 3;

/// Facts about the service.
#[derive(Debug)]
pub(in super::super) struct ServiceFacts {
    /// The unit; `None` without systemd, and with a configuration that is not the service's.
    pub(in super::super) unit: Option<UnitFacts>,
    /// The version of the deltapush that runs, and its start; or why none answers.
    pub(in super::super) running: Result<(String, Timestamp), String>,
    /// Why the operator's command gets no answer lies in rights, or in the version: a deltapush runs.
    pub(in super::super) is_served: bool,
    /// The version of this program.
    pub(in super::super) installed: &'static str,
    /// The ports of the configuration.
    pub(in super::super) ports: Vec<u16>,
}

/// Judges the service.
pub(in super::super) fn judge(facts: &ServiceFacts) -> Vec<Finding> {
    let mut findings = vec![running(facts)];
    if let Some(unit) = &facts.unit {
        findings.extend(at_boot(unit));
        findings.extend(sockets(unit, &facts.ports));
    }
    findings
}

fn running(facts: &ServiceFacts) -> Finding {
    let (version, started) = match &facts.running {
        Ok(running) => running,
        Err(why) if facts.is_served => {
            return Finding::fail(
                Fault::Unavailable,
                SUBJECT,
                why,
                "run this command as root or as deltapush's user; after an upgrade restart deltapush",
            );
        }
        Err(_) => return stopped(facts.unit.as_ref()),
    };
    let installed = facts.installed;
    if version != installed {
        return Finding::warn(
            SUBJECT,
            format!("deltapush {version} runs, and {installed} is installed"),
            match facts.unit {
                Some(_) => "systemctl restart deltapush",
                None => "restart deltapush",
            },
        );
    }
    let words = format!("deltapush {version} runs since {}", moment(*started));
    match facts.unit.as_ref().map_or(0, |unit| unit.restarts) {
        restarts if restarts >= MANY_RESTARTS => Finding::warn(
            SUBJECT,
            format!("{words}, after {}", counted(restarts.into(), "automatic restart")),
            "journalctl -u deltapush -p warning names the reasons",
        ),
        _ => Finding::ok(SUBJECT, words),
    }
}

fn stopped(unit: Option<&UnitFacts>) -> Finding {
    let Some(unit) = unit else {
        return Finding::fail(
            Fault::Unavailable,
            SUBJECT,
            "no deltapush runs with this configuration",
            "start it, or name its configuration with --config FILE",
        );
    };
    let (words, remedy) = match (unit.active.as_str(), remedy_of_exit(unit.exit_code)) {
        ("failed" | "activating", Some(remedy)) => (
            format!("deltapush has ended with exit code {}", unit.exit_code),
            format!("{remedy}; journalctl -u deltapush -n 20 has its last words"),
        ),
        ("failed" | "activating", None) => (
            "deltapush has ended with an error".to_owned(),
            "journalctl -u deltapush -n 20 has its last words".to_owned(),
        ),
        _ => ("deltapush does not run".to_owned(), "systemctl start deltapush".to_owned()),
    };
    Finding::fail(Fault::Unavailable, SUBJECT, words, remedy)
}

/// The remedy for an exit code of `deltapush run`, or of systemd in its place.
pub(in super::super) fn remedy_of_exit(code: u8) -> Option<&'static str> {
    Some(match code {
        64 => "the unit's command line is wrong: compare it with the one of the package",
        69 | 70 => "this is a bug in deltapush: docs/help.md",
        71 => "another program has the port: `ss -ltnp` names it",
        74 => "the state cannot be opened or is damaged: `deltapush state check`",
        75 => "make room on the disk, or stop the other deltapush that uses the state",
        78 => "the configuration is not valid: `deltapush check` names the place",
        203 => "the program of the unit's ExecStart is missing: install deltapush again",
        217 => "there is no user deltapush: systemd-sysusers",
        _ => return None,
    })
}

fn at_boot(unit: &UnitFacts) -> Option<Finding> {
    (unit.enabled == "disabled").then(|| {
        Finding::warn(
            SUBJECT,
            "deltapush does not start at boot",
            format!("systemctl enable {SERVICE}"),
        )
    })
}

/// Socket units for ports that the configuration does not have.
fn sockets(unit: &UnitFacts, ports: &[u16]) -> Option<Finding> {
    let stray: Vec<_> = unit.sockets.iter().filter(|port| !ports.contains(port)).collect();
    (!stray.is_empty()).then(|| {
        let units: Vec<_> = stray.iter().map(|port| format!("deltapush@{port}.socket")).collect();
        Finding::warn(
            SUBJECT,
            format!("systemd holds port {}, for which there is no listener", listed(&stray)),
            format!("systemctl disable --now {}", units.join(" ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::findings::Verdict;

    fn unit(active: &str, exit_code: u8) -> UnitFacts {
        let (active, enabled) = (active.to_owned(), "enabled".to_owned());
        UnitFacts { active, enabled, exit_code, restarts: 0, sockets: vec![993] }
    }

    fn facts(running: Option<&str>, unit: Option<UnitFacts>) -> ServiceFacts {
        let started = "2026-11-30T10:00:00Z".parse().unwrap();
        ServiceFacts {
            unit,
            running: running.map(|version| (version.to_owned(), started)).ok_or("no".into()),
            is_served: false,
            installed: "0.2.0",
            ports: vec![993],
        }
    }

    #[test]
    fn service_that_runs_and_starts_at_boot_is_well() {
        let found = judge(&facts(Some("0.2.0"), Some(unit("active", 0))));
        let words = "deltapush 0.2.0 runs since 2026-11-30 10:00:00 UTC";
        assert_eq!(found, [Finding::ok("service", words)]);
    }

    #[test]
    fn service_that_ended_is_told_with_the_remedy_of_its_exit_code() {
        let found = judge(&facts(None, Some(unit("failed", 78))));
        let [finding] = found.as_slice() else { panic!("{found:?}") };
        assert!(finding.is_failure() && finding.words.ends_with("exit code 78"));
        assert!(finding.remedy.as_ref().unwrap().contains("`deltapush check`"));
        let stopped = judge(&facts(None, Some(unit("inactive", 0))));
        assert_eq!(stopped[0].remedy.as_deref(), Some("systemctl start deltapush"));
        let by_hand = judge(&facts(None, None));
        assert!(by_hand[0].words.starts_with("no deltapush runs"));
        let closed = judge(&ServiceFacts { is_served: true, ..facts(None, None) });
        assert!(closed[0].remedy.as_ref().unwrap().contains("as root"));
    }

    #[test]
    fn old_version_and_what_a_boot_would_change_are_named() {
        let old =
            UnitFacts { enabled: "disabled".into(), sockets: vec![443, 993], ..unit("active", 0) };
        let found = judge(&facts(Some("0.1.0"), Some(old)));
        let remedies: Vec<_> = found.iter().map(|finding| finding.remedy.as_deref()).collect();
        assert_eq!(
            remedies,
            [
                Some("systemctl restart deltapush"),
                Some("systemctl enable deltapush.service"),
                Some("systemctl disable --now deltapush@443.socket"),
            ]
        );
        let restless = UnitFacts { restarts: 3, ..unit("active", 0) };
        let found = judge(&facts(Some("0.2.0"), Some(restless)));
        assert_eq!(found[0].verdict, Verdict::Warn);
    }
}
