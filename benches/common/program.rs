//! The program that is measured: with a state of many accounts, made beforehand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use deltapush::account::AccountId;
use deltapush::credentials::Credentials;
use deltapush::push::registry::Registry;
use deltapush::secret::DeviceToken;
use deltapush::store::StoreSettings;
use tokio::task::JoinSet;

/// Accounts that are registered at the same time.
const AT_ONCE: usize = 256;

/// The program, and its folder.
pub(crate) struct Program {
    folder: PathBuf,
    child: Option<Child>,
}

/// The token of an account.
pub(crate) fn token(account: usize) -> String {
    format!("openpgp:device-of-account-{account}")
}

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
        let (registry, _events, _news) = Registry::open(&settings)?;
        let mut registering = JoinSet::new();
        for account in 0..accounts {
            if registering.len() >= AT_ONCE {
                registering.join_next().await.context("none is left")???;
            }
            registering.spawn(register(registry.clone(), upstream.name(), account));
        }
        while let Some(registered) = registering.join_next().await {
            registered??;
        }
        registry.close().await;
        fs::write(folder.join("config.yaml"), configuration(upstream, notify_url, pace))?;
        Ok(Self { folder: folder.to_owned(), child: None })
    }

    /// Starts it.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deltapush"));
        command.arg("--config").arg(self.folder.join("config.yaml")).arg("run");
        self.child = Some(command.stdin(Stdio::null()).spawn()?);
        Ok(())
    }

    /// SIGKILL: no last words.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("it does not run")?.id())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.kill();
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

async fn register(registry: Registry, upstream: String, account: usize) -> Result<()> {
    let user = format!("u{account}@lab.test");
    let credentials = Credentials::new(user.as_str(), b"sesame".to_vec());
    let token = DeviceToken::new(token(account).as_bytes())?;
    Ok(registry.register(&AccountId::new(&user, &upstream), &credentials, &token).await?)
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
