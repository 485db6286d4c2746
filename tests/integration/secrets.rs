//! Remains of a password and a token: none in log, trace and files, and none in the memory of the process.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::support::certs::Authority;
use super::support::client::{Client, quoted, sasl_plain};
use super::support::deltapush::Deltapush;
use super::support::dovecot::{PASSWORD, Setup};
use super::support::notify::NotifyServer;
use super::support::poll;
use super::support::scene::{DovecotScene, PATIENCE};

/// All that any library says. The log keeps the latest lines only, so that this is for short sessions.
const TALKATIVE: (&str, &str) = ("level: info,deltapush=debug", "level: trace");

/// Time limit for erasure after the last session's end.
const SOON: Duration = Duration::from_secs(20);

/// A token of the size that Delta Chat's have.
fn token(name: &str) -> String {
    let body: String =
        (0..900_u32).map(|n| char::from(b'a' + u8::try_from(n * 7 % 26).unwrap())).collect();
    format!("openpgp:{name}{body}{name}")
}

/// Secrets to search for, with a name for each.
struct Sought(Vec<(&'static str, Vec<u8>)>);

impl Sought {
    fn password(user: &str) -> Self {
        let message = sasl_plain(user, PASSWORD);
        Self(vec![
            ("the password", PASSWORD.as_bytes().to_vec()),
            ("the password, quoted", quoted(PASSWORD).into_bytes()),
            ("a part of the password", PASSWORD.as_bytes()[PASSWORD.len() - 12..].to_vec()),
            ("a part of the password, quoted", quoted(PASSWORD).as_bytes()[4..20].to_vec()),
            ("the password in base64", BASE64_STANDARD.encode(PASSWORD).into_bytes()),
            ("the message of SASL PLAIN", message.clone().into_bytes()),
            ("the end of it", message.as_bytes()[message.len() - 20..].to_vec()),
        ])
    }

    fn and_token(mut self, token: &str) -> Self {
        let bytes = token.as_bytes();
        self.0.push(("the token", bytes.to_vec()));
        self.0.push(("the token's first quarter", bytes[..bytes.len() / 4].to_vec()));
        self.0.push(("the token's last quarter", bytes[bytes.len() * 3 / 4..].to_vec()));
        self
    }

    /// Lists those found in `bytes`.
    fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        self.0
            .iter()
            .filter(|(_, needle)| memchr::memmem::find(bytes, needle).is_some())
            .map(|(name, _)| *name)
            .collect()
    }

    /// Lists those found in the memory of a process, with the mapping of each.
    fn found_in_memory(&self, deltapush: &Deltapush) -> Vec<String> {
        let pid = deltapush.pid();
        let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut found = Vec::new();
        let mut searched = 0;
        for line in maps
            .lines()
            .filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
        {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let start = u64::from_str_radix(start, 16).unwrap();
            let end = u64::from_str_radix(end, 16).unwrap();
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            memory.seek(SeekFrom::Start(start)).unwrap();
            // A mapping may be gone by now.
            if memory.read_exact(&mut bytes).is_ok() {
                searched += bytes.len();
                found.extend(
                    self.found_in(&bytes).into_iter().map(|name| format!("{name} in {line}")),
                );
            }
        }
        assert!(searched > 1 << 20, "{searched} bytes were searched");
        found
    }

    /// Fails if any of it is there.
    async fn expect_none(&self, deltapush: &Deltapush) {
        poll(SOON, || self.found_in_memory(deltapush).is_empty()).await;
        let found = self.found_in_memory(deltapush);
        assert!(found.is_empty(), "{found:#?}");
        self.expect_none_outside_memory(deltapush);
    }

    /// The same, of all but the memory.
    fn expect_none_outside_memory(&self, deltapush: &Deltapush) {
        assert_eq!(self.found_in(deltapush.log().as_bytes()), Vec::<&str>::new(), "in the log");
        assert_eq!(self.found_in(deltapush.trace().as_bytes()), Vec::<&str>::new(), "in the trace");
        for (path, bytes) in files(deltapush.dir()) {
            assert_eq!(self.found_in(&bytes), Vec::<&str>::new(), "in {path}");
        }
    }
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            all.push((path.display().to_string(), bytes));
        }
    }
    assert!(!all.is_empty());
    all
}

async fn scene(name: &str, credentials: &'static str) -> DovecotScene {
    DovecotScene::with(Setup::Vanilla, name, |options| {
        options.trace = true;
        options.credentials = credentials;
        options.more = "limits:\n  failed_logins:\n    delay: 10ms\n".to_owned();
    })
    .await
}

async fn log_out(mut client: Client) {
    client.send("c9 LOGOUT").await;
    client.until_tagged("c9").await;
    client.expect_eof().await;
}

#[tokio::test]
async fn nothing_is_left_of_a_password_after_the_session() {
    let scene = scene("leaves-nothing", "sealed").await;
    let user = scene.user.clone();
    let sought = Sought::password(&user);
    let mut client = scene.client().await;
    client.command("c2 SELECT INBOX").await;
    // The search finds what is there: a session has its password, for a token that may come.
    assert!(!sought.found_in_memory(&scene.deltapush).is_empty());
    log_out(client).await;
    let pem = scene.deltapush.certificate();
    let logins = [
        format!("c1 LOGIN {user} {}", quoted(PASSWORD)),
        format!("c1 LOGIN {user} {{{}+}}\r\n{PASSWORD}", PASSWORD.len()),
        format!("c1 AUTHENTICATE PLAIN {}", sasl_plain(&user, PASSWORD)),
        // In the wrong place, and never completed.
        format!("c1 LOGIM {user} {}", quoted(PASSWORD)),
        format!("c1 LOGIN {user} {{{}+}}\r\n{PASSWORD}", PASSWORD.len() + 1),
    ];
    for login in &logins {
        for bytewise in [false, true] {
            let mut clients = [
                Client::tls(scene.deltapush.imaps, &pem).await,
                Client::starttls(scene.deltapush.starttls, &pem).await,
                Client::plain(scene.deltapush.plain).await,
            ];
            for client in &mut clients {
                if bytewise {
                    client.send("c0 NOOP").await;
                }
                client.send(login).await;
                client.send("c2 LOGOUT").await;
            }
            for mut client in clients {
                client.send_whatever_happens(b"\r\n").await;
                drop(client);
            }
        }
    }
    sought.expect_none(&scene.deltapush).await;
}

#[tokio::test]
async fn not_even_the_most_talkative_log_has_a_secret() {
    let token = token("talkative");
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let mut notify = NotifyServer::start_tls(&authority.server_config()).await;
    let scene = DovecotScene::with(Setup::Vanilla, "talkative", |options| {
        options.trace = true;
        options.notify_url.clone_from(&notify.url);
        options.notify_ca = Some(authority.ca.clone());
    })
    .await;
    scene.deltapush.reconfigure(|text| text.replace(TALKATIVE.0, TALKATIVE.1));
    assert!(
        poll(PATIENCE, || scene.deltapush.log().contains("the configuration was read again")).await
    );
    let sought = Sought::password(&scene.user).and_token(&token);
    let mut client = scene.client().await;
    let reply = client
        .command(&format!("c2 SETMETADATA INBOX (/private/devicetoken {})", quoted(&token)))
        .await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    log_out(client).await;
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    scene.deliver_news().await;
    assert_eq!(notify.wait_for(1, PATIENCE).await[0].token, token);
    let log = scene.deltapush.log();
    assert!(["TRACE", "hyper_util::", "h2::"].iter().all(|part| log.contains(part)), "{log}");
    assert_eq!(sought.found_in(log.as_bytes()), Vec::<&str>::new(), "in the log");
    assert_eq!(
        sought.found_in(scene.deltapush.trace().as_bytes()),
        Vec::<&str>::new(),
        "in the trace"
    );
}

#[tokio::test]
async fn nothing_is_left_of_a_token_that_went_to_a_server_that_pushes_itself() {
    let token = token("passes");
    let scene =
        DovecotScene::with(Setup::Chatmail, "leaves-no-token", |options| options.trace = true)
            .await;
    let sought = Sought::password(&scene.user).and_token(&token);
    let mut client = scene.client().await;
    let reply = client
        .command(&format!("c2 SETMETADATA INBOX (/private/devicetoken {})", quoted(&token)))
        .await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    let reply = client.command("c3 GETMETADATA INBOX /private/devicetoken").await;
    assert!(reply.text().contains(&token), "{reply:?}");
    log_out(client).await;
    sought.expect_none(&scene.deltapush).await;
}

#[tokio::test]
async fn nothing_is_left_of_an_account_whose_token_was_removed() {
    let token = token("removed");
    let scene = scene("leaves-no-account", "memory").await;
    let sought = Sought::password(&scene.user).and_token(&token);
    let mut client = scene.client().await;
    let reply = client
        .command(&format!("c2 SETMETADATA INBOX (/private/devicetoken {})", quoted(&token)))
        .await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    assert!(!sought.found_in_memory(&scene.deltapush).is_empty());
    let reply = client.command("c3 SETMETADATA INBOX (/private/devicetoken NIL)").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    log_out(client).await;
    let none_left = poll(PATIENCE, || {
        Sought::password(&scene.user).found_in_memory(&scene.deltapush).is_empty()
    })
    .await;
    assert!(none_left, "{:#?}", Sought::password(&scene.user).found_in_memory(&scene.deltapush));
    // SQLite does not wipe the memory that it gives back, and a token that was kept went through it: docs/security.md.
    sought.expect_none_outside_memory(&scene.deltapush);
}

/// With kept sessions, no copy of the password is there from the login on: while the client is there, while its session
/// watches without it, and when it is back.
#[tokio::test]
async fn where_sessions_are_kept_the_password_is_gone_as_soon_as_it_was_accepted() {
    let scene = scene("kept-nowhere", "none").await;
    let user = scene.user.clone();
    let sought = Sought::password(&user);
    let pem = scene.deltapush.certificate();
    let logins = [
        format!("c1 LOGIN {user} {}", quoted(PASSWORD)),
        format!("c1 LOGIN {user} {{{}+}}\r\n{PASSWORD}", PASSWORD.len()),
        format!("c1 AUTHENTICATE PLAIN {}", sasl_plain(&user, PASSWORD)),
    ];
    // The search finds what is there.
    let mut before = Client::tls(scene.deltapush.imaps, &pem).await;
    before.expect_prefix("* OK").await;
    before
        .send_raw(format!("c1 LOGIN {user} {{{}+}}\r\n{PASSWORD}", PASSWORD.len() + 1).as_bytes())
        .await;
    assert!(poll(PATIENCE, || !sought.found_in_memory(&scene.deltapush).is_empty()).await);
    drop(before);
    for (round, login) in logins.iter().enumerate() {
        let mut clients = vec![
            Client::tls(scene.deltapush.imaps, &pem).await,
            Client::starttls(scene.deltapush.starttls, &pem).await,
            Client::plain(scene.deltapush.plain).await,
        ];
        for (number, client) in clients.iter_mut().enumerate() {
            if number != 1 {
                client.expect_prefix("* OK").await;
            }
            client.send(login).await;
            let reply = client.until_tagged("c1").await;
            assert!(reply.result.starts_with("OK"), "{reply:?}");
        }
        // They have said nothing since.
        sought.expect_none(&scene.deltapush).await;
        for client in &mut clients {
            client.command("c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:nowhere\")").await;
            client.command("c3 SELECT INBOX").await;
        }
        sought.expect_none(&scene.deltapush).await;
        drop(clients);
        let watches =
            || scene.dovecot.sessions(&user).iter().filter(|said| said.contains("EXAMINE")).count();
        assert!(poll(PATIENCE, || watches() > round).await);
        sought.expect_none(&scene.deltapush).await;
    }
}
