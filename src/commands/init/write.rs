//! The configuration that `deltapush init` writes: its text, and the atomically created file.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::place::{InitPlan, Proof};
use super::server::quoted;
use crate::client_setup::Outgoing;
use crate::config::LoginTemplate;

/// The decisions.
pub(super) struct Plan<'a> {
    pub(super) address: &'a str,
    pub(super) place: &'a InitPlan,
    /// The route in YAML.
    pub(super) route: String,
    /// The login name in the route: also that for the SMTP server, unless it has its own.
    pub(super) login: &'a LoginTemplate,
    pub(super) outgoing: Option<&'a Outgoing>,
    pub(super) dns: Option<SocketAddr>,
    /// The address of the hook, if the mail server tells of new messages.
    pub(super) news: Option<SocketAddr>,
    /// Only the address may log in.
    pub(super) only_me: bool,
    /// The mail server is in the operator's own network.
    pub(super) is_own_server: bool,
    /// The folder of certificates and state.
    pub(super) data: Option<PathBuf>,
}

/// Renders the file.
pub(super) fn text(plan: &Plan<'_>) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = compose(&mut out, plan);
    out
}

fn compose(out: &mut String, plan: &Plan<'_>) -> std::fmt::Result {
    let Plan { address, place, .. } = plan;
    writeln!(out, "# Configuration of deltapush for {address}, created by `deltapush init`.")?;
    writeln!(
        out,
        "# Keys that are not set here have their defaults. Run `deltapush check` after a change.\n"
    )?;
    writeln!(out, "# IMAP server name that users enter in Delta Chat.")?;
    writeln!(out, "hostname: {}\n", quoted(place.hostname.as_str()))?;
    listeners(out, place)?;
    certificate(out, plan)?;
    allow(out, plan)?;
    writeln!(
        out,
        "# Mail server of each address or domain. Only logins that match a route are accepted.\nroutes:"
    )?;
    out.push_str(&plan.route);
    if let Some(Outgoing { server, login }) = plan.outgoing {
        writeln!(out, "    # SMTP server: passed on to Delta Chat, never used by deltapush.")?;
        writeln!(out, "    smtp: {}", quoted(&server.to_string()))?;
        if login != plan.login {
            writeln!(out, "    smtp_login: {}", quoted(&login.to_string()))?;
        }
    }
    if plan.news.is_some() {
        writeln!(
            out,
            "    # The mail server tells of each message; a waiting session finds what it leaves out."
        )?;
        writeln!(out, "    news: both")?;
    }
    writeln!(
        out,
        "  # - domain: family.example\n  #   discover: true          # look the server up at the domain\n"
    )?;
    failed_logins(out, plan.is_own_server)?;
    if let Some(dns) = plan.dns {
        writeln!(out, "dns:\n  server: {}\n", quoted(&dns.to_string()))?;
    }
    if let Some(news) = plan.news {
        writeln!(out, "# The hook of the mail server, for this machine only.")?;
        writeln!(out, "news:\n  listen: {}\n", quoted(&news.to_string()))?;
    }
    writeln!(
        out,
        "# State: accounts, tokens, and passwords sealed with a key. Keep it on this machine."
    )?;
    writeln!(out, "storage:\n  directory: {}", quoted(&within(plan, "state")))
}

fn listeners(out: &mut String, place: &InitPlan) -> std::fmt::Result {
    writeln!(out, "listeners:")?;
    writeln!(
        out,
        "  - address: {}",
        quoted(&SocketAddr::new(place.address, place.imaps).to_string())
    )?;
    writeln!(out, "    tls: implicit")?;
    if let Some(web) = place.web {
        writeln!(
            out,
            "  # For networks that block the port above, for browsers and autoconfig, and for the certificate."
        )?;
        writeln!(out, "  - address: {}", quoted(&SocketAddr::new(place.address, web).to_string()))?;
        writeln!(out, "    tls: implicit\n    web: true")?;
    }
    out.push('\n');
    Ok(())
}

/// Written in any case, at least as a comment: with it, no stranger can cause failed logins at the mail server.
fn allow(out: &mut String, Plan { address, only_me, .. }: &Plan<'_>) -> std::fmt::Result {
    writeln!(
        out,
        "# Accepted logins, by address or domain. deltapush refuses all others; the mail server never sees them."
    )?;
    let mark = if *only_me { "" } else { "# " };
    writeln!(out, "{mark}allow:\n{mark}  logins: [{}]\n", quoted(address))
}

/// deltapush makes the logins of all people from one address, which the mail server must not ban. A server of one's own can exempt
/// it, and then the mistakes of one household need not stop the others.
fn failed_logins(out: &mut String, is_own_server: bool) -> std::fmt::Result {
    let (mark, advice) = if is_own_server {
        ("", "The mail server is in your own network: exempt this machine there")
    } else {
        ("# ", "If the mail server is your own, exempt this machine there and remove the # below")
    };
    writeln!(out, "# Failed logins. {advice}")?;
    writeln!(
        out,
        "# (fail2ban: `ignoreip`; Dovecot: `login_trusted_networks`), since deltapush logs in for everybody."
    )?;
    writeln!(
        out,
        "{mark}limits:\n{mark}  failed_logins:\n{mark}    per_upstream: 100\n{mark}    per_upstream_day: 1000\n"
    )
}

fn certificate(out: &mut String, plan: &Plan<'_>) -> std::fmt::Result {
    writeln!(out, "certificate:\n  directory: {}", quoted(&within(plan, "certs")))?;
    match &plan.place.proof {
        Proof::Acme { http } => {
            writeln!(
                out,
                "  acme:\n    terms_agreed: true      # Let's Encrypt: https://letsencrypt.org/repository/"
            )?;
            if let Some(http) = http {
                let http = quoted(&http.to_string());
                writeln!(out, "    http: {http}          # the authority connects to port 80")?;
            }
        }
        Proof::Files { chain, key } => {
            let path = |path: &Path| quoted(&path.display().to_string());
            writeln!(out, "  chain: {}\n  key: {}", path(chain), path(key))?;
        }
        Proof::SelfSigned => writeln!(out, "  # Self-signed. Better ways: docs/certificates.md")?,
    }
    out.push('\n');
    Ok(())
}

fn within(plan: &Plan<'_>, name: &str) -> String {
    plan.data.as_ref().map_or_else(|| name.to_owned(), |data| data.join(name).display().to_string())
}

/// The folder for certificates and state if the configuration is in /etc, as with the systemd unit.
pub(super) fn data_folder(file: &Path) -> Option<PathBuf> {
    let file = std::path::absolute(file).ok()?;
    file.starts_with("/etc").then(|| "/var/lib/deltapush".into())
}

/// Writes the file. Replaces an existing one only if `replaces`, and atomically.
pub(super) fn write(file: &Path, text: &str, replaces: bool) -> io::Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // The service reads it as another user, whatever root's umask is. There is no secret in it.
    let is_of_service = data_folder(file).is_some();
    if is_of_service && !folder.exists() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    fs::create_dir_all(folder)?;
    let fill = |mut made: File| {
        if is_of_service {
            made.set_permissions(Permissions::from_mode(0o644))?;
        }
        made.write_all(text.as_bytes()).and_then(|()| made.sync_all())
    };
    if !replaces {
        return fill(File::create_new(file)?).inspect_err(|_| {
            // Half a configuration is none.
            let _ = fs::remove_file(file);
        });
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    fill(File::create(&new)?).and_then(|()| fs::rename(&new, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Hostname, NewsSource};

    fn place(proof: Proof, web: Option<u16>) -> InitPlan {
        let hostname = Hostname::new("push.example.org").unwrap();
        InitPlan { hostname, address: "::".parse().unwrap(), imaps: 993, web, proof, notes: vec![] }
    }

    fn plan<'a>(place: &'a InitPlan, login: &'a LoginTemplate) -> Plan<'a> {
        let route = "  - domain: \"example.org\"\n    upstream: \"imaps://imap.example.org:993\"\n"
            .to_owned();
        Plan {
            address: "you@example.org",
            place,
            route,
            login,
            outgoing: None,
            dns: None,
            news: None,
            only_me: false,
            is_own_server: false,
            data: None,
        }
    }

    #[test]
    fn every_text_is_a_right_configuration() {
        let outgoing = Outgoing {
            server: "smtps://smtp.example.org".parse().unwrap(),
            login: Default::default(),
        };
        let (same, other) = (LoginTemplate::default(), LoginTemplate::local());
        let acme =
            |http: Option<&str>| Proof::Acme { http: http.map(|http| http.parse().unwrap()) };
        let files = Proof::Files { chain: "/a b/chain.pem".into(), key: "/k\"ey".into() };
        for (proof, web) in [
            (acme(None), Some(443)),
            (acme(Some("[::]:80")), None),
            (files, None),
            (Proof::SelfSigned, Some(443)),
        ] {
            let place = place(proof.clone(), web);
            let full = Plan {
                outgoing: Some(&outgoing),
                dns: Some("127.0.0.1:53".parse().unwrap()),
                news: Some("127.0.0.1:1981".parse().unwrap()),
                only_me: true,
                is_own_server: true,
                data: Some("/var/lib/deltapush".into()),
                ..plan(&place, &same)
            };
            for plan in [full, plan(&place, &other)] {
                let text = text(&plan);
                assert!(!text.contains("smtp_login"), "{text}");
                let config = Config::parse(&text, Path::new("/etc/deltapush"), "test")
                    .unwrap_or_else(|e| panic!("{e}\n{text}"));
                let http = config.live.certificate.acme.map(|acme| acme.http.as_deref().copied());
                let expected = match proof {
                    Proof::Acme { http } => Some(http),
                    _ => None,
                };
                assert_eq!(http, expected);
                assert_eq!(
                    config.live.listeners.iter().any(|listener| listener.web),
                    web.is_some()
                );
                assert_eq!(config.live.allow.logins.is_some(), plan.only_me);
                let failures = config.live.limits.failed_logins.per_upstream;
                assert_eq!(failures, if plan.is_own_server { 100 } else { 4 });
                assert!(
                    config.live.allow.allows("you@example.org")
                        && config.live.allow.allows("x@example.org") != plan.only_me
                );
                assert_eq!(config.startup.news.listen.as_deref(), plan.news.as_ref());
                assert_eq!(config.live.routes[0].news == NewsSource::Both, plan.news.is_some());
                assert_eq!(config.live.routes[0].smtp.is_some(), plan.outgoing.is_some());
                assert_eq!(
                    config.startup.storage.directory.starts_with("/var/lib"),
                    plan.data.is_some()
                );
            }
            let text = text(&Plan { outgoing: Some(&outgoing), ..plan(&place, &other) });
            assert!(text.contains("smtp_login: \"{login}\""), "{text}");
        }
    }

    #[test]
    fn existing_files_are_replaced_only_on_demand() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/config.yaml");
        write(&file, "one", false).unwrap();
        assert_eq!(write(&file, "two", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&file).unwrap(), "one");
        write(&file, "three", true).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "three");
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        assert!(data_folder(Path::new("/etc/deltapush/config.yaml")).is_some());
        assert_eq!(data_folder(Path::new("config.yaml")), None);
    }
}
