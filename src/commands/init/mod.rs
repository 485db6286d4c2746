//! `deltapush init`: creates a configuration from a mail address. It asks only what it cannot find out.

mod conclusion;
mod dovecot;
mod place;
mod questions;
mod server;
mod service;
mod start;
mod write;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::findings::Finding;
use super::findings::name::public_addresses;
use super::findings::systemd::{self, SERVICE, SERVICE_CONFIG, UnitFacts};
use super::{CommandError, Fault, doctor, password};
use crate::admin::layout::Layout;
use crate::client_setup::{Outgoing, outgoing};
use crate::config::{Config, Hostname, Submission, UpstreamAddress};
use crate::dns::DnsResolver;
use crate::file_access::explain;
use crate::tls::certs::{CertificateSet, CertificateSettings};
use conclusion::{ServiceState, conclude};
use place::{Facts, InitPlan, Leads, Port};
use questions::{confirm, question};
use server::{AddressParts, FoundServer};

/// Arguments on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct InitOptions {
    /// Your mail address; asked for if it is not given
    pub address: Option<String>,
    /// IMAP server name that users enter in Delta Chat; default: this machine's name if it resolves to this
    /// machine, else the answer to a question, without a terminal localhost
    #[arg(long, value_name = "NAME", value_parser = hostname)]
    pub hostname: Option<Hostname>,
    /// Mail server, if it is not found: imaps://host, or imap://host for STARTTLS
    #[arg(long, value_name = "URL")]
    pub upstream: Option<UpstreamAddress>,
    /// SMTP server, if it is not found: smtps://host, or smtp://host for STARTTLS
    #[arg(long, value_name = "URL")]
    pub smtp: Option<Submission>,
    /// Certificate authorities for the mail server: webpki, system, or a PEM file
    #[arg(long, value_name = "FILE")]
    pub ca: Option<String>,
    /// Allow mail servers with private addresses
    #[arg(long)]
    pub private: bool,
    /// Use this DNS server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub dns: Option<SocketAddr>,
    /// Your own certificate chain, in PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    pub chain: Option<PathBuf>,
    /// Private key of that certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "chain")]
    pub key: Option<PathBuf>,
    /// Agree to the terms of service of Let's Encrypt (letsencrypt.org/repository) to get a certificate automatically
    #[arg(long)]
    pub agree_to_terms: bool,
    /// Accept only logins of this address (allow.logins)
    #[arg(long)]
    pub only_me: bool,
    /// Have the Dovecot of this machine tell deltapush of new messages (`news: both`)
    #[arg(long)]
    pub news: bool,
    /// Replace an existing configuration
    #[arg(long)]
    pub overwrite: bool,
    /// Start the service at the end, and at each boot, without a question
    #[arg(long, conflicts_with = "no_start")]
    pub start: bool,
    /// Do not start the service, and do not ask
    #[arg(long)]
    pub no_start: bool,
    /// Read the account's password from standard input, for one test login and the login code
    #[arg(long)]
    pub password_stdin: bool,
}

fn hostname(text: &str) -> Result<Hostname, String> {
    Hostname::new(text).ok_or_else(|| {
        format!("{text:?} is neither a host name nor an IP address: write it without port")
    })
}

#[cfg(test)]
impl InitOptions {
    fn of(address: &str) -> Self {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            options: InitOptions,
        }
        Line::parse_from(["init", address]).options
    }
}

/// The configuration that `init` writes where none is named: the service's, if root has it installed; or one in the current folder.
#[must_use]
pub fn usual_file() -> PathBuf {
    let is_of_service = systemd::has_unit(SERVICE) && rustix::process::geteuid().is_root();
    (if is_of_service { SERVICE_CONFIG } else { Config::DEFAULT_FILE }).into()
}

/// Collects the facts, decides, and writes `file`; starts the service, and looks at it as clients do. Prints each finding on
/// standard output.
///
/// # Errors
/// [`CommandError`]. Nothing was written, unless it says that deltapush does not start, or does not work as it should.
pub async fn run(options: &InitOptions, file: &Path) -> Result<(), CommandError> {
    if options.start && !service::can_start(file) {
        return Err(Fault::Usage.because(
            "--start is for root on a machine with systemd, the service unit, and its configuration: leave it out",
        ));
    }
    let address = AddressParts::parse(&asked_address(options)?)?;
    let replaces = may_write(options, file)?;
    let say = &mut |line: &str| {
        // There is nobody to tell if the terminal is gone.
        let _ = writeln!(io::stdout(), "{}", super::printable(line));
    };
    let mut server = server::find(options, &address, say).await?;
    let password = ask_password(options, &address)?;
    server::look(options, &address, &mut server, password.as_deref(), say).await?;
    let outgoing = find_outgoing(options, &address, &server, say).await?;
    let mut own_ports = if replaces { place::ports_of_running(file) } else { vec![] };
    own_ports.extend(UnitFacts::of(file).await.into_iter().flat_map(|unit| unit.sockets));
    let place = choose(options, &own_ports, say).await?;
    let news = dovecot::offer(options, &server, &own_ports).await?;
    let plan = write::Plan {
        address: &address.whole,
        place: &place,
        route: server::route(options, &address, Some(&server)),
        login: &server.login,
        outgoing: outgoing.as_ref(),
        dns: options.dns,
        only_me: options.only_me || is_only_me(&address, &server),
        news: news.as_ref().map(|news| news.listen),
        is_own_server: server::is_own(&server, &DnsResolver::new(options.dns)).await,
        data: write::data_folder(file),
    };
    let text = write::text(&plan);
    let config = checked(&text, file)?;
    write::write(file, &text, replaces).map_err(|error| {
        Fault::System.because(format!("cannot write {}: {}", file.display(), explain(file, &error)))
    })?;
    say(&format!("\nCreated {}.", file.display()));
    let warning =
        start::certificate_warning(file, config.live.certificate.key.as_ref().map(|key| &***key));
    warning.into_iter().for_each(&mut *say);
    if let Some(news) = &news {
        news.install(say).await;
    }
    let state = if service::can_start(file) && service::is_wanted(options.start, options.no_start) {
        ServiceState::Running(finish(&config, say).await?)
    } else {
        say(&start::advice(file, &start::HostSystem::look(file), replaces));
        ServiceState::NotStarted
    };
    conclude(&config, &address, file, password.as_deref(), &state, say)
}

/// Starts the service, waits until clients can be served, and prints what they find.
async fn finish(config: &Config, say: &mut dyn FnMut(&str)) -> Result<Vec<Finding>, CommandError> {
    service::start(config, say).await?;
    service::await_certificate(&config.live, say).await;
    let findings = doctor::reached(&config.live).await;
    let layout = Layout::of_terminal();
    findings.iter().for_each(|finding| say(finding.text(layout).trim_end()));
    Ok(findings)
}

fn asked_address(options: &InitOptions) -> Result<String, CommandError> {
    let address = options.address.clone().or_else(|| question("Your mail address:"));
    address.ok_or_else(|| {
        Fault::Usage.because("no mail address was given: deltapush init you@example.org")
    })
}

/// A route of one address needs no further restriction.
fn is_only_me(address: &AddressParts, server: &FoundServer) -> bool {
    !server::is_for_one(address, server)
        && confirm(&format!("Accept only logins of {}?", address.whole), false)
}

/// Decides whether an existing file is replaced; refuses without confirmation.
fn may_write(options: &InitOptions, file: &Path) -> Result<bool, CommandError> {
    if !file.exists() {
        return Ok(false);
    }
    let question = format!("{} exists already. Replace it?", file.display());
    if options.overwrite || confirm(&question, false) {
        return Ok(true);
    }
    Err(Fault::Usage.because(format!(
        "{} exists already and was not changed: choose another file with --config, or replace it with --overwrite",
        file.display()
    )))
}

fn ask_password(
    options: &InitOptions,
    address: &AddressParts,
) -> Result<Option<String>, CommandError> {
    if !options.password_stdin && !io::stdin().is_terminal() {
        return Ok(None);
    }
    let prompt = format!(
        "Password of {} (for one test login and the login code; it is not stored; press Enter to skip both): ",
        address.whole
    );
    Ok(Some(password::read(&prompt)?).filter(|password| !password.is_empty()))
}

async fn find_outgoing(
    options: &InitOptions,
    address: &AddressParts,
    server: &FoundServer,
    say: &mut dyn FnMut(&str),
) -> Result<Option<Outgoing>, CommandError> {
    if let Some(smtp) = &options.smtp {
        return Ok(Some(Outgoing { server: smtp.clone(), login: server.login.clone() }));
    }
    say("Looking for the SMTP server …");
    let config = server::provisional(options, address, Some(server))?;
    let upstreams = server::upstreams(&config)?;
    let Some(route) = config.live.routes.first() else { return Ok(None) };
    match outgoing::find(&upstreams, route, &address.whole.to_lowercase(), "").await {
        Ok(found) => {
            say(&format!("SMTP server {}: {}.", found.outgoing.server, found.how));
            Ok(Some(found.outgoing))
        }
        Err(error) => {
            say(&format!(
                "{error}. Delta Chat will try the usual names; set `smtp` in the route to name one."
            ));
            Ok(None)
        }
    }
}

/// The name by which phones reach this machine: as given, as found, or as the operator answers.
async fn find_hostname(
    options: &InitOptions,
    dns: &DnsResolver,
    say: &mut dyn FnMut(&str),
) -> Result<Hostname, CommandError> {
    if let Some(hostname) = &options.hostname {
        return Ok(hostname.clone());
    }
    if let Some(name) = place::own_name(dns).await {
        say(&format!("This machine's name is {name}; it resolves to this machine."));
        return Ok(name);
    }
    let address = public_addresses().into_iter().next().map(Hostname::from);
    let usual = place::name_by_address(dns).await.or(address).unwrap_or_else(Hostname::localhost);
    say(
        "Phones need a name that leads to this machine, best one in a domain of yours, or its public address.",
    );
    match question(&format!("Name or address of this machine [{usual}]:")) {
        Some(answer) if !answer.is_empty() => {
            hostname(&answer).map_err(|error| Fault::Usage.because(error))
        }
        Some(_) => Ok(usual),
        // Nobody has agreed to a name that others gave.
        None => Ok(Hostname::localhost()),
    }
}

/// Chooses the listeners, the host name and the certificate. `own_ports` are those of the deltapush that the new configuration is for.
async fn choose(
    options: &InitOptions,
    own_ports: &[u16],
    say: &mut dyn FnMut(&str),
) -> Result<InitPlan, CommandError> {
    let dns = DnsResolver::new(options.dns);
    let hostname = find_hostname(options, &dns, say).await?;
    let is_local = crate::config::is_loopback(hostname.as_str());
    let leads = if is_local { Leads::Here } else { place::leads(&dns, &hostname).await };
    let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let files = options
        .chain
        .as_ref()
        .zip(options.key.as_ref())
        .map(|(chain, key)| (whole(chain), whole(key)));
    let mut facts = Facts {
        hostname,
        leads,
        files,
        terms_agreed: options.agree_to_terms,
        has_ipv6: place::has_ipv6(),
    };
    if facts.could_be_certified() && !facts.terms_agreed {
        facts.terms_agreed = confirm(
            "Let's Encrypt issues a certificate automatically if you agree to its terms of service \
             (https://letsencrypt.org/repository/). Agree?",
            false,
        );
    }
    let port = |address, port: u16| match own_ports.contains(&port) {
        true => Port::Free,
        false => place::port(address, port),
    };
    let place = place::decide(&facts, port).ok_or_else(|| {
        Fault::System
            .because("no port for clients is free: stop the programs that listen on 993 and 1993, then try again")
    })?;
    place.notes.iter().for_each(|note| say(note));
    Ok(place)
}

/// The result of `deltapush check` for it.
fn checked(text: &str, file: &Path) -> Result<Config, CommandError> {
    let wrong = |error: String| Fault::Configuration.because(error);
    let folder = file.parent().unwrap_or(Path::new(""));
    let config = Config::parse(text, folder, &file.display().to_string())
        .map_err(|error| wrong(error.to_string()))?;
    CertificateSet::check(&CertificateSettings::from(&config.live))
        .map_err(|error| wrong(error.to_string()))?;
    Ok(config)
}
