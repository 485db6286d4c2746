//! Real Delta Chat cores, driven by JSON-RPC, and the submission server that they send through.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::certs::Authority;
use super::dovecot::{Dovecot, PASSWORD, TOKEN_KEY};
use super::{python, token_slot};

/// Time limit for a call of a core: it gives up its own connections after 60 s.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 2.23.0 through its C API, with a device token.
    WithToken,
    /// The current one, as deltachat-rpc-server.
    Current,
    /// The same with a device token, from its first account on.
    CurrentWithToken,
}

/// A core, running as a process of its own: an app with any number of accounts.
pub(crate) struct Core {
    child: Child,
    requests: ChildStdin,
    pending: Pending,
    events: mpsc::UnboundedReceiver<Value>,
    seen: Vec<Value>,
    next_id: u64,
    /// It has no token yet and is to have one.
    wants_token: bool,
    dir: tempfile::TempDir,
}

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// Time for a killed core to be gone.
const END: Duration = Duration::from_secs(2);

impl Drop for Core {
    /// Ends the core, and waits until it is gone: it connects to ports that another test may have next.
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let deadline = Instant::now() + END;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The id under which events are asked for, again and again.
const EVENT_ID: u64 = 0;

impl Core {
    /// Starts a core without accounts.
    pub(crate) async fn start(version: Version) -> Self {
        let dir = tempfile::Builder::new().prefix("deltapush-core-").tempdir().unwrap();
        let accounts = dir.path().join("accounts");
        let mut command = match version {
            Version::Current | Version::CurrentWithToken => {
                let mut command = python::program("deltachat-rpc-server");
                command.env("DC_ACCOUNTS_PATH", &accounts);
                command.env(token_slot::VARIABLE, format!("fcm-test:{}", std::process::id()));
                command
            }
            Version::WithToken => {
                let mut command = python::script("core_capi.py");
                command.arg(&accounts).arg(format!("fcm-test:{}", std::process::id()));
                command
            }
        };
        command.env("RUST_LOG", "info").stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(dir.path().join("stderr")).unwrap());
        let mut child = Command::from(command).kill_on_drop(true).spawn().unwrap();
        let requests = child.stdin.take().unwrap();
        let pending = Pending::default();
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(sort_responses(
            BufReader::new(child.stdout.take().unwrap()),
            Arc::clone(&pending),
            sender,
        ));
        let wants_token = version == Version::CurrentWithToken;
        let (seen, next_id) = (Vec::new(), EVENT_ID + 1);
        let mut core = Self { child, requests, pending, events, seen, next_id, wants_token, dir };
        core.write(EVENT_ID, "get_next_event", &json!([])).await;
        core
    }

    /// Makes an account whose IMAP server is on `imap` (loopback, TLS), and sets it up; returns its id.
    pub(crate) async fn add_account(&mut self, user: &str, imap: u16, smtp: u16) -> u64 {
        let account = self.add_empty_account().await;
        let login = json!({
            "addr": user, "password": PASSWORD,
            "imapServer": "localhost", "imapPort": imap, "imapSecurity": "ssl", "imapUser": user,
            "smtpServer": "localhost", "smtpPort": smtp, "smtpSecurity": "ssl", "smtpUser": user,
            "certificateChecks": "acceptInvalidCertificates",
        });
        self.call("add_or_update_transport", json!([account, login])).await;
        account
    }

    /// Makes an account that knows nothing yet, in an app that has its token if it is to have one.
    pub(crate) async fn add_empty_account(&mut self) -> u64 {
        let account = self.call("add_account", json!([])).await.as_u64().unwrap();
        if std::mem::take(&mut self.wants_token) {
            token_slot::fill(self.child.id().unwrap());
        }
        account
    }

    /// Makes an account that checks certificates strictly, whose servers have names that no resolver knows: the core's own
    /// memory of names is told that they are on loopback. Returns what went wrong, if setting it up failed.
    pub(crate) async fn add_strict_account(
        &mut self,
        user: &str,
        imap: (&str, u16),
        smtp: (&str, u16),
    ) -> Result<u64, String> {
        let account = self.call("add_account", json!([])).await.as_u64().unwrap();
        let info = self.call("get_info", json!([account])).await;
        let database = rusqlite::Connection::open(info["database_dir"].as_str().unwrap()).unwrap();
        for (name, _) in [imap, smtp] {
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs()
                .cast_signed();
            let noted =
                "INSERT INTO dns_cache (hostname, address, timestamp) VALUES (?, '127.0.0.1', ?)";
            database.execute(noted, (name, now)).unwrap();
        }
        drop(database);
        let login = json!({
            "addr": user, "password": PASSWORD,
            "imapServer": imap.0, "imapPort": imap.1, "imapSecurity": "ssl", "imapUser": user,
            "smtpServer": smtp.0, "smtpPort": smtp.1, "smtpSecurity": "ssl", "smtpUser": user,
            "certificateChecks": "strict",
        });
        let response = self.response("add_or_update_transport", json!([account, login])).await;
        response.get("error").map_or(Ok(account), |error| Err(error.to_string()))
    }

    /// Makes an account that knows nothing yet, which reaches all servers through an HTTP proxy on loopback, and takes these keys
    /// of servers for verified before.
    pub(crate) async fn add_account_behind(
        &mut self,
        proxy: u16,
        verified: &[(&str, String)],
    ) -> u64 {
        let account = self.call("add_account", json!([])).await.as_u64().unwrap();
        let url = format!("http://127.0.0.1:{proxy}");
        for (key, value) in [("proxy_url", &*url), ("proxy_enabled", "1")] {
            self.call("set_config", json!([account, key, value])).await;
        }
        self.verify_before(account, verified).await;
        account
    }

    /// Makes an account take these keys of servers (SHA-256 of the public key's info, in base64) for verified before: as if
    /// their certificates had been.
    pub(crate) async fn verify_before(&mut self, account: u64, verified: &[(&str, String)]) {
        let info = self.call("get_info", json!([account])).await;
        let database = rusqlite::Connection::open(info["database_dir"].as_str().unwrap()).unwrap();
        for (host, hash) in verified {
            let noted =
                "INSERT INTO tls_spki (host, spki_hash, timestamp) VALUES (?, ?, unixepoch())";
            database.execute(noted, (host, hash)).unwrap();
        }
    }

    /// Calls a method of the core, which must succeed.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        let response = self.response(method, params.clone()).await;
        assert!(response.get("error").is_none(), "{method} {params}: {response}\n{}", self.log());
        response["result"].clone()
    }

    /// Calls a method of the core, which may fail.
    pub(crate) async fn response(&mut self, method: &str, params: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().unwrap().insert(id, sender);
        self.write(id, method, &params).await;
        match timeout(PATIENCE, receiver).await {
            Ok(Ok(response)) => response,
            ended => panic!("the core does not answer {method}: {ended:?}\n{}", self.log()),
        }
    }

    /// Waits for an event of an account; what came in between is kept for the next call.
    pub(crate) async fn event(&mut self, account: u64, kind: &str) -> Value {
        let wanted =
            |event: &Value| event["contextId"] == account && event["event"]["kind"] == kind;
        if let Some(found) = self.seen.iter().position(wanted) {
            return self.seen.remove(found)["event"].clone();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Ok(Some(event)) = timeout_at(deadline, self.events.recv()).await else {
                panic!("no event {kind} of account {account}\n{}", self.log());
            };
            self.write(EVENT_ID, "get_next_event", &json!([])).await;
            if wanted(&event) {
                return event["event"].clone();
            }
            self.seen.push(event);
        }
    }

    /// Sends a first message, end-to-end encrypted, to somebody whose address and key come as a vCard.
    pub(crate) async fn write_to(&mut self, account: u64, vcard: Value, text: &str) {
        let contacts = self.call("import_vcard_contents", json!([account, vcard])).await;
        let chat = self.call("create_chat_by_contact_id", json!([account, contacts[0]])).await;
        self.call("misc_send_text_message", json!([account, chat, text])).await;
    }

    /// The vCard of an account, as given to others.
    pub(crate) async fn vcard(&mut self, account: u64) -> Value {
        const SELF: u32 = 1;
        self.call("make_vcard", json!([account, [SELF]])).await
    }

    /// The next incoming message of an account: its chat, and its text.
    pub(crate) async fn incoming(&mut self, account: u64) -> (Value, String) {
        let event = self.event(account, "IncomingMsg").await;
        let message = self.call("get_message", json!([account, event["msgId"]])).await;
        (event["chatId"].clone(), message["text"].as_str().unwrap().to_owned())
    }

    /// Ends the app from one moment to the next, as a phone's system does: SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    fn log(&self) -> String {
        let events: Vec<String> = self
            .seen
            .iter()
            .map(Value::to_string)
            .filter(|event| !event.contains("Changed"))
            .collect();
        let stderr = std::fs::read(self.dir.path().join("stderr")).unwrap_or_default();
        format!(
            "--- events\n{}\n--- stderr\n{}",
            events.join("\n"),
            String::from_utf8_lossy(&stderr)
        )
    }

    async fn write(&mut self, id: u64, method: &str, params: &Value) {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.requests.write_all(format!("{request}\n").as_bytes()).await.unwrap();
    }
}

/// Hands each response to whoever waits for it, events to their queue.
async fn sort_responses(
    mut lines: BufReader<tokio::process::ChildStdout>,
    pending: Pending,
    events: mpsc::UnboundedSender<Value>,
) {
    let mut line = String::new();
    while lines.read_line(&mut line).await.is_ok_and(|n| n > 0) {
        let response: Value = serde_json::from_str(&line).unwrap();
        let id = response["id"].as_u64().unwrap();
        if id == EVENT_ID {
            // Nobody listens any more when the test is over.
            let _ = events.send(response["result"].clone());
        } else if let Some(waiting) = pending.lock().unwrap().remove(&id) {
            let _ = waiting.send(response);
        }
        line.clear();
    }
}

/// A submission server (aiosmtpd) in front of a Dovecot's LMTP. It ends with the test.
pub(crate) struct Submission {
    /// Port with TLS from the first byte, or STARTTLS.
    pub(crate) port: u16,
    _process: (Child, ChildStdin),
}

impl Submission {
    /// Starts the server and waits until it accepts connections.
    pub(crate) async fn start(dovecot: &Dovecot) -> Self {
        Self::start_at(dovecot.lmtp, &dovecot.authority).await
    }

    /// The same in front of any server's LMTP.
    pub(crate) async fn start_at(lmtp: u16, authority: &Authority) -> Self {
        Self::run(lmtp, &[path(&authority.leaf_cert), path(&authority.leaf_key)], PASSWORD).await
    }

    /// The same with another certificate and its key.
    pub(crate) async fn start_with(dovecot: &Dovecot, certificate: &Path, key: &Path) -> Self {
        Self::run(dovecot.lmtp, &[path(certificate), path(key)], PASSWORD).await
    }

    /// A server as Outlook's: it has STARTTLS, and takes access tokens alone.
    pub(crate) async fn start_for_tokens(dovecot: &Dovecot) -> Self {
        let authority = &dovecot.authority;
        let files = [path(&authority.leaf_cert), path(&authority.leaf_key), "tokens"];
        Self::run(dovecot.lmtp, &files, TOKEN_KEY).await
    }

    async fn run(lmtp: u16, arguments: &[&str], secret: &str) -> Self {
        let mut command = python::script("submission.py");
        command.arg(lmtp.to_string()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Command::from(command).kill_on_drop(true).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{secret}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        timeout(PATIENCE, stdout.read_line(&mut line))
            .await
            .expect("the submission server does not start")
            .unwrap();
        let told: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the submission server said {line:?}"));
        let port = u16::try_from(told["port"].as_u64().unwrap()).unwrap();
        Self { port, _process: (child, stdin) }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
