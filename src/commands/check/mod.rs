//! `deltapush check`: what would run with a configuration, and what would keep it from running.

pub mod route;

use std::io::{self, Write};

use super::findings::{Finding, Verdict, listen, news, state};
use super::{CommandError, Fault};
use crate::admin::control;
use crate::admin::format::counted;
use crate::config::{Config, NewsSettings};
use crate::store::{CredentialStorage, PostgresSettings, StoreSettings};
use crate::tls::certs::identity::{CertificateOrigin, CertificateSummary};

/// Writes what would run with `config`: `certificate` is shown to clients, `more` by the names in them. Returns the obstacles to a
/// start, if there are any.
///
/// # Errors
/// If `out` does not take it.
pub fn run(
    out: &mut impl Write,
    config: &Config,
    certificate: &CertificateSummary,
    more: &[CertificateSummary],
) -> io::Result<Result<(), CommandError>> {
    let found = obstacles(config, &[]);
    describe(out, config, certificate, more)?;
    for warning in found.iter().filter(|finding| finding.verdict == Verdict::Warn) {
        writeln!(out, "WARNING      {}", in_a_line(warning))?;
    }
    let problems: Vec<_> = found.iter().filter(|finding| finding.is_failure()).collect();
    if problems.is_empty() {
        return Ok(Ok(()));
    }
    let problems: Vec<_> = problems.into_iter().map(in_a_line).collect();
    let words = format!("deltapush could not start:\n  {}", problems.join("\n  "));
    Ok(Err(Fault::System.because(words)))
}

/// Obstacles that show without starting: taken ports, folders that cannot be written, a certificate that cannot come, keys that
/// have no effect.
/// `held` are ports that systemd holds for deltapush.
pub(super) fn obstacles(config: &Config, held: &[u16]) -> Vec<Finding> {
    // A deltapush that runs has its ports.
    let is_served = control::is_served(&config.startup.storage.directory);
    let taken = if is_served { vec![] } else { listen::taken(config, held) };
    taken
        .into_iter()
        .chain(state::closed_folders(config))
        .chain(listen::acme(config))
        .chain(news::mismatches(config))
        .collect()
}

fn in_a_line(finding: &Finding) -> String {
    let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}"));
    format!("{}{}", finding.words, remedy.unwrap_or_default())
}

fn describe(
    out: &mut impl Write,
    config: &Config,
    certificate: &CertificateSummary,
    more: &[CertificateSummary],
) -> io::Result<()> {
    writeln!(out, "The configuration is valid. deltapush would run as follows.")?;
    for listener in &config.live.listeners {
        let insecure = if listener.insecure { ", insecure" } else { "" };
        let web = if listener.web { ", web" } else { "" };
        let announced = if listener.proxy_protocol.is_empty() { "" } else { ", PROXY protocol" };
        writeln!(
            out,
            "listen       {} (TLS: {}{insecure}{web}{announced})",
            listener.address, listener.tls
        )?;
    }
    writeln!(out, "certificate  {}, for {}", about(certificate), config.live.hostname)?;
    if !certificate.names_host {
        writeln!(
            out,
            "             WARNING: it is not valid for {}: clients will refuse it",
            config.live.hostname
        )?;
    }
    for further in more {
        writeln!(out, "             {}, for the names in it", about(further))?;
    }
    let now = jiff::Timestamp::now();
    let all = std::iter::once(certificate).chain(more);
    for trouble in all.filter_map(|certificate| certificate.trouble_with_time(now)) {
        writeln!(out, "             WARNING: {trouble}")?;
    }
    if let Some(acme) = &config.live.certificate.acme {
        let names: Vec<String> =
            acme.names_or(&config.live.hostname).iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        let way = match acme.http.as_deref() {
            Some(http) => format!("HTTP-01 at {http}"),
            None => "TLS-ALPN-01".to_owned(),
        };
        writeln!(out, "             by ACME from {}, for {names}, with {way}", acme.directory)?;
    }
    route::describe(out, &config.live)?;
    writeln!(out, "push         {}", config.startup.push.notify_url)?;
    match &config.startup.admin.address {
        Some(address) => {
            let scheme = if config.startup.admin.has_tls() { "https" } else { "http" };
            writeln!(out, "admin        {scheme}://{}/", **address)?;
        }
        None => writeln!(out, "admin        off")?,
    }
    describe_news(out, &config.startup.news)?;
    let state = StoreSettings::new(&config.startup.storage);
    match &state.postgres {
        Some(PostgresSettings { url, password, .. }) => {
            writeln!(out, "state        {url}, {password}")?;
            writeln!(out, "node         {}", config.startup.node.name())?;
        }
        None => writeln!(out, "state        {}", state.directory.display())?,
    }
    if config.live.trace.print {
        writeln!(out, "trace        printed")?;
    }
    if let Some(files) = &config.live.trace.files {
        writeln!(out, "trace        written to {}", files.directory.display())?;
    }
    match state.credentials {
        CredentialStorage::Sealed(key) => {
            writeln!(out, "passwords    sealed with the key in {key}")
        }
        CredentialStorage::Memory => writeln!(out, "passwords    in memory only"),
        CredentialStorage::None => {
            writeln!(out, "passwords    not stored: kept client sessions watch the mailboxes")
        }
    }
}

fn describe_news(out: &mut impl Write, news: &NewsSettings) -> io::Result<()> {
    if let Some(url) = news.url() {
        let access = match news.tokens.len() {
            0 => "every program of this machine".to_owned(),
            count => counted(count as u64, "token"),
        };
        writeln!(out, "news         {url} ({access})")?;
    }
    if let Some(path) = &news.socket {
        writeln!(
            out,
            "news         {} (`deltapush news`, every user of this machine)",
            path.display()
        )?;
    }
    if let Some(path) = &news.dict {
        writeln!(out, "news         {} (Dovecot's dict protocol)", path.display())?;
    }
    Ok(())
}

fn about(certificate: &CertificateSummary) -> String {
    let path = certificate.path.display();
    let until = certificate
        .not_after
        .map(|end| format!(", valid until {}", end.strftime("%Y-%m-%d")))
        .unwrap_or_default();
    match certificate.origin {
        CertificateOrigin::Files | CertificateOrigin::Issued => format!("{path}{until}"),
        CertificateOrigin::Kept => format!("{path}, self-signed{until}"),
        CertificateOrigin::Renewed => {
            format!("{path}, self-signed, will be renewed with the existing key")
        }
        CertificateOrigin::Made => format!("{path}, self-signed, will be created at the start"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn check_says_what_would_run() {
        let mut config = Config::default();
        config.startup.news.listen = Some(SocketAddr::from(([127, 0, 0, 1], 1981)).into());
        config.startup.news.socket = Some("/run/deltapush/news.sock".into());
        config.startup.news.dict = Some("/run/deltapush/dict.sock".into());
        let path = "certs/localhost.cert.pem".into();
        let certificate = CertificateSummary {
            origin: CertificateOrigin::Made,
            path,
            not_before: None,
            not_after: None,
            names_host: false,
        };
        let mut out = Vec::new();
        describe(&mut out, &config, &certificate, &[]).unwrap();
        let out = String::from_utf8(out).unwrap();
        for line in [
            "listen       127.0.0.1:1993 (TLS: implicit)\n",
            "certificate  certs/localhost.cert.pem, self-signed, will be created at the start, for localhost\n",
            "WARNING: it is not valid for localhost",
            "route        * to imaps://imap.{domain}:993 (CA: webpki)\n",
            "push         https://notifications.delta.chat/notify\n",
            "news         http://127.0.0.1:1981/v1/news (every program of this machine)\n",
            "news         /run/deltapush/news.sock (`deltapush news`, every user of this machine)\n",
            "news         /run/deltapush/dict.sock (Dovecot's dict protocol)\n",
            "state        state\n",
            "passwords    sealed with the key in state/seal.key\n",
        ] {
            assert!(out.contains(line), "{out}");
        }
    }

    #[test]
    fn check_names_the_database_and_its_password() {
        let yaml = "node: {name: push-1}
storage:
  postgres:
    url: postgresql://push@db1.example.org,127.0.0.1/state
    password_file: /etc/deltapush/password
";
        let config = Config::parse(yaml, std::path::Path::new(""), "here").unwrap();
        let certificate = CertificateSummary {
            origin: CertificateOrigin::Made,
            path: "cert.pem".into(),
            not_before: None,
            not_after: None,
            names_host: true,
        };
        let mut out = Vec::new();
        describe(&mut out, &config, &certificate, &[]).unwrap();
        let out = String::from_utf8(out).unwrap();
        let expected = "state        database state at db1.example.org:5432 (TLS), 127.0.0.1:5432 (no TLS) as push, \
                        password in /etc/deltapush/password\nnode         push-1\n";
        assert!(out.contains(expected), "{out}");
    }
}
