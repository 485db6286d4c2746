//! One session with the mail server.
//!
//! - `FETCH n BODY[]` is answered with a message of n bytes.
//! - An account's INBOX has as many messages as it was told to have, and says so in IDLE. All others have [`MESSAGES`].
//! - Anything that nobody is expected to say ends the session.

use std::fmt::Write as _;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::sync::watch;
use tokio::time::sleep;

use super::message;
use super::server::{Idle, Shared};

/// The mailbox of which the server is slow to take messages.
pub(crate) const SLOW: &str = "SLOW";

/// Messages in the INBOX of a login without an account.
const MESSAGES: u32 = 50;

/// Bytes that are read at once.
const BUFFER: usize = 64 * 1024;

/// The longest literal of a login.
const LONGEST_LOGIN: usize = 1024;

const BEFORE_LOGIN: &str =
    "CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN";
const AFTER_LOGIN: &str = "CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT THREAD=REFERENCES \
     MULTIAPPEND UNSELECT CHILDREN NAMESPACE UIDPLUS LIST-EXTENDED ESEARCH SEARCHRES WITHIN LIST-STATUS BINARY MOVE \
     SPECIAL-USE LITERAL+";

/// The part of a message that a watching session sees.
const HEADERS: &str = "From: bob@elsewhere.test\r\n\r\n";

/// Some of the headers that Delta Chat prefetches of a message.
const MORE_HEADERS: &str = "Message-ID: <Mr.7mbhd2xsUwq.Qyc1cXJmdmS@mail.example.org>\r\n\
     Date: Mon, 01 Jun 2026 12:00:00 +0000\r\n\
     From: \"Bob\" <bob@elsewhere.test>\r\nTo: <alice@lab.test>\r\n\
     Chat-Version: 1.0\r\nAutocrypt-Setup-Message: \r\nIn-Reply-To: <Mr.0abcd2xsUwq.Qyc1cXJmdmS@mail.example.org>\r\n\r\n";

/// The headers of all messages.
static LISTING: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut listing = String::new();
    for uid in 1..=MESSAGES {
        let size = MORE_HEADERS.len();
        // Writing to a string cannot fail.
        let _ = write!(
            listing,
            "* {uid} FETCH (UID {uid} RFC822.SIZE 4711 BODY[HEADER.FIELDS (MESSAGE-ID DATE FROM TO CHAT-VERSION AUTOCRYPT-SETUP-MESSAGE IN-REPLY-TO)] {{{size}}}\r\n{MORE_HEADERS})\r\n"
        );
    }
    listing.into_bytes()
});

pub(super) struct Session<'a, S> {
    stream: BufReader<S>,
    /// Output to come; it leaves when nothing more is at hand.
    out: Vec<u8>,
    shared: &'a Shared,
    /// The account, and the number of messages in its INBOX.
    inbox: Option<(usize, watch::Receiver<u32>)>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    pub(super) fn new(stream: S, shared: &'a Shared) -> Self {
        Self {
            stream: BufReader::with_capacity(BUFFER, stream),
            out: Vec::new(),
            shared,
            inbox: None,
        }
    }

    pub(super) async fn run(mut self) -> Result<()> {
        self.queue(&format!("* OK [{BEFORE_LOGIN}] ready\r\n"));
        loop {
            let line = self.line().await?;
            let (tag, command) = line.split_once(' ').context("no tag")?;
            if command.eq_ignore_ascii_case("LOGOUT") {
                self.queue(&format!("* BYE bye\r\n{tag} OK done\r\n"));
                self.flush().await?;
                return Ok(self.stream.get_mut().shutdown().await?);
            }
            self.command(tag, command).await?;
        }
    }

    async fn command(&mut self, tag: &str, command: &str) -> Result<()> {
        let (verb, arguments) = command.split_once(' ').unwrap_or((command, ""));
        match verb.to_ascii_uppercase().as_str() {
            "AUTHENTICATE" | "LOGIN" => {
                let user = if verb.eq_ignore_ascii_case("LOGIN") {
                    self.login(arguments).await?
                } else {
                    self.authenticate(arguments).await?
                };
                self.inbox = account(&user).and_then(|account| {
                    Some((account, self.shared.inboxes.get(account)?.messages.subscribe()))
                });
                self.queue(&format!("{tag} OK [{AFTER_LOGIN}] logged in\r\n"));
                return Ok(());
            }
            "NOOP" | "SEARCH" | "ENABLE" => {}
            "CAPABILITY" => self.queue(&format!("* {AFTER_LOGIN}\r\n")),
            "ID" => self.queue("* ID NIL\r\n"),
            "SELECT" | "EXAMINE" => self.select(),
            "UID" => {
                let (verb, arguments) = arguments.split_once(' ').unwrap_or_default();
                ensure!(verb.eq_ignore_ascii_case("FETCH"), "unexpected: {command}");
                self.fetch(arguments, true).await?;
            }
            "FETCH" => self.fetch(arguments, false).await?,
            "APPEND" => self.append(arguments).await?,
            "IDLE" => self.idle().await?,
            _ => bail!("unexpected: {command}"),
        }
        self.queue(&format!("{tag} OK done\r\n"));
        Ok(())
    }

    /// The user of a LOGIN, whose arguments may be literals.
    async fn login(&mut self, arguments: &str) -> Result<String> {
        let mut line = arguments.to_owned();
        let mut user = None;
        while line.ends_with('}') {
            let (before, size) = line.rsplit_once('{').context("a bracket too many")?;
            let size = size.trim_end_matches(['}', '+']).parse()?;
            ensure!(size <= LONGEST_LOGIN, "too long a login");
            if !line.ends_with("+}") {
                self.queue("+ go on\r\n");
                self.flush().await?;
            }
            let mut literal = vec![0; size];
            self.stream.read_exact(&mut literal).await?;
            user =
                user.or(if before.is_empty() { Some(String::from_utf8(literal)?) } else { None });
            line = format!(" {}", self.line().await?.trim_start());
        }
        let first = || arguments.split(' ').next().unwrap_or_default().trim_matches('"').to_owned();
        Ok(user.unwrap_or_else(first))
    }

    /// The user of an AUTHENTICATE PLAIN.
    async fn authenticate(&mut self, arguments: &str) -> Result<String> {
        let (mechanism, response) = arguments.split_once(' ').unwrap_or((arguments, ""));
        ensure!(mechanism.eq_ignore_ascii_case("PLAIN"), "unexpected mechanism: {mechanism}");
        let mut response = response.to_owned();
        if response.is_empty() {
            self.queue("+ \r\n");
            response = self.line().await?;
        }
        let message = String::from_utf8(BASE64_STANDARD.decode(response)?)?;
        Ok(message.split('\0').nth(1).context("no user")?.to_owned())
    }

    fn select(&mut self) {
        let messages = self.messages();
        let next = messages + 1;
        self.queue(&format!(
            "* FLAGS (\\Seen)\r\n* {messages} EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT {next}] ok\r\n"
        ));
    }

    async fn fetch(&mut self, arguments: &str, by_uid: bool) -> Result<()> {
        let (set, items) = arguments.split_once(' ').context("FETCH of what?")?;
        if items == "BODY[]" {
            return self.body(set.parse()?).await;
        }
        if self.inbox.is_none() {
            self.out.extend_from_slice(&LISTING);
            return Ok(());
        }
        // Sequence numbers and UIDs are the same here. A client that asks by number looks back at what is old, and seen.
        let flags = if by_uid { "" } else { "\\Seen" };
        let first: u32 = set.split(':').next().unwrap_or_default().parse()?;
        let messages = self.messages();
        for uid in first.min(messages)..=messages {
            let size = HEADERS.len();
            self.queue(&format!(
                "* {uid} FETCH (UID {uid} FLAGS ({flags}) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED)]<0> {{{size}}}\r\n{HEADERS})\r\n"
            ));
        }
        Ok(())
    }

    async fn body(&mut self, size: u64) -> Result<()> {
        self.queue(&format!("* 1 FETCH (UID 1 BODY[] {{{size}}}\r\n"));
        if size <= BUFFER as u64 {
            message::write(size, &mut self.out).await?;
        } else {
            self.stream.get_mut().write_all(&self.out).await?;
            self.out.clear();
            message::write(size, self.stream.get_mut()).await?;
        }
        self.queue(")\r\n");
        Ok(())
    }

    async fn append(&mut self, arguments: &str) -> Result<()> {
        let (mailbox, size) = arguments.rsplit_once('{').context("APPEND without a size")?;
        if !size.ends_with("+}") {
            self.queue("+ go on\r\n");
            self.flush().await?;
        }
        if mailbox.starts_with(SLOW) {
            sleep(message::PAUSE).await;
        }
        message::read(size.trim_end_matches(['}', '+']).parse()?, &mut self.stream).await?;
        self.stream.read_line(&mut String::new()).await?;
        Ok(())
    }

    async fn idle(&mut self) -> Result<()> {
        self.queue("+ idling\r\n");
        self.flush().await?;
        let Some((account, mut inbox)) = self.inbox.clone() else {
            self.line().await?;
            return Ok(());
        };
        let shared = self.shared;
        let _idle = Idle::new(shared, account);
        loop {
            let mut line = String::new();
            let news = tokio::select! {
                read = self.stream.read_line(&mut line) => {
                    ensure!(read? > 0, "the connection was closed");
                    None
                }
                changed = inbox.changed() => Some(changed),
            };
            match news {
                Some(changed) => {
                    changed?;
                    let messages = self.messages();
                    self.queue(&format!("* {messages} EXISTS\r\n"));
                    self.flush().await?;
                }
                None => return Ok(()),
            }
        }
    }

    /// The number of messages. A number asked for here is no news any more.
    fn messages(&mut self) -> u32 {
        self.inbox.as_mut().map_or(MESSAGES, |(_, inbox)| *inbox.borrow_and_update())
    }

    async fn line(&mut self) -> Result<String> {
        if self.stream.buffer().is_empty() {
            self.flush().await?;
        }
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line).await? > 0, "the connection was closed");
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn queue(&mut self, lines: &str) {
        self.out.extend_from_slice(lines.as_bytes());
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.out.is_empty() {
            self.stream.get_mut().write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(self.stream.get_mut().flush().await?)
    }
}

/// The number of the account that a login names.
fn account(user: &str) -> Option<usize> {
    user.strip_prefix('u')?.split('@').next()?.parse().ok()
}
