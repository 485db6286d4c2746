//! The nodes: the real program, each with a folder of its own, and their accounts, made beforehand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use deltapush::account::AccountId;
use deltapush::config::Config;
use deltapush::credentials::Credentials;
use deltapush::ownership::Ownership;
use deltapush::secret::DeviceToken;
use deltapush::store::{DualTime, Store, StoreSettings, UnixTime, Uptime, change};
use tokio::task::JoinSet;

use super::common::process::Process;

/// Accounts that are registered at the same time.
const AT_ONCE: usize = 256;

/// The token of an account.
pub(crate) fn token(account: usize) -> String {
    format!("openpgp:device-of-account-{account}")
}

/// The place of a node's state.
pub(crate) enum State<'a> {
    /// In a file.
    Sqlite,
    /// In the database of this section.
    Postgres(&'a str),
}

/// One node.
pub(crate) struct Node {
    folder: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Makes the folder of a node; nothing runs yet. The key is the same for all in `place`.
    pub(crate) fn prepare(
        place: &Path,
        name: &str,
        upstream: u16,
        notify_url: &str,
        state: &State<'_>,
    ) -> Result<Self> {
        let folder = place.join(name);
        fs::create_dir_all(&folder)?;
        let state = match state {
            State::Sqlite => "directory: state".to_owned(),
            State::Postgres(section) => {
                format!("directory: state\n  postgres: {section}\n  key_file: ../seal.key")
            }
        };
        let configuration = format!(
            "hostname: localhost\n\
             listeners:\n  - address: 127.0.0.1:0\n    tls: none\n\
             certificate:\n  directory: certs\n\
             routes:\n  - domain: lab.test\n    upstream: imap+plain://localhost:{upstream}\n\
             push:\n  notify_url: {notify_url}\n  coalesce: 1ms\n  max_per_second: 1000\n\
             pace:\n  sessions: 100000\n  at_once: 64\n  new_sessions: 1000/s\n\
             limits:\n  connections: 10\n\
             storage:\n  {state}\n\
             node:\n  name: {name}\n\
             admin:\n  address: off\n\
             log:\n  level: warn\n"
        );
        fs::write(folder.join("config.yaml"), configuration)?;
        Ok(Self { folder, child: None })
    }

    /// Registers the accounts in the node's state.
    pub(crate) async fn populate(&self, upstream: u16, accounts: usize) -> Result<()> {
        let config = Config::load(&self.folder.join("config.yaml"))?;
        let settings = StoreSettings::new(&config.startup.storage);
        let store = match settings.postgres {
            Some(_) => Store::open_postgres(&settings, Ownership::of_node(), 1, |_| {}).await?.0,
            None => Store::open(&settings, |_| {})?.0,
        };
        let mut registering = JoinSet::new();
        for account in 0..accounts {
            if registering.len() >= AT_ONCE {
                registering.join_next().await.context("none is left")???;
            }
            registering.spawn(register(store.clone(), upstream, account));
        }
        while let Some(registered) = registering.join_next().await {
            registered??;
        }
        store.close().await;
        Ok(())
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
    pub(crate) fn process(&self) -> Result<Process> {
        Ok(Process::of(self.child.as_ref().context("it does not run")?.id()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.kill();
    }
}

async fn register(store: Store, upstream: u16, account: usize) -> Result<()> {
    let user = format!("u{account}@lab.test");
    let account_id = AccountId::new(&user, &format!("localhost:{upstream}"));
    let credentials = Credentials::new(user.as_str(), b"sesame".to_vec());
    let token = DeviceToken::new(token(account).as_bytes())?;
    let now = DualTime { wall: UnixTime::now(), served: Uptime::default() };
    let change = change::register(&account_id, Some(credentials.into()), &token, true, now);
    Ok(store.commit(change).await?)
}
