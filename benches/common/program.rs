//! The program that is measured: with a state of many accounts, made beforehand.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use deltapush::account::AccountId;
use deltapush::store::StoreSettings;

use crate::common::accounts;
use crate::common::deltapush::Deltapush;

/// The program, and its folder.
pub(crate) struct Program(Deltapush);

impl Program {
    /// Makes the folder's content, with `pace` in the configuration; nothing runs yet.
    ///
    /// # Errors
    /// If the state cannot be written.
    pub(crate) async fn prepare(
        folder: &Path,
        upstream: &Upstream,
        notify_url: &str,
        accounts: usize,
        pace: &str,
    ) -> Result<Self> {
        let settings = StoreSettings::sealed(folder.join("state"));
        let id = |account| AccountId::new(&format!("u{account}@lab.test"), &upstream.name());
        accounts::register(&settings, accounts, id).await?;
        fs::write(folder.join("config.yaml"), configuration(upstream, notify_url, pace))?;
        Ok(Self(Deltapush::new(folder)))
    }

    /// Starts it, from the main thread.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.0.start()
    }

    /// SIGKILL: no last words.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.0.kill()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.0.pid()
    }
}

/// The mail server, as the configuration has it.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    /// The authority of its certificate, if there is TLS.
    pub(crate) ca: Option<PathBuf>,
    /// The port of the hook, if the server tells of new mail and nobody watches.
    pub(crate) hook: Option<u16>,
}

impl Upstream {
    fn name(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn route(&self) -> String {
        match &self.ca {
            Some(ca) => format!("imaps://{}\n    ca: {}", self.name(), serde_json::json!(ca)),
            None => format!("imap+plain://{}", self.name()),
        }
    }
}

fn configuration(upstream: &Upstream, notify_url: &str, pace: &str) -> String {
    let route = upstream.route();
    let (news, posts) = match upstream.hook {
        // The pace of POSTs would be all that is measured.
        Some(port) => (
            format!("    news: server\nnews:\n  listen: 127.0.0.1:{port}\n"),
            "  coalesce: 1ms\n  max_per_second: 1000\n",
        ),
        None => (String::new(), "  coalesce: 1s\n"),
    };
    format!(
        "hostname: localhost\n\
         listeners:\n  - address: 127.0.0.1:0\n    tls: none\n\
         certificate:\n  directory: certs\n\
         routes:\n  - domain: lab.test\n    upstream: {route}\n{news}\
         push:\n  notify_url: {notify_url}\n{posts}\
         limits:\n  connections: 10\n\
         storage:\n  directory: state\n\
         admin:\n  address: off\n\
         log:\n  level: warn\n\
         {pace}"
    )
}
