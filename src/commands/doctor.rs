//! `deltapush doctor`: checks everything on which a push depends, from the name in DNS to the devices' tokens.

use std::path::Path;

use clap::Args;
use jiff::Timestamp;

use super::findings::name::NameFacts;
use super::findings::outside::Visit;
use super::findings::service::ServiceFacts;
use super::findings::systemd::{self, UnitFacts};
use super::findings::{
    Finding, accounts, certificate, database, listen, name, news, outcome, outside, push, route,
    service, state,
};
use super::push_test::{self, PushTestArguments};
use super::{check, status};
use crate::admin::control;
use crate::admin::layout::Layout;
use crate::admin::report::{StatusReport, WatchKind};
use crate::config::{Config, LiveConfig};
use crate::dns::DnsResolver;
use crate::upstream::Upstreams;

/// Arguments of `deltapush doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorOptions {
    /// At the end, wake the devices of this account as `deltapush push-test` does
    #[arg(long, value_name = "NAME")]
    push_test: Option<String>,
}

/// Checks what `config`, read from `file`, needs to work, and prints each finding.
///
/// # Errors
/// [`CommandError`](super::CommandError) if something does not work; [`Unfulfilled`](super::Unfulfilled) if a device did not
/// connect.
pub async fn run(config: &Config, file: &Path, options: &DoctorOptions) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    let mut show = |found: Vec<Finding>| -> anyhow::Result<()> {
        let layout = Layout::of_terminal();
        super::print(&found.iter().map(|finding| finding.text(layout)).collect::<String>())?;
        findings.extend(found);
        Ok(())
    };
    let report = status::fetch(config);
    show(vec![versions().await])?;
    let unit = UnitFacts::of(file).await;
    let held = unit.as_ref().map(|unit| unit.sockets.clone()).unwrap_or_default();
    show(about_service(config, unit, &report))?;
    show(check::obstacles(config, &held))?;
    show(database::look(config).await.iter().map(database::judge).collect())?;
    show(vec![state::judge(&state::look(config))])?;
    show(reached(&config.live).await)?;
    let report = report.ok();
    show(routes(&config.live, report.as_ref()).await)?;
    let down_since = report.as_ref().and_then(|report| report.notifications.down_since);
    show(push::judge(&push::look(&config.startup.push, down_since).await))?;
    if let Some(report) = &report {
        show(accounts::judge(report))?;
        let keepalive = config.live.relay.keepalive;
        show(vec![accounts::judge_idle(report, config.startup.idle_renewal, keepalive)])?;
        if let Some(facts) = news::look(config).await {
            show(news::judge(&facts, report))?;
        }
    }
    outcome(&findings)?;
    match &options.push_test {
        Some(name) => push_test::run(config, &PushTestArguments::of(name)),
        None => Ok(()),
    }
}

async fn versions() -> Finding {
    let mut words = format!("deltapush {}", env!("CARGO_PKG_VERSION"));
    if let Some(systemd) = systemd::version().await.filter(|_| systemd::is_booted()) {
        words.push_str(&format!(", systemd {systemd}"));
    }
    if let Ok(kernel) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        words.push_str(&format!(", Linux {}", kernel.trim()));
    }
    Finding::ok("versions", words)
}

fn about_service(
    config: &Config,
    unit: Option<UnitFacts>,
    report: &anyhow::Result<StatusReport>,
) -> Vec<Finding> {
    let running = match report {
        Ok(report) => Ok((report.version.clone(), report.started)),
        Err(error) => Err(error.to_string()),
    };
    service::judge(&ServiceFacts {
        unit,
        running,
        is_served: control::is_served(&config.startup.storage.directory),
        installed: env!("CARGO_PKG_VERSION"),
        ports: config.live.public_addresses().map(|address| address.port()).collect(),
    })
}

/// The way of clients to deltapush: the name, the ports, the certificate.
pub(super) async fn reached(config: &LiveConfig) -> Vec<Finding> {
    let dns = DnsResolver::new(config.dns.server);
    let facts = NameFacts::look(&config.hostname, &dns).await;
    let visits = outside::visit(config, &facts).await;
    let mut findings = vec![name::judge(&facts)];
    findings.extend(listen::judge(&visits, &facts));
    findings.extend(about_certificate(config, &visits));
    findings
}

fn about_certificate(config: &LiveConfig, visits: &[Visit]) -> Option<Finding> {
    let facts = certificate::look(config, visits)?;
    Some(certificate::judge(&facts, Timestamp::now()))
}

async fn routes(config: &LiveConfig, report: Option<&StatusReport>) -> Vec<Finding> {
    // Its files were read before.
    let Ok(upstreams) = Upstreams::new(config) else { return vec![] };
    let accounts = report.map(|report| report.accounts.as_slice()).unwrap_or_default();
    let logins: Vec<_> = accounts.iter().map(|account| account.name.clone()).collect();
    let is_watched = |kind| matches!(kind, WatchKind::Watching | WatchKind::WithClient);
    let watched = accounts.iter().filter(|account| is_watched(account.watch.state));
    let watched: Vec<_> = watched.map(|account| account.server.clone()).collect();
    let facts = route::look(config, &upstreams, &logins, &watched).await;
    facts.iter().map(route::judge).collect()
}
