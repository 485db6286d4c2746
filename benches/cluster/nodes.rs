//! The nodes: the real program, each with a folder of its own, and their accounts, made beforehand.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use deltapush::config::Config;
use deltapush::store::StoreSettings;

use super::mail_servers::MailServers;
use crate::common::accounts;
use crate::common::deltapush::Deltapush;
use crate::common::tls::Authority;

/// The surroundings of the nodes.
pub(crate) struct Peers<'a> {
    /// The folder of their folders.
    pub(crate) folder: &'a Path,
    pub(crate) program: &'a Path,
    pub(crate) servers: &'a MailServers,
    pub(crate) authority: &'a Authority,
    pub(crate) notify_url: &'a str,
}

impl Peers<'_> {
    /// A node; nothing runs yet. `postgres` is a section of the configuration, without which the state is a file. The key is the
    /// same for all.
    pub(crate) fn node(&self, name: &str, postgres: Option<&str>) -> Result<Node> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("config.yaml"), self.configuration(name, postgres))?;
        Ok(Node { program: Deltapush::of(self.program, &folder), folder })
    }

    fn configuration(&self, name: &str, postgres: Option<&str>) -> String {
        let (routes, notify_url) = (self.servers.routes(self.authority), self.notify_url);
        let postgres = postgres.map(|section| format!("  postgres: {section}\n"));
        let postgres = postgres.unwrap_or_default();
        // The machine is the limit, not the pace.
        format!(
            "hostname: localhost\n\
             listeners:\n  - address: 127.0.0.1:0\n    tls: none\n\
             certificate:\n  directory: certs\n\
             routes:\n{routes}\
             push:\n  notify_url: {notify_url}\n  coalesce: 1ms\n  max_per_second: 1000\n\
             pace:\n  sessions: 1000000\n  at_once: 64\n  new_sessions: 5000/s\n\
             limits:\n  connections: 10\n\
             storage:\n  directory: state\n  key_file: ../seal.key\n{postgres}\
             node:\n  name: {name}\n\
             admin:\n  address: off\n\
             log:\n  level: warn\n"
        )
    }
}

/// One node.
pub(crate) struct Node {
    pub(crate) program: Deltapush,
    folder: PathBuf,
}

impl Node {
    /// Registers accounts in a file; if the state is a database, moves them there.
    pub(crate) async fn populate(&self, servers: &MailServers, accounts: usize) -> Result<()> {
        let config = Config::load(&self.folder.join("config.yaml"))?;
        let settings = StoreSettings::new(&config.startup.storage);
        let file = StoreSettings { postgres: None, ..settings.clone() };
        accounts::register(&file, accounts, |account| servers.account(account)).await?;
        if settings.postgres.is_some() {
            let moved = self.program.command(&["state", "move", "--to", "postgres"]);
            moved.context("the accounts are not moved into the database")?;
        }
        Ok(())
    }
}
