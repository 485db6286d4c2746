//! `deltapush init`: creates a configuration from a mail address. It asks only what it cannot find out.

mod place;
mod server;
mod start;
mod write;

use std::io::{self, BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::qr::{self, CodeSettings};
use super::{CommandError, Fault, password};
use crate::client_setup::{self, Outgoing, outgoing};
use crate::config::{Config, Hostname, ListenerTls, Submission, UpstreamAddress};
use crate::file_access::explain;
use crate::tls::certs::{CertificateSet, CertificateSettings};
use crate::upstream::dns::DnsResolver;
use place::{Facts, InitPlan, Leads, Port};
use server::{AddressParts, FoundServer};

/// Arguments on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct InitOptions {
    /// Your mail address
    pub address: String,
    /// IMAP server name that users enter in Delta Chat; default: this machine's name if it resolves to this
    /// machine, else localhost
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
    /// Replace an existing configuration
    #[arg(long)]
    pub overwrite: bool,
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

/// Collects the facts, decides, and writes `file`. Prints each finding on standard output.
///
/// # Errors
/// [`CommandError`]; then nothing was written.
pub async fn run(options: &InitOptions, file: &Path) -> Result<(), CommandError> {
    let address = AddressParts::parse(&options.address)?;
    let replaces = may_write(options, file)?;
    let say = &mut |line: &str| {
        // There is nobody to tell if the terminal is gone.
        let _ = writeln!(io::stdout(), "{}", super::printable(line));
    };
    let mut server = server::find(options, &address, say).await?;
    let password = ask_password(options, &address)?;
    server::look(options, &address, &mut server, password.as_deref(), say).await?;
    let outgoing = find_outgoing(options, &address, &server, say).await?;
    let own_ports = if replaces { place::ports_of_running(file) } else { vec![] };
    let place = choose(options, &own_ports, say).await?;
    let plan = write::Plan {
        address: &address.whole,
        place: &place,
        route: server::route(options, &address, Some(&server)),
        login: &server.login,
        outgoing: outgoing.as_ref(),
        dns: options.dns,
        only_me: options.only_me || confirm(&format!("Accept only logins of {}?", address.whole)),
        is_own_server: server::is_own(&server, &DnsResolver::new(options.dns)).await,
        data: write::data_folder(file),
    };
    let text = write::text(&plan);
    let config = checked(&text, file)?;
    write::write(file, &text, replaces).map_err(|error| {
        Fault::System.because(format!("cannot write {}: {}", file.display(), explain(file, &error)))
    })?;
    let file = NewFile { file, replaces };
    conclude(&config, &address, &file, password.as_deref(), say)
}

/// The configuration that was written.
struct NewFile<'a> {
    file: &'a Path,
    /// True if an older one was there.
    replaces: bool,
}

/// Decides whether an existing file is replaced; refuses without confirmation.
fn may_write(options: &InitOptions, file: &Path) -> Result<bool, CommandError> {
    if !file.exists() {
        return Ok(false);
    }
    let question = format!("{} exists already. Replace it?", file.display());
    if options.overwrite || confirm(&question) {
        return Ok(true);
    }
    Err(Fault::Usage.because(format!(
        "{} exists already and was not changed: choose another file with --config, or replace it with --overwrite",
        file.display()
    )))
}

/// Asks on the terminal; without one the answer is no.
fn confirm(question: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return false;
    }
    let mut out = io::stdout();
    // Without a question there is no yes.
    if write!(out, "{question} [y/N] ").and_then(|()| out.flush()).is_err() {
        return false;
    }
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
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

/// Chooses the listeners, the host name and the certificate. `own_ports` are those of the deltapush that the new configuration is for.
async fn choose(
    options: &InitOptions,
    own_ports: &[u16],
    say: &mut dyn FnMut(&str),
) -> Result<InitPlan, CommandError> {
    let dns = DnsResolver::new(options.dns);
    let hostname = match &options.hostname {
        Some(hostname) => hostname.clone(),
        None => match place::own_name(&dns).await {
            Some(name) => {
                say(&format!("This machine's name is {name}; it resolves to this machine."));
                name
            }
            None => Hostname::localhost(),
        },
    };
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

/// Prints the settings for Delta Chat, and the code if a password was given.
fn conclude(
    config: &Config,
    address: &AddressParts,
    &NewFile { file, replaces }: &NewFile<'_>,
    password: Option<&str>,
    say: &mut dyn FnMut(&str),
) -> Result<(), CommandError> {
    let route = client_setup::route_of(&config.live, &address.whole);
    let start = start::advice(file, &start::HostSystem::look(file), replaces);
    say(&format!("\nCreated {}. {start}", file.display()));
    let warning =
        start::certificate_warning(file, config.live.certificate.key.as_ref().map(|key| &***key));
    warning.into_iter().for_each(&mut *say);
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
    let (Some(password), Some(incoming)) = (password, reachable.into_iter().next()) else {
        say(&format!(
            "or, once deltapush runs, scan the code that this command prints: deltapush qr {} --config {}",
            address.whole,
            file.display()
        ));
        return Ok(());
    };
    let any_certificate = client_setup::needs_any_certificate(&config.live, &incoming.host);
    if any_certificate {
        say("  certificate checks: accept invalid certificates");
    }
    say("or, once deltapush runs, scan this code:\n");
    let settings =
        CodeSettings { address: address.whole.clone(), incoming, outgoing, any_certificate };
    let printed =
        qr::print(&settings, password, false, &mut io::stdout().lock(), &mut io::stderr());
    printed.map_err(|error| Fault::System.because(format!("cannot print: {error}")))?
}
