//! Traces for people: followed from a second terminal, in files, exported, and played again.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::support::client::{Client, quoted};
use super::support::deltapush::Deltapush;
use super::support::dovecot::{PASSWORD, Setup};
use super::support::notify::NotifyServer;
use super::support::poll;
use super::support::replay::{Replay, TOKEN};
use super::support::scene::{DovecotScene, PATIENCE};

const SECRET: &str = "openpgp:Q29uZmlkZW50aWFs";

/// A `deltapush trace` in a second terminal. It ends with the test.
struct Following {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Following {
    /// Follows, and waits until it does.
    async fn start(deltapush: &Deltapush, arguments: &[&str]) -> Self {
        let mut command = command(deltapush.dir(), arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut following = Self { child, lines, seen: vec![] };
        // A follower of everything sees new clients from now on; one of a session sees that.
        tokio::time::sleep(Duration::from_millis(500)).await;
        following.take();
        following
    }

    fn take(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    /// Waits until a line has all these words.
    async fn sees(&mut self, words: &[&str]) -> String {
        let found =
            |seen: &str| seen.lines().any(|line| words.iter().all(|word| line.contains(word)));
        let came = poll(PATIENCE, || found(&self.take())).await;
        let seen = self.take();
        assert!(came, "no line with {words:?} in\n{seen}");
        seen
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltapush"));
    command.arg("--config").arg(dir.join("config.yaml")).arg("trace").args(arguments);
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let output = command(dir, arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

#[tokio::test]
async fn trace_of_one_session_ends_with_it() {
    let scene = DovecotScene::new(Setup::Vanilla, "follow-one").await;
    let unknown = command(scene.deltapush.dir(), &["--session", "9999"]).output().unwrap();
    let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(69), "{words}");
    assert!(words.contains("session #9999 has ended, or has not begun"), "{words}");

    let mut client = scene.client().await;
    let log = scene.deltapush.log();
    let (_, session) = log.rsplit_once("logged in session=").unwrap();
    let session = session.split(' ').next().unwrap();
    let mut one = Following::start(&scene.deltapush, &["--session", session]).await;
    client.command("c2 LOGOUT").await;
    one.sees(&["S: c2 OK"]).await;
    let mut status = None;
    let ended = poll(PATIENCE, || {
        status = one.child.try_wait().unwrap();
        status.is_some()
    });
    assert!(ended.await, "the trace goes on after its session");
    assert!(status.unwrap().success());
    let said = || scene.deltapush.log();
    assert!(
        poll(PATIENCE, || said().contains("session ended: the client logged out")).await,
        "{}",
        said()
    );
}

/// The files with traces, by the beginning of their name.
fn files(folder: &Path, start: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(start)).collect()
}

#[tokio::test]
async fn running_sessions_are_followed_from_a_second_terminal() {
    let scene = DovecotScene::new(Setup::Vanilla, "follow").await;
    // These run already, and nothing is restarted.
    let mut client = scene.client().await;
    let token = format!("c2 SETMETADATA INBOX (/private/devicetoken {})", quoted(SECRET));
    assert!(client.command(&token).await.result.starts_with("OK"));
    scene.dovecot.wait_for_watch(&scene.user, 1).await;

    let mut all = Following::start(&scene.deltapush, &[]).await;
    let mut one = Following::start(
        &scene.deltapush,
        &["--account", &scene.user, "--side", "upstream", "--json"],
    )
    .await;
    let mut watch =
        Following::start(&scene.deltapush, &["--session", "watch-1", "--literals"]).await;
    client
        .command(&format!("c3 SETMETADATA INBOX (/private/devicetoken {})", quoted(SECRET)))
        .await;
    client.command("c4 SELECT INBOX").await;
    client.command("c5 COMPRESS DEFLATE").await;
    scene.deliver_news().await;

    let who = format!(" {} ", scene.user);
    all.sees(&[
        &who,
        "C: c3 SETMETADATA \"INBOX\" (/private/devicetoken <24 bytes masked>)",
        "[kept by",
    ])
    .await;
    all.sees(&[&who, "S: c3 OK SETMETADATA completed", "[sent by deltapush]"]).await;
    all.sees(&[&who, "C: c4 SELECT INBOX"]).await;
    let seen = all.sees(&[&who, "-- from here on, client and deltapush compress"]).await;
    assert!(!seen.contains('\u{1b}'), "there is no terminal to be coloured: {seen}");
    let seen = one.sees(&["\"who\":\"U>\"", "c4 SELECT INBOX"]).await;
    assert!(!seen.contains("SETMETADATA"), "the upstream never heard of it: {seen}");
    let seen = watch.sees(&["watch-1", "bytes: From: "]).await;
    assert!(seen.lines().skip(1).all(|line| line.contains("watch-1")), "{seen}");

    // Before its login nobody knows whose a session is; then it is shown from its beginning.
    let mut again = scene.connect().await;
    again.expect_prefix("* OK").await;
    again.command(&format!("c1 LOGIN {} wrong", scene.user)).await;
    let mut second = Following::start(&scene.deltapush, &["--account", &scene.user]).await;
    again.command(&format!("c2 LOGIN {} {}", scene.user, quoted(PASSWORD))).await;
    second.sees(&[" C: c2 LOGIN<", "masked>"]).await;
    second.sees(&[" S: c2 OK ", "[changed by deltapush]"]).await;
    all.sees(&[&who, "S: c1 NO [AUTHENTICATIONFAILED]"]).await;
    for following in [&mut all, &mut one, &mut watch, &mut second] {
        let seen = following.take();
        assert!(
            !seen.contains("Q29uZmlk")
                && !seen.contains(PASSWORD)
                && !seen.contains(&quoted(PASSWORD)),
            "{seen}"
        );
    }
}

#[tokio::test]
async fn reader_that_has_stopped_slows_nobody() {
    let scene = DovecotScene::new(Setup::Vanilla, "stopped-reader").await;
    let mut child =
        command(scene.deltapush.dir(), &["--json"]).stdout(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut client = scene.client().await;
    // More than its pipe, its socket and its queue hold.
    for round in 0..40 {
        let many: String =
            (0..500).map(|number| format!("n{number} NOOP {}\r\n", "x".repeat(200))).collect();
        client.send_raw(format!("{many}c{round} NOOP\r\n").as_bytes()).await;
        client.until_tagged(&format!("c{round}")).await;
    }
    // Now it reads on, and is told what it has missed.
    let out = BufReader::new(child.stdout.take().unwrap());
    let told = std::thread::spawn(move || {
        out.lines().map_while(Result::ok).find(|line| line.contains("\"dropped\":"))
    });
    let came = poll(PATIENCE, || told.is_finished()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(came && told.join().unwrap().is_some(), "nothing was dropped, or it was not said");
}

#[tokio::test]
async fn session_that_cannot_be_followed_is_named() {
    let scene = DovecotScene::new(Setup::Vanilla, "follow-nothing").await;
    let wrong = |arguments: &[&str]| {
        let output = command(scene.deltapush.dir(), arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, words) = wrong(&["--session", "seven"]);
    assert!(code == Some(64) && words.contains("#7, 7 or watch-7"), "{code:?} {words}");
    let no_trace = scene.deltapush.dir().join("config.yaml");
    let (code, words) = wrong(&["show", no_trace.to_str().unwrap()]);
    assert!(
        code == Some(65) && words.starts_with("line 2: this is not a line of a trace"),
        "{code:?} {words}"
    );
    let (code, _) = wrong(&["show", "/nonexistent"]);
    assert_eq!(code, Some(71));
}

/// A session as Delta Chat has it, and a watch, in files; returns the account's.
async fn recorded(scene: &mut DovecotScene) -> PathBuf {
    let mut client = scene.client().await;
    client.command("c2 ID (\"name\" \"Delta Chat\" \"version\" \"2.23.0\")").await;
    client.command("c3 GETMETADATA \"\" (/shared/comment /shared/admin)").await;
    client
        .command(&format!("c4 SETMETADATA INBOX (/private/devicetoken {})", quoted(SECRET)))
        .await;
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    client.command("c5 LIST \"\" *").await;
    client.command("c6 CREATE Divorce").await;
    client.command("c7 SELECT INBOX").await;
    scene.deliver_news().await;
    scene.expect_pushes(&[SECRET]).await;
    client.command("c71 NOOP").await;
    client.command("c8 UID FETCH 1:* (UID FLAGS ENVELOPE BODY.PEEK[HEADER])").await;
    client.send("c9 APPEND Divorce (\\Seen) {12}").await;
    client.expect_prefix("+").await;
    client.send("Dear lawyer,").await;
    client.until_tagged("c9").await;
    client.send("c10 IDLE").await;
    client.expect_prefix("+").await;
    client.send("DONE").await;
    client.until_tagged("c10").await;
    client.command("c11 LOGOUT").await;
    client.expect_eof().await;
    let folder = scene.deltapush.dir().join("trace");
    let written = || {
        let file = files(&folder, &scene.user).into_iter().next();
        file.filter(|file| {
            fs::read_to_string(file).is_ok_and(|text| text.contains("the session ends"))
        })
    };
    assert!(poll(PATIENCE, || written().is_some()).await, "{:?}", files(&folder, ""));
    written().unwrap()
}

#[tokio::test]
async fn session_that_was_written_down_is_exported_and_played_again() {
    let mut scene = DovecotScene::with(Setup::Vanilla, "record", |options| {
        options.more = "trace:\n  directory: trace\n".to_owned();
    })
    .await;
    let file = recorded(&mut scene).await;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (dir, file) = (scene.deltapush.dir().to_owned(), file.to_str().unwrap().to_owned());
    let shown = String::from_utf8(run(&dir, &["show", &file]).stdout).unwrap();
    assert!(
        shown.contains(" C: c7 SELECT INBOX\n") && shown.contains("-- the session ends"),
        "{shown}"
    );

    let export = dir.join("export.jsonl");
    run(&dir, &["export", &file, "--to", export.to_str().unwrap()]);
    let exported = fs::read_to_string(&export).unwrap();
    for name in
        ["record@", "lab.test", "news", "Divorce", "lawyer", "elsewhere", "Q29uZmlk", PASSWORD]
    {
        assert!(!exported.contains(name), "{name} in\n{exported}");
    }
    if let Some(folder) = std::env::var_os("DELTAPUSH_RECORD") {
        fs::copy(&export, PathBuf::from(folder).join("dovecot.jsonl")).unwrap();
    }
    replay(&exported).await;
}

/// Plays a trace; its device is notified if it was there.
async fn replay(exported: &str) {
    let mut notify = NotifyServer::start().await;
    let url = notify.url.clone();
    let (upstream, _deltapush) =
        Replay::read(exported).play(|options| options.notify_url = url).await;
    upstream.finish().await;
    let has_news =
        exported.lines().any(|line| line.contains("\"watch-") && line.contains(" EXISTS\""));
    let posted = if has_news { notify.wait_for(1, PATIENCE).await } else { vec![] };
    assert!(posted.iter().all(|posted| posted.token == TOKEN));
}

#[tokio::test]
async fn every_recorded_session_plays_as_it_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/data/traces");
    let traces = files(&folder, "");
    assert!(!traces.is_empty());
    for path in traces {
        println!("{}", path.display());
        replay(&fs::read_to_string(path).unwrap()).await;
    }
}

#[tokio::test]
async fn files_begin_and_end_with_a_reload() {
    let scene = DovecotScene::new(Setup::Vanilla, "trace-reload").await;
    let mut client = scene.client().await;
    let folder = scene.deltapush.dir().join("trace");
    scene.deltapush.reconfigure(|text| format!("{text}\ntrace:\n  format: text\n"));
    assert!(poll(PATIENCE, || folder.exists()).await);
    client.command("c2 NOOP").await;
    let text = || {
        files(&folder, &scene.user)
            .first()
            .map(|file| fs::read_to_string(file).unwrap())
            .unwrap_or_default()
    };
    assert!(poll(PATIENCE, || text().contains(" C: c2 NOOP\n")).await, "{}", text());
    scene.deltapush.reconfigure(|text| text.replace("trace:\n  format: text\n", ""));
    let again = || scene.deltapush.log().matches("the configuration was read again").count() == 2;
    assert!(poll(PATIENCE, again).await);
    client.command("c3 NOOP").await;
    let mut stranger = Client::plain(scene.deltapush.plain).await;
    stranger.expect_prefix("* OK").await;
    assert!(!text().contains("c3 NOOP"), "{}", text());
    assert!(files(&folder, "before-login").is_empty(), "{:?}", files(&folder, ""));
}
