//! An ordinary IMAP server with one account and one mailbox: as much of RFC 3501 and RFC 2177 (IDLE) as the demo's two
//! sessions use. It knows neither METADATA nor push.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{PASSWORD, USER};

/// Capabilities, before and after a login.
pub(crate) const CAPABILITIES: &str = "IMAP4rev1 SASL-IR AUTH=PLAIN IDLE";

/// Stands in the place of a command when a session has ended.
pub(crate) const END: &str = "(end)";

/// A command that the server got, without its tag.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// The session, counted from 1.
    pub(crate) session: usize,
    /// The command, or [`END`].
    pub(crate) line: String,
}

pub(crate) struct MailServer {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    heard: watch::Receiver<Vec<Heard>>,
}

/// Shared session state.
struct State {
    /// The mailbox; a message's UID is its number.
    messages: watch::Sender<Vec<&'static str>>,
    heard: watch::Sender<Vec<Heard>>,
}

impl MailServer {
    /// Starts a server with one message in its mailbox.
    pub(crate) async fn start(message: &'static str) -> Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let (sender, heard) = watch::channel(Vec::new());
        let state = Arc::new(State { messages: watch::Sender::new(vec![message]), heard: sender });
        tokio::spawn(accept(socket, Arc::clone(&state)));
        Ok(Self { address, state, heard })
    }

    /// Puts a message into the mailbox.
    pub(crate) fn deliver(&self, message: &'static str) {
        self.state.messages.send_modify(|messages| messages.push(message));
    }

    /// Waits until the server has got a command that `is_it`.
    pub(crate) async fn heard(&mut self, is_it: impl Fn(&Heard) -> bool) -> Heard {
        let state = self.heard.wait_for(|all| all.iter().any(&is_it)).await;
        match state.ok().and_then(|all| all.iter().find(|heard| is_it(heard)).cloned()) {
            Some(heard) => heard,
            // Not reached: the sender lives as long as the server.
            None => std::future::pending().await,
        }
    }

    /// Returns a session's lines.
    pub(crate) fn lines_of(&self, session: usize) -> Vec<String> {
        let all = self.heard.borrow();
        all.iter()
            .filter(|heard| heard.session == session)
            .map(|heard| heard.line.clone())
            .collect()
    }
}

async fn accept(socket: TcpListener, state: Arc<State>) {
    for number in 1.. {
        let Ok((tcp, _)) = socket.accept().await else { return };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            // Without it small answers wait for acknowledgements; but that is no reason to fail.
            let _ = tcp.set_nodelay(true);
            // A broken connection ends its session, as a closed one does.
            let _ = Session::new(tcp, number, &state).run().await;
            state.note(number, END);
        });
    }
}

impl State {
    fn note(&self, session: usize, line: &str) {
        self.heard.send_modify(|all| all.push(Heard { session, line: line.to_owned() }));
    }
}

struct Session<'a> {
    lines: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
    number: usize,
    state: &'a State,
    mailbox: watch::Receiver<Vec<&'static str>>,
    is_authenticated: bool,
}

impl<'a> Session<'a> {
    fn new(tcp: TcpStream, number: usize, state: &'a State) -> Self {
        let (read, out) = tcp.into_split();
        let (lines, mailbox) = (BufReader::new(read).lines(), state.messages.subscribe());
        Self { lines, out, number, state, mailbox, is_authenticated: false }
    }

    async fn run(mut self) -> Result<()> {
        self.send(&format!("* OK [CAPABILITY {CAPABILITIES}] an ordinary mail server")).await?;
        while let Some(line) = self.lines.next_line().await? {
            let (tag, command) = line.split_once(' ').unwrap_or((&line, ""));
            let (verb, arguments) = command.split_once(' ').unwrap_or((command, ""));
            self.state.note(self.number, command);
            let answer = self.obey(&verb.to_ascii_uppercase(), arguments).await?;
            self.send(&format!("{tag} {answer}")).await?;
            if verb.eq_ignore_ascii_case("LOGOUT") {
                break;
            }
        }
        Ok(())
    }

    /// Does what a command asks for and returns the tagged answer.
    async fn obey(&mut self, verb: &str, arguments: &str) -> Result<&'static str> {
        match verb {
            "CAPABILITY" => self.send(&format!("* CAPABILITY {CAPABILITIES}")).await?,
            "LOGOUT" => self.send("* BYE until next time").await?,
            "NOOP" => {}
            "LOGIN" if arguments == format!(r#""{USER}" "{PASSWORD}""#) => {
                self.is_authenticated = true
            }
            "AUTHENTICATE" if is_login(arguments) => self.is_authenticated = true,
            "LOGIN" | "AUTHENTICATE" => {
                return Ok("NO [AUTHENTICATIONFAILED] wrong name or password");
            }
            "SELECT" | "EXAMINE" | "IDLE" | "UID" if !self.is_authenticated => {
                return Ok("BAD log in first");
            }
            "SELECT" => self.open().await?,
            "EXAMINE" => {
                self.open().await?;
                return Ok("OK [READ-ONLY] done");
            }
            "IDLE" => self.idle().await?,
            "UID" => self.fetch(arguments).await?,
            _ => return Ok("BAD unknown command"),
        }
        Ok("OK done")
    }

    async fn open(&mut self) -> Result<()> {
        let count = self.mailbox.borrow_and_update().len();
        let next = count.saturating_add(1);
        self.send(&format!("* {count} EXISTS\r\n* FLAGS (\\Seen)\r\n* OK [UIDVALIDITY 1] \r\n* OK [UIDNEXT {next}] "))
            .await
    }

    async fn idle(&mut self) -> Result<()> {
        self.send("+ idling").await?;
        loop {
            tokio::select! {
                // DONE, or the end of the connection.
                _ = self.lines.next_line() => return Ok(()),
                changed = self.mailbox.changed() => changed?,
            }
            let count = self.mailbox.borrow_and_update().len();
            self.send(&format!("* {count} EXISTS")).await?;
        }
    }

    /// `FETCH n:* (… BODY.PEEK[HEADER.FIELDS (names)])`; the answer always has UID and flags.
    async fn fetch(&mut self, arguments: &str) -> Result<()> {
        let first =
            arguments.split([' ', ':']).nth(1).and_then(|number| number.parse().ok()).unwrap_or(1);
        let names = arguments
            .split_once("FIELDS (")
            .and_then(|(_, rest)| rest.split_once(')'))
            .unwrap_or_default()
            .0;
        let messages = self.mailbox.borrow_and_update().clone();
        for (number, message) in (1_usize..).zip(messages).filter(|(number, _)| *number >= first) {
            let header = header_fields(message, names);
            let section = format!("BODY[HEADER.FIELDS ({names})] {{{}}}", header.len());
            self.send(&format!("* {number} FETCH (UID {number} FLAGS () {section}\r\n{header})"))
                .await?;
        }
        Ok(())
    }

    async fn send(&mut self, lines: &str) -> Result<()> {
        Ok(self.out.write_all(format!("{lines}\r\n").as_bytes()).await?)
    }
}

/// SASL PLAIN (RFC 4616) with its initial response.
fn is_login(arguments: &str) -> bool {
    arguments.split_once(' ').is_some_and(|(mechanism, response)| {
        mechanism.eq_ignore_ascii_case("PLAIN")
            && response == BASE64_STANDARD.encode(format!("\0{USER}\0{PASSWORD}"))
    })
}

/// The fields of a message's header that are among `names`, and the empty line.
fn header_fields(message: &str, names: &str) -> String {
    let is_wanted = |line: &&str| {
        let (name, _) = line.split_once(':').unwrap_or_default();
        names.split(' ').any(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    let header = message.split_inclusive("\r\n").take_while(|line| *line != "\r\n");
    header.filter(is_wanted).chain(["\r\n"]).collect()
}
