//! `deltapush qr`: the login code that sets Delta Chat up for an account in one scan.

use std::io::{self, IsTerminal, Write};

use super::{CommandError, Fault, password};
use crate::client_setup::dclogin::LoginCode;
use crate::client_setup::outgoing::{self, SubmissionServer};
use crate::client_setup::qr::{self, CodeSurface};
use crate::client_setup::{self, Incoming, Outgoing};
use crate::config::{ListenerTls, LiveConfig, LoginTemplate, Route, Submission};
use crate::upstream::Upstreams;

/// Arguments on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct QrOptions {
    /// Mail address; the password is read from the terminal or from standard input
    pub address: String,
    /// SMTP server, instead of the configured or discovered one: smtps://host or smtp://host
    #[arg(long, value_name = "URL")]
    pub smtp: Option<Submission>,
    /// Login name at the SMTP server: `local` for the part before the @, or a template as in the configuration
    #[arg(long, value_name = "LOGIN")]
    pub smtp_login: Option<LoginTemplate>,
    /// Port at which clients reach this deltapush, if it differs from the listener's port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Print the code as text instead of a picture; the text contains the password
    #[arg(long)]
    pub link: bool,
}

/// The settings in a login code, without the password.
#[derive(Debug)]
pub(super) struct CodeSettings {
    pub(super) address: String,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Option<Outgoing>,
    pub(super) any_certificate: bool,
}

impl CodeSettings {
    fn code(&self) -> LoginCode<'_> {
        LoginCode {
            address: &self.address,
            incoming: &self.incoming,
            outgoing: self.outgoing.as_ref(),
            any_certificate: self.any_certificate,
        }
    }
}

/// Finds the settings, asks for the password, and prints the code on standard output, all else on standard error.
///
/// # Errors
/// [`CommandError`] if there is no code for this address.
pub async fn run(config: &LiveConfig, options: &QrOptions) -> Result<(), CommandError> {
    let mut explanations = io::stderr();
    let settings = find(config, options, &mut explanations).await?;
    // Blocks, which nobody else has to wait for.
    let password =
        password::read(&format!("Password of {} (not shown, not stored): ", settings.address))?;
    if password.is_empty() {
        return Err(
            Fault::Usage.because("no password was given: type it, or pipe it to standard input")
        );
    }
    let printed =
        print(&settings, &password, options.link, &mut io::stdout().lock(), &mut explanations);
    printed.map_err(|error| Fault::System.because(format!("cannot print: {error}")))?
}

async fn find(
    config: &LiveConfig,
    options: &QrOptions,
    explanations: &mut impl Write,
) -> Result<CodeSettings, CommandError> {
    let address = options.address.trim();
    if !client_setup::is_mail_address(address) {
        return Err(Fault::Usage
            .because(format!("{address:?} is not a mail address: write it as `you@example.org`")));
    }
    let Some(route) = client_setup::route_of(config, address) else {
        return Err(Fault::Configuration.because(format!(
            "{address} cannot log in here: no route matches it, or `allow` does not list it; see docs/routes.md"
        )));
    };
    let mut reachable = client_setup::incoming(config, Some(route)).into_iter();
    let Some(mut incoming) = reachable.next() else {
        return Err(Fault::Configuration.because(
            "no listener with TLS serves this address: Delta Chat's login code needs `tls: implicit` or `starttls`",
        ));
    };
    incoming.port = options.port.unwrap_or(incoming.port);
    let outgoing = match &options.smtp {
        Some(server) => Some(Outgoing { server: server.clone(), login: LoginTemplate::default() }),
        None => look_up(config, route, address, explanations).await?,
    };
    let outgoing = outgoing.map(|outgoing| {
        match options.smtp_login.clone().or_else(|| own_login(options, route)) {
            Some(login) => Outgoing { login, ..outgoing },
            None => outgoing,
        }
    });
    let any_certificate = client_setup::needs_any_certificate(config, &incoming.host);
    Ok(CodeSettings { address: address.to_owned(), incoming, outgoing, any_certificate })
}

/// The login name at an SMTP server of the command line, from the route.
fn own_login(options: &QrOptions, route: &Route) -> Option<LoginTemplate> {
    options.smtp.as_ref()?;
    Some(route.smtp_login.clone().unwrap_or_else(|| route.login.clone()))
}

async fn look_up(
    config: &LiveConfig,
    route: &Route,
    address: &str,
    explanations: &mut impl Write,
) -> Result<Option<Outgoing>, CommandError> {
    let upstreams =
        Upstreams::new(config).map_err(|error| Fault::Configuration.because(error.to_string()))?;
    print_line(explanations, "Looking for the SMTP server …");
    match outgoing::find(&upstreams, route, &address.to_lowercase(), config.hostname.as_str()).await
    {
        Ok(SubmissionServer { outgoing, how }) => {
            print_line(explanations, &format!("SMTP server {}: {how}.", outgoing.server));
            Ok(Some(outgoing))
        }
        Err(error) => {
            print_line(
                explanations,
                &format!(
                    "{error}.\nThe code contains none, so Delta Chat will try the usual names; add one with --smtp \
                     smtps://smtp.example.org."
                ),
            );
            Ok(None)
        }
    }
}

/// Prints the code on `out`, all else on `explanations`.
pub(super) fn print(
    settings: &CodeSettings,
    password: &str,
    as_link: bool,
    out: &mut (impl Write + IsTerminal),
    explanations: &mut impl Write,
) -> io::Result<Result<(), CommandError>> {
    let text = settings.code().link(password);
    let CodeSettings { incoming, any_certificate, .. } = settings;
    let security = if incoming.tls == ListenerTls::Implicit { "SSL/TLS" } else { "STARTTLS" };
    writeln!(explanations, "IMAP server {}, port {}, {security}.", incoming.host, incoming.port)?;
    if *any_certificate {
        writeln!(
            explanations,
            "The certificate is self-signed: the code makes Delta Chat accept any certificate, also of the SMTP server. \
             See docs/certificates.md for better ways."
        )?;
    }
    if as_link {
        writeln!(
            explanations,
            "WARNING: this text contains the password. Anyone who sees it, in a chat, a clipboard or this terminal's history, can read \
             the mail."
        )?;
        writeln!(out, "{text}")?;
    } else {
        let shown = if out.is_terminal() { CodeSurface::Coloured } else { CodeSurface::Plain };
        let picture = match qr::picture(&text, shown) {
            Ok(picture) => picture,
            Err(error) => return Ok(Err(Fault::Usage.because(error.to_string()))),
        };
        write!(out, "{picture}")?;
        out.flush()?;
        writeln!(
            explanations,
            "Scan it with Delta Chat: add a profile, use other server, scan.\n\
             The code contains the password: anyone who sees it, or a photo of it, can read the mail. Clear the terminal afterwards."
        )?;
    }
    out.flush()?;
    Ok(Ok(()))
}

/// Prints a line for the user. A closed terminal is ignored.
fn print_line(output: &mut impl Write, line: &str) {
    let _ = writeln!(output, "{line}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn options(address: &str) -> QrOptions {
        QrOptions { address: address.into(), smtp: None, smtp_login: None, port: None, link: false }
    }

    fn config() -> LiveConfig {
        let yaml = concat!(
            "hostname: push.example.org\nlisteners:\n  - {address: \"0.0.0.0:1993\", tls: implicit}\n",
            "routes:\n  - {domain: example.org, upstream: imaps://imap.example.org, smtp: smtps://smtp.example.org, login: local}\n",
            "  - {domain: web.de, upstream: imaps://imap.web.de}\n",
        );
        Config::parse(yaml, Path::new(""), "test").unwrap().live
    }

    async fn link(options: QrOptions) -> Result<String, String> {
        let settings =
            find(&config(), &options, &mut Vec::new()).await.map_err(|error| error.to_string())?;
        Ok(settings.code().link("x").to_string())
    }

    #[tokio::test]
    async fn code_follows_route_and_options() {
        let known = "dclogin://Alice@example.org/?p=x&v=1&ih=push.example.org&ip=1993&is=ssl";
        assert_eq!(
            link(options("Alice@example.org")).await.unwrap(),
            format!("{known}&sh=smtp.example.org&sp=465&ss=ssl&su=Alice&ic=2")
        );
        let other = QrOptions {
            smtp: Some("smtp://other.example".parse().unwrap()),
            smtp_login: Some("{login}".parse().unwrap()),
            port: Some(993),
            ..options("Alice@example.org")
        };
        assert_eq!(
            link(other).await.unwrap(),
            format!("{}&sh=other.example&sp=587&ss=starttls&ic=2", known.replace("1993", "993"))
        );
        assert!(
            link(options("bob@web.de"))
                .await
                .unwrap()
                .contains("&sh=smtp.web.de&sp=587&ss=starttls&su=bob&")
        );
        for (address, complaint) in [
            ("alice", "is not a mail address"),
            ("a b@example.org", "is not a mail address"),
            ("a\n@example.org", "is not a mail address"),
            ("eve@evil.example", "cannot log in here"),
        ] {
            let error = link(options(address)).await.unwrap_err();
            assert!(error.contains(complaint), "{address}: {error}");
        }
    }
}
