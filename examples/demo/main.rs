//! The whole cycle on one screen, without any account: an ordinary mail server, deltapush in front of it, a client that hands
//! over its push token and goes away, a message, and the notification. Everything is in this process and on loopback.
//!
//! `cargo run --release --example demo`; the exit code is 0 only if the notification's body was the client's token.

mod client;
mod mail_server;
mod notifications;
mod screen;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use deltapush::config::{Config, Listener, ListenerTls};
use deltapush::{BoundListener, RunError, Server};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use client::Client;
use mail_server::{Heard, MailServer};
use notifications::NotificationServer;
use screen::{Screen, Who};

/// Time limit for a step. All of them together take less than a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The account; it exists in this process only.
const USER: &str = "alice@demo.example";
const PASSWORD: &str = "sesame";

const OLD_MAIL: &str = "From: Carol <carol@demo.example>\r\nSubject: Read long ago\r\n\r\nNobody is woken for this.\r\n";
const NEW_MAIL: &str =
    "From: Bob <bob@demo.example>\r\nSubject: Dinner at eight?\r\n\r\nSee you there.\r\n";

#[tokio::main]
async fn main() -> ExitCode {
    let mut screen = Screen::new();
    let outcome = tokio::select! {
        outcome = show(&mut screen) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    match outcome.and_then(|latency| screen.succeeded(latency)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen.failed(&error);
            ExitCode::FAILURE
        }
    }
}

/// Plays the cycle and returns how long after the message the notification came.
async fn show(screen: &mut Screen) -> Result<Duration> {
    let folder = tempfile::Builder::new()
        .prefix("deltapush-demo-")
        .tempdir()
        .context("cannot make a folder")?;
    let mut mail = MailServer::start(OLD_MAIL).await?;
    let mut notifications = NotificationServer::start().await?;
    let deltapush = Deltapush::start(folder.path(), mail.address, notifications.address).await?;
    screen.title("deltapush at work. All is in this process; nothing leaves this machine.")?;
    screen.step(
        Who::MailServer,
        &format!("on {}: an ordinary one, it knows no push", mail.address),
    )?;
    screen.step(
        Who::PushServer,
        &format!("on {}: like notifications.delta.chat", notifications.address),
    )?;
    screen.step(
        Who::Deltapush,
        &format!("on {}: between client and mail server", deltapush.address),
    )?;

    let token = hand_over_token(screen, &mut mail, &deltapush, folder.path()).await?;
    watch(screen, &mut mail).await?;
    ensure!(notifications.take().is_none(), "a notification came before the message");

    let delivered = Instant::now();
    mail.deliver(NEW_MAIL);
    screen.step(Who::MailServer, "gets a message and tells the one session that it has")?;
    let heard = mail.heard(|heard| heard.session > 1 && heard.line.starts_with("UID FETCH 2:"));
    let fetch = within("deltapush's look at the message", heard).await?;
    screen.step(Who::Deltapush, "looks: not read yet, no auto-reply, not from oneself")?;
    screen.line("deltapush", &cut(&fetch.line, 64))?;

    let body = within("the notification", notifications.next()).await??;
    let latency = delivered.elapsed();
    ensure!(
        body == token,
        "the notification's body is not the token: {} bytes of {}",
        body.len(),
        token.len()
    );
    screen.step(Who::PushServer, "gets the token as it was: the phone would wake now")?;
    screen.line("deltapush", &format!("POST /notify, {}", shortened(&body)))?;

    deltapush.stop().await?;
    Ok(latency)
}

/// The client logs in, learns that there is push, and behaves as Delta Chat does.
async fn hand_over_token(
    screen: &mut Screen,
    mail: &mut MailServer,
    deltapush: &Deltapush,
    folder: &Path,
) -> Result<String> {
    let certificate = folder.join("certs/localhost.cert.pem");
    let mut client =
        within("the client's connection", Client::connect(deltapush.address, &certificate))
            .await??;
    let login = format!(r#"LOGIN "{USER}" "{PASSWORD}""#);
    within("the client's login", client.command(&login)).await?.context("the login failed")?;
    screen.step(Who::Client, &format!("logs in through deltapush, with TLS, as {USER}"))?;
    let told = within("the capabilities", client.command("CAPABILITY")).await??;
    let told = told
        .iter()
        .find_map(|line| line.strip_prefix("* CAPABILITY "))
        .context("no capability list")?;
    screen.line("server", mail_server::CAPABILITIES)?;
    screen.added("to client", mail_server::CAPABILITIES, told)?;
    for name in ["METADATA", "XDELTAPUSH"] {
        ensure!(
            told.split(' ').any(|told| told == name),
            "{name} is not among the capabilities: {told}"
        );
    }

    let token = client::new_token();
    let command = format!(r#"SETMETADATA "INBOX" (/private/devicetoken "{token}")"#);
    within("the answer to the token", client.command(&command))
        .await?
        .context("the token was refused")?;
    screen.step(Who::Client, "hands over its push token, as Delta Chat does")?;
    screen.line("client", &command.replace(&token, &shortened(&token)))?;

    drop(client);
    within(
        "the end of the client's session",
        mail.heard(|heard| heard.session == 1 && heard.line == mail_server::END),
    )
    .await?;
    screen.step(Who::Client, "hangs up: the app is closed, the phone asleep")?;
    Ok(token)
}

/// deltapush has a session of its own by now, or soon.
async fn watch(screen: &mut Screen, mail: &mut MailServer) -> Result<()> {
    let heard: Heard = within(
        "an IDLE of deltapush's own",
        mail.heard(|heard| heard.session > 1 && heard.line == "IDLE"),
    )
    .await?;
    let own = heard.session;
    screen.step(Who::Deltapush, "stays: it watches the mailbox, read-only, not polling")?;
    let said = mail.lines_of(own);
    for verb in ["EXAMINE", "IDLE"] {
        let line = said
            .iter()
            .find(|line| line.starts_with(verb))
            .with_context(|| format!("no {verb}"))?;
        screen.line("deltapush", line)?;
    }
    if let Some(line) =
        said.iter().find(|line| line.starts_with("SELECT") || line.contains("STORE"))
    {
        bail!("deltapush changes the mailbox: {line}");
    }
    Ok(())
}

/// deltapush through its library, as a program that embeds it would run it.
struct Deltapush {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::result::Result<(), RunError>>,
}

impl Deltapush {
    async fn start(folder: &Path, mail: SocketAddr, notifications: SocketAddr) -> Result<Self> {
        let text = format!(
            "hostname: localhost\n\
             routes:\n  - domain: demo.example\n    upstream: imap+plain://{mail}\n\
             push:\n  notify_url: http://{notifications}/notify\n\
             admin:\n  address: off\n"
        );
        let config = Config::parse(&text, folder, "the demo's configuration")?;
        let server = Server::prepare(config).await?;
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            // An error means that the demo is over, too.
            let _ = stopped.await;
        };
        let listener = Listener::new(address, ListenerTls::Implicit).into();
        let task =
            tokio::spawn(server.run(vec![BoundListener { socket, listener }], || {}, shutdown));
        Ok(Self { address, stop, task })
    }

    async fn stop(self) -> Result<()> {
        // An error means that it has ended by itself, which the task then tells.
        let _ = self.stop.send(());
        within("deltapush ends", self.task).await?.context("deltapush ended by a panic")??;
        Ok(())
    }
}

/// Waits for `event`, but not for ever.
async fn within<T>(what: &str, event: impl Future<Output = T>) -> Result<T> {
    timeout(PATIENCE, event)
        .await
        .map_err(|_| anyhow!("waited {} s in vain for {what}", PATIENCE.as_secs()))
}

/// The beginning of a token, and how long it is.
fn shortened(token: &str) -> String {
    let start: String = token.chars().take(12).collect();
    format!("{start}… {} bytes", token.len())
}

/// `text`, cut if it is longer than `max` characters.
fn cut(text: &str, max: usize) -> String {
    if text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    text.chars().take(max).chain(['…']).collect()
}
