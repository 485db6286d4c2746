//! Watches over real sockets for tests, at a mail server in the test's own process, with a clock that can jump.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::context::WatchContext;
use super::{WatchSettings, Watchers};
use crate::account::AccountId;
use crate::config::Config;
use crate::credentials::Credentials;
use crate::ownership::Ownership;
use crate::push::account::Account;
use crate::push::kept::KeptSessions;
use crate::push::registry::{AccountEvents, News, Registry, TokenNews};
use crate::push::server_news::{
    NewsError, NewsHeaders, NewsOutcome, NewsReceiver, NewsScope, ServerNews,
};
use crate::reloadable::Reloadable;
use crate::secret::DeviceToken;
use crate::store::StoreSettings;
use crate::trace::Tracer;
use crate::upstream::Upstreams;
use crate::upstream::route::Asked;

/// Time limit for a step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mail server: some mailboxes can be opened, and each has as many messages as the others.
pub(in crate::push) struct MailboxServer {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    mailboxes: BTreeSet<&'static str>,
    capabilities: &'static str,
    messages: watch::Sender<u32>,
    /// All commands, without their tags.
    said: Mutex<Vec<String>>,
}

impl MailboxServer {
    /// Starts a server with these capabilities and mailboxes, of four messages each.
    pub(in crate::push) async fn start(
        capabilities: &'static str,
        mailboxes: &[&'static str],
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mailboxes, messages) = (mailboxes.iter().copied().collect(), watch::Sender::new(4));
        let shared = Arc::new(Shared { mailboxes, capabilities, messages, said: Mutex::default() });
        let server = Self { port, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // A connection that breaks is the other side's business.
                tokio::spawn(async move { drop(shared.serve(tcp).await) });
            }
        });
        server
    }

    /// One more message arrives in each mailbox.
    pub(in crate::push) fn deliver(&self) {
        self.shared.messages.send_modify(|count| *count += 1);
    }

    /// Number of commands that began like this.
    pub(in crate::push) fn count(&self, command: &str) -> usize {
        self.shared.said.lock().unwrap().iter().filter(|said| said.starts_with(command)).count()
    }

    /// A session as its client leaves it behind.
    pub(super) async fn session(&self) -> TcpStream {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        let mut greeting = [0; 256];
        tcp.readable().await.unwrap();
        tcp.try_read(&mut greeting).unwrap();
        tcp
    }
}

impl Shared {
    async fn serve(&self, tcp: TcpStream) -> std::io::Result<()> {
        let mut messages = self.messages.subscribe();
        let mut idling = None;
        let (read, mut write) = tcp.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"* OK [CAPABILITY IMAP4rev1 IDLE SASL-IR AUTH=PLAIN] ready\r\n").await?;
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line?,
                _ = messages.changed(), if idling.is_some() => {
                    let news = format!("* {} EXISTS\r\n", *messages.borrow_and_update());
                    write.write_all(news.as_bytes()).await?;
                    continue;
                }
            };
            let Some(line) = line else { return Ok(()) };
            let (tag, command) = match idling.take() {
                Some(tag) => (tag, line),
                None => line
                    .split_once(' ')
                    .map(|(tag, command)| (tag.to_owned(), command.to_owned()))
                    .unwrap_or_default(),
            };
            self.said.lock().unwrap().push(command.clone());
            let count = *messages.borrow_and_update();
            if command == "IDLE" {
                idling = Some(tag);
                write.write_all(b"+ idling\r\n").await?;
                continue;
            }
            write.write_all(self.answer(&tag, &command, count).as_bytes()).await?;
            if command == "LOGOUT" {
                return Ok(());
            }
        }
    }

    fn answer(&self, tag: &str, command: &str, count: u32) -> String {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        match verb {
            "AUTHENTICATE" => {
                format!("{tag} OK [CAPABILITY IMAP4rev1 {}] in\r\n", self.capabilities)
            }
            "EXAMINE" if !self.mailboxes.contains(rest.trim_matches('"')) => {
                format!("{tag} NO no such mailbox\r\n")
            }
            "EXAMINE" => {
                let next = count + 1;
                format!(
                    "* {count} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT {next}] x\r\n{tag} OK x\r\n"
                )
            }
            "UID" => {
                let from = rest.trim_start_matches("FETCH ").split(':').next().unwrap_or_default();
                let from: u32 = from.parse().unwrap_or(count);
                let messages = (from.min(count)..=count).map(|uid| {
                    let fields = "FROM AUTO-SUBMITTED MESSAGE-ID";
                    let header = format!("Message-ID: <{uid}@lab.test>\r\n\r\n");
                    let size = header.len();
                    format!("* {uid} FETCH (UID {uid} FLAGS () BODY[HEADER.FIELDS ({fields})]<0> {{{size}}}\r\n{header})\r\n")
                });
                messages.collect::<String>() + &format!("{tag} OK x\r\n")
            }
            "LOGOUT" => format!("* BYE x\r\n{tag} OK x\r\n"),
            _ => format!("{tag} OK x\r\n"),
        }
    }
}

/// An account and its watch.
pub(in crate::push) struct Watching {
    pub(in crate::push) account: AccountId,
    pub(in crate::push) registry: Registry,
    pub(super) kept: KeptSessions,
    pub(in crate::push) news: TokenNews,
    pub(in crate::push) receiver: NewsReceiver,
    pub(in crate::push) context: Arc<WatchContext>,
    upstreams: Reloadable<Upstreams>,
    port: u16,
    _end: tokio_util::sync::DropGuard,
    _directory: TempDir,
}

impl Watching {
    /// Nothing is watched until the account has a token.
    pub(super) fn start(
        server: &MailboxServer,
        settings: fn(std::path::PathBuf) -> StoreSettings,
    ) -> Self {
        Self::start_with(server, settings, "idle")
    }

    /// The same, with another source of news.
    pub(super) fn start_with(
        server: &MailboxServer,
        settings: fn(std::path::PathBuf) -> StoreSettings,
        news: &str,
    ) -> Self {
        Self::start_owning(server, settings, news, Ownership::sole())
    }

    /// The same, of a node with companions.
    pub(in crate::push) fn start_node(server: &MailboxServer) -> Self {
        Self::start_owning(server, StoreSettings::sealed, "idle", Ownership::of_node())
    }

    fn start_owning(
        server: &MailboxServer,
        settings: fn(std::path::PathBuf) -> StoreSettings,
        news: &str,
        ownership: Ownership,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path().join("state"));
        let opened = Registry::open_owning(&settings, ownership).unwrap();
        Self::start_opened(server, opened, news, directory)
    }

    /// A node with this number, whose state others share.
    pub(in crate::push) async fn start_sharing(
        server: &MailboxServer,
        settings: &StoreSettings,
        node: i64,
        news: &str,
    ) -> Self {
        let opened = Registry::open_node(settings, node).await.unwrap();
        Self::start_opened(server, opened, news, tempfile::tempdir().unwrap())
    }

    fn start_opened(
        server: &MailboxServer,
        (registry, events, token_news): (Registry, AccountEvents, TokenNews),
        news: &str,
        directory: TempDir,
    ) -> Self {
        let port = server.port;
        let config = configuration(port, news);
        let upstreams = Upstreams::new(&config.live).unwrap();
        let asked = Asked { login: "alice@lab.test", listener: None, host: None };
        let account =
            AccountId::new("alice@lab.test", &upstreams.routes.find(&asked).unwrap().name());
        let settings = Reloadable::new(WatchSettings::new(&config.startup, &config.live));
        let upstreams = Reloadable::new(upstreams);
        let watchers = Watchers::new(
            &config.startup,
            registry.clone(),
            upstreams.clone(),
            settings,
            Tracer::default(),
        );
        let receiver = NewsReceiver::new(&watchers);
        let kept = KeptSessions::new(&watchers, &config.startup.keep);
        let context = Arc::clone(watchers.context());
        let end = CancellationToken::new();
        tokio::spawn(kept.clone().run(end.clone()));
        tokio::spawn(watchers.run(events, end.clone()));
        Self {
            account,
            registry,
            kept,
            news: token_news,
            receiver,
            context,
            upstreams,
            port,
            _end: end.drop_guard(),
            _directory: directory,
        }
    }

    /// The route is read again, with another source of news.
    pub(super) fn reload(&self, news: &str) {
        self.upstreams.set(Upstreams::new(&configuration(self.port, news).live).unwrap());
    }

    /// The mail server tells of a message.
    pub(in crate::push) async fn tell(&self, uid: u64) -> Result<NewsOutcome, NewsError> {
        let (uid, uid_validity) = (Some(uid), Some(7));
        self.receive(ServerNews { uid, uid_validity, ..ServerNews::default() }).await
    }

    /// The mail server tells of the message with this UID, which it does not know.
    pub(in crate::push) async fn tell_by_header(&self, uid: u64) -> Result<NewsOutcome, NewsError> {
        let header = format!("Message-ID: <{uid}@lab.test>\r\n\r\n");
        let headers = NewsHeaders::All(header.into_bytes());
        self.receive(ServerNews { headers, ..ServerNews::default() }).await
    }

    async fn receive(&self, news: ServerNews) -> Result<NewsOutcome, NewsError> {
        let news = ServerNews { name: "alice@lab.test".into(), ..news };
        self.receiver.receive(news, &NewsScope::All).await
    }

    pub(in crate::push) async fn register(&self) {
        let credentials = Credentials::new("alice@lab.test", "sesame");
        self.registry.register(&self.account, &credentials, &token()).await.unwrap();
    }

    pub(super) fn is_left_out(&self, mailbox: &str) -> bool {
        self.known().watch.is_left_out(mailbox)
    }

    /// The account, which has a token.
    pub(in crate::push) fn known(&self) -> Arc<Account> {
        self.registry.get(&self.account).unwrap()
    }

    /// The tokens that are to be posted now.
    pub(in crate::push) fn posted(&mut self) -> Vec<DeviceToken> {
        let news = std::iter::from_fn(|| self.news.try_recv());
        let posted = news.filter(|(_, news)| matches!(news, News::Pending { .. }));
        posted.map(|(token, _)| token).collect()
    }
}

fn configuration(port: u16, news: &str) -> Config {
    let yaml = format!(
        "routes: [{{domain: \"*\", upstream: \"imap+plain://127.0.0.1:{port}\", news: {news}}}]\n"
    );
    Config::parse(&yaml, Path::new(""), "test").unwrap()
}

pub(in crate::push) fn token() -> DeviceToken {
    DeviceToken::new(b"openpgp:alice").unwrap()
}

/// Waits until it is so.
pub(in crate::push) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets time pass at once; what was awaited over it happens after that.
pub(super) async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    // Those whose time has come get answers over their sockets.
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Lets `step` pass again and again until it is so. A connection that the clock cuts off is made again meanwhile.
pub(in crate::push) async fn in_steps(what: &str, step: Duration, mut is_so: impl FnMut() -> bool) {
    for _ in 0..200 {
        later(step).await;
        for _ in 0..50 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    panic!("not after any time: {what}");
}
