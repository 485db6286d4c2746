//! Delivery agents of users, and any program that delivers into a Maildir.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::support::guarded::Guarded;
use super::super::support::poll;
use super::super::support::scene::PATIENCE;
use super::super::support::server::unpacked;
use super::{Scene, block, delivered, replaced, script};

/// Runs a delivery agent with a message on standard input; it must succeed.
fn deliver(program: &str, arguments: &[&str], home: &Path, message: &str) {
    let mut command = Command::new(unpacked("bin").join(program));
    let mut child = command
        .args(arguments)
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}

/// A file that its agent trusts.
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Delivers messages that wake the device and one that does not; then others, while deltapush is down.
async fn expect_news(scene: &mut Scene, deliver: impl Fn(&Scene, &str)) {
    let maildir = scene.path("Maildir");
    deliver(scene, &scene.message("one"));
    scene.pushed(1).await;
    deliver(scene, &scene.own_message());
    scene.scene.expect_decided("no push: ", 1, 1).await;
    deliver(scene, &scene.message("two"));
    scene.pushed(2).await;
    assert_eq!(delivered(&maildir), 3);
    assert!(scene.scene.deltapush.terminate().success());
    deliver(scene, &scene.message("three"));
    assert_eq!(delivered(&maildir), 4);
}

#[tokio::test]
async fn procmail_tells_and_delivers() {
    let mut scene = Scene::new("recipe-procmail").await;
    let recipe = replaced(block("procmail"), "/usr/bin/deltapush news", &scene.command());
    write(&scene.path("procmailrc"), &recipe);
    expect_news(&mut scene, |scene, message| {
        let user = format!("LOGNAME={}", scene.local_part());
        let home = scene.folder.path();
        let folder = format!("MAILDIR={}", home.display());
        let arguments = [&*user, &folder, "DEFAULT=Maildir/", "./procmailrc"];
        deliver("procmail", &arguments, home, message);
    })
    .await;
}

#[tokio::test]
async fn maildrop_tells_and_delivers() {
    let mut scene = Scene::new("recipe-maildrop").await;
    for folder in ["cur", "new", "tmp"] {
        fs::create_dir_all(scene.path("Maildir").join(folder)).unwrap();
    }
    let recipe = replaced(block("maildrop"), "/usr/bin/deltapush news", &scene.command());
    let user = scene.local_part();
    let filter = format!("LOGNAME=\"{user}\"\n{recipe}to \"./Maildir\"\n");
    write(&scene.path("mailfilter"), &filter);
    expect_news(&mut scene, |scene, message| {
        deliver("maildrop", &["./mailfilter"], scene.folder.path(), message);
    })
    .await;
}

#[tokio::test]
async fn files_that_come_into_a_maildir_are_told_of() {
    let mut scene = Scene::new("recipe-maildir").await;
    let maildir = scene.folder.path().join(scene.local_part()).join("Maildir");
    for folder in ["cur", "new", "tmp"] {
        fs::create_dir_all(maildir.join(folder)).unwrap();
    }
    let home = format!("{}/", scene.folder.path().display());
    let recipe = replaced(script(), "/home/", &home);
    let recipe = replaced(&recipe, "/usr/bin/deltapush news", &scene.command());
    write(&scene.path("watch"), &recipe);
    let running = tempfile::tempdir().unwrap();
    let path = format!("PATH='{}':$PATH", unpacked("bin").display());
    let start = format!("{path} sh '{}'", scene.path("watch").display());
    let _running = Guarded::start(&start, running.path());
    let log = || fs::read_to_string(running.path().join("log")).unwrap_or_default();
    assert!(poll(PATIENCE, || log().contains("Watches established")).await, "{}", log());
    let deliver = |name: &str, text: &str| {
        fs::write(maildir.join("tmp").join(name), text).unwrap();
        fs::rename(maildir.join("tmp").join(name), maildir.join("new").join(name)).unwrap();
    };
    deliver("1.host", &scene.message("one"));
    scene.pushed(1).await;
    deliver("2.host", &scene.own_message());
    scene.scene.expect_decided("no push: ", 1, 1).await;
    deliver("3.host", &scene.message("two"));
    scene.pushed(2).await;
}
