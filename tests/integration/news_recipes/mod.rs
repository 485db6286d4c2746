//! The recipes of docs/news.md, with the page's own lines: programs that deliver mail tell deltapush of it.

mod agents;
mod postfix;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::support::client::quoted;
use super::support::dovecot::{Setup, message};
use super::support::scene::{DovecotScene, PATIENCE};

const PAGE: &str = include_str!("../../../docs/news.md");

/// The block of code of the page in this language.
fn block(language: &str) -> &'static str {
    let fence = format!("\n```{language}\n");
    let mut found = PAGE.split(&fence).skip(1).filter_map(|rest| rest.split_once("```"));
    let (text, _) = found.next().unwrap_or_else(|| panic!("no block of {language}"));
    text
}

/// The block of the shell script of the page, its only one with this line.
fn script() -> &'static str {
    let mut scripts = PAGE.split("\n```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
    scripts.find(|(text, _)| text.starts_with("#!/bin/sh\n")).expect("no script").0
}

/// Replaces a part of a recipe, which must be there.
fn replaced(recipe: &str, part: &str, with: &str) -> String {
    assert!(recipe.contains(part), "no {part:?} in {recipe}");
    recipe.replace(part, with)
}

/// An account of which only the mail server's news tells.
struct Scene {
    scene: DovecotScene,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new(name: &str) -> Self {
        let scene = DovecotScene::with(Setup::Vanilla, name, |options| {
            options.routes = Some(format!(
                "  - {{domain: lab.test, upstream: \"{}\", ca: \"{}\", news: server}}\n",
                options.upstream,
                options.ca.as_ref().unwrap().display()
            ));
            options.more = "news:\n  socket: news.sock\n".to_owned();
        })
        .await;
        let everybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scene.deltapush.dir(), everybody.clone()).unwrap();
        let mut client = scene.client().await;
        let entry =
            format!("c2 SETMETADATA INBOX (/private/devicetoken {})", quoted("openpgp:phone"));
        assert!(client.command(&entry).await.result.starts_with("OK"));
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), everybody).unwrap();
        Self { scene, folder }
    }

    /// The account's name without its domain: the user of the machine, where mail is delivered to users of the machine.
    fn local_part(&self) -> &str {
        self.scene.user.split_once('@').unwrap().0
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command as it is run here.
    fn command(&self) -> String {
        let socket = self.scene.deltapush.dir().join("news.sock");
        format!("{} news --socket {}", env!("CARGO_BIN_EXE_deltapush"), socket.display())
    }

    /// A message from a stranger.
    fn message(&self, subject: &str) -> String {
        message("bob@elsewhere.test", &self.scene.user, subject, "").replace("\r\n", "\n")
    }

    /// A message from another device of the account, which wakes nobody.
    fn own_message(&self) -> String {
        message(&self.scene.user, "bob@elsewhere.test", "own", "").replace("\r\n", "\n")
    }

    async fn pushed(&mut self, times: usize) {
        self.scene.notify.wait_for(times, PATIENCE).await;
    }
}

/// The messages in a Maildir.
fn delivered(maildir: &Path) -> usize {
    let of = |name: &str| fs::read_dir(maildir.join(name)).map_or(0, Iterator::count);
    of("new") + of("cur")
}
