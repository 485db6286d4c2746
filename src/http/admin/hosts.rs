//! Host names under which browsers may request the page. Protects against DNS rebinding: under a foreign name that
//! resolves to this address, foreign scripts could read the page with the browser's stored password.

use std::net::IpAddr;

use crate::config::{Admin, Hostname};

/// The names.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Vec<Hostname>);

impl Hosts {
    pub(super) fn new(hostname: &Hostname, admin: &Admin) -> Self {
        Self(std::iter::once(hostname).chain(&admin.hosts).cloned().collect())
    }

    /// True if the value of a Host field (RFC 9110 section 7.2) is one of them, or an IP address, which cannot be a foreign name.
    pub(super) fn have(&self, host: &str) -> bool {
        let name = without_port(host);
        let literal =
            name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        literal.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|known| known.as_str().eq_ignore_ascii_case(name))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_ours_are_refused() {
        let hostname = Hostname::new("push.example.org").unwrap();
        let hosts = vec![Hostname::new("admin.example.org").unwrap()];
        let hosts = Hosts::new(&hostname, &Admin { hosts, ..Admin::default() });
        for ours in [
            "127.0.0.1:1980",
            "127.0.0.1",
            "[::1]:1980",
            "[::1]",
            "192.0.2.1:80",
            "localhost",
            "LOCALHOST:1980",
            "push.example.org",
            "Push.Example.Org:443",
            "admin.example.org:1980",
        ] {
            assert!(hosts.have(ours), "{ours}");
        }
        for other in [
            "",
            ":",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "push.example.org.",
            "127.0.0.1.evil.example:1980",
            "x:y",
        ] {
            assert!(!hosts.have(other), "{other}");
        }
    }
}
