//! The Dovecot of this machine tells deltapush of each message: the question, and Dovecot's part of it.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::findings::dovecot::DovecotFacts;
use super::super::findings::name::is_of_this_machine;
use super::super::{CommandError, Fault};
use super::InitOptions;
use super::place::{self, Port};
use super::questions::confirm;
use super::server::FoundServer;
use crate::dns::{DnsResolver, Reach};
use crate::file_access::explain;

/// Dovecot's configuration, of each syntax.
const BEFORE_24: &str = include_str!("../../../contrib/dovecot/99-deltapush.conf");
const FROM_24: &str = include_str!("../../../contrib/dovecot/99-deltapush-2.4.conf");

/// The file for it.
const FILE: &str = "99-deltapush.conf";

/// The script that it names.
const SCRIPT: &str = "/usr/share/deltapush/dovecot/deltapush.lua";

/// Candidates for the port of the hook: the first is the one that the script expects.
const PORTS: [u16; 2] = [1981, 2981];

/// The decision that Dovecot tells.
pub(super) struct NewsPlan {
    dovecot: DovecotFacts,
    /// The address of the hook.
    pub(super) listen: SocketAddr,
}

/// Asks, if the mail server is the Dovecot of this machine. `own_ports` are those of the deltapush that the new configuration is for.
///
/// # Errors
/// If the command line wants it and it is impossible.
pub(super) async fn offer(
    options: &InitOptions,
    server: &FoundServer,
    own_ports: &[u16],
) -> Result<Option<NewsPlan>, CommandError> {
    let is_here = is_here(server, &DnsResolver::new(options.dns)).await;
    let dovecot = if is_here { DovecotFacts::look().await } else { None };
    let Some(dovecot) = dovecot else {
        return if options.news {
            Err(Fault::Usage.because(
                "--news is for the Dovecot of this machine, and the mail server is another, or `doveconf -n` fails: leave it out",
            ))
        } else {
            Ok(None)
        };
    };
    let question = "The Dovecot of this machine can tell deltapush of each message at its delivery, half a second sooner than IDLE. \
                    Set it up?";
    if !options.news && !confirm(question, true) {
        return Ok(None);
    }
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    let is_free = |port: &u16| own_ports.contains(port) || place::port(local, *port) == Port::Free;
    let port = PORTS.into_iter().find(is_free).ok_or_else(|| {
        Fault::System.because(format!("no port for Dovecot is free: other programs have {PORTS:?}"))
    })?;
    Ok(Some(NewsPlan { dovecot, listen: SocketAddr::new(local, port) }))
}

async fn is_here(server: &FoundServer, dns: &DnsResolver) -> bool {
    let found = dns.addresses(&server.endpoint.host, Reach::Anywhere).await;
    found.is_ok_and(|addresses| addresses.iter().any(|address| is_of_this_machine(*address)))
}

/// The next step for Dovecot.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It tells already.
    Nothing,
    /// The operator has to do this first, in words.
    First(String),
    /// Its configuration lacks this file.
    Write,
}

impl NewsPlan {
    /// Writes Dovecot's part if the operator agrees and this process may, or else prints it.
    pub(super) async fn install(&self, say: &mut dyn FnMut(&str)) {
        match self.step(Path::new(SCRIPT).exists()) {
            Step::Nothing => say("Dovecot's configuration has deltapush's part already."),
            Step::First(words) => {
                say(&format!("{words} Dovecot's part of the set-up, for {}:\n", self.target()));
                say(&self.snippet());
            }
            Step::Write => self.write(say).await,
        }
    }

    fn step(&self, has_script: bool) -> Step {
        if !self.dovecot.news_settings().is_empty() {
            Step::Nothing
        } else if !self.dovecot.has_lua {
            Step::First(
                "Dovecot lacks its plugin push_notification_lua: install it (Debian 12 and 13: it is in dovecot-core)."
                    .to_owned(),
            )
        } else if !has_script {
            Step::First(format!(
                "{SCRIPT} is missing: copy it from contrib/dovecot of deltapush's archive."
            ))
        } else {
            Step::Write
        }
    }

    fn target(&self) -> String {
        let folder = self.dovecot.conf_d().unwrap_or_else(|| "/etc/dovecot/conf.d".into());
        folder.join(FILE).display().to_string()
    }

    /// Dovecot's part, in its syntax.
    fn snippet(&self) -> String {
        let text = if self.dovecot.is_before_24() { BEFORE_24 } else { FROM_24 };
        let text = match self.dovecot.settings.contains("push_notification_driver =") {
            // The first driver is another program's.
            true => text.replace("push_notification_driver =", "push_notification_driver2 ="),
            false => text.to_owned(),
        };
        if self.listen.port() == PORTS[0] {
            return text;
        }
        let [usual, own] = [PORTS[0], self.listen.port()]
            .map(|port| format!("deltapush_url = http://127.0.0.1:{port}/v1/news"));
        text.replace(&format!("#{usual}"), &own)
    }

    async fn write(&self, say: &mut dyn FnMut(&str)) {
        let (target, snippet) = (self.target(), self.snippet());
        let path = Path::new(&target);
        if self.dovecot.conf_d().is_none() || !confirm(&format!("Write {target}?"), true) {
            say(&format!("Dovecot's part of the set-up, for {target}:\n\n{snippet}"));
            say("Then check it with `doveconf -n`, and: systemctl reload dovecot");
            return;
        }
        if let Err(error) = create(path, &snippet) {
            say(&format!("{target} cannot be written: {}. Its text:\n", explain(path, &error)));
            say(&snippet);
            return;
        }
        if DovecotFacts::look().await.is_none() {
            // Dovecot would not start with it.
            let _ = std::fs::remove_file(path);
            say(&format!(
                "Dovecot does not accept this as {target}, which was removed again:\n\n{snippet}"
            ));
            return;
        }
        say(&format!(
            "Created {target}; `doveconf -n` accepts it. Dovecot reads it after: systemctl reload dovecot"
        ));
    }
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    // Dovecot's programs read it as their users, whatever root's umask is. There is no secret in it.
    let written = file
        .set_permissions(Permissions::from_mode(0o644))
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.sync_all());
    written.inspect_err(|_| {
        // Half a configuration would stop Dovecot.
        let _ = std::fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(settings: &str, port: u16) -> NewsPlan {
        let dovecot = DovecotFacts {
            version: "2.3.19.1".into(),
            file: "/nonexistent/dovecot.conf".into(),
            settings: settings.to_owned(),
            has_lua: true,
        };
        NewsPlan { dovecot, listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) }
    }

    #[test]
    fn nothing_is_written_that_dovecot_could_not_run() {
        let bare = plan("", 1981);
        assert_eq!(bare.step(true), Step::Write);
        let missing = bare.step(false);
        assert!(matches!(&missing, Step::First(words) if words.starts_with(SCRIPT)), "{missing:?}");
        let dovecot = DovecotFacts { has_lua: false, ..bare.dovecot };
        let without = NewsPlan { dovecot, ..bare }.step(true);
        assert!(
            matches!(&without, Step::First(words) if words.contains("push_notification_lua")),
            "{without:?}"
        );
        let done = "push_notification_driver = lua:file=/usr/share/deltapush/dovecot/deltapush.lua";
        assert_eq!(plan(done, 1981).step(true), Step::Nothing);
    }

    #[test]
    fn snippet_fits_the_port_and_other_drivers() {
        assert_eq!(plan("", 1981).snippet(), BEFORE_24);
        let other =
            plan("plugin {\n  push_notification_driver = ox:url=http://x/\n}\n", 2981).snippet();
        assert!(other.contains("\n  push_notification_driver2 = lua:file="), "{other}");
        assert!(other.contains("\n  deltapush_url = http://127.0.0.1:2981/v1/news\n"), "{other}");
        assert!(BEFORE_24.contains(SCRIPT) && FROM_24.contains(SCRIPT));
        let mut new = plan("", 2981);
        new.dovecot.version = "2.4.1".into();
        assert!(new.snippet().contains("\n    deltapush_url = http://127.0.0.1:2981/v1/news\n"));
    }
}
