//! Phones: where no password is kept, a device that is woken comes, looks, and goes, and leaves its session behind.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::super::support::client::quoted;
use super::super::support::dovecot::PASSWORD;
use super::notifications::Notifications;
use super::post::number;

/// Attempts of an app before its system puts it to sleep again.
const TRIES: usize = 6;

/// A device with its accounts.
#[derive(Clone)]
pub(crate) struct Phone {
    /// deltapush's port in plain text.
    pub(crate) port: u16,
    /// The login names.
    pub(crate) users: Vec<String>,
    pub(crate) token: String,
}

/// Visits of devices to their mailboxes.
#[derive(Default)]
pub(crate) struct Visits(Mutex<Vec<Visit>>);

struct Visit {
    user: String,
    token: String,
    messages: BTreeSet<usize>,
}

impl Visits {
    /// Reports if this device has fetched this message of the user's. By the message itself: mail that came between the start of
    /// a visit and its FETCH may be fetched, or not.
    pub(crate) fn know(&self, user: &str, token: &str, message: usize) -> bool {
        let is_told = |visit: &Visit| {
            visit.user == user && visit.token == token && visit.messages.contains(&message)
        };
        self.0.lock().unwrap().iter().any(is_told)
    }

    /// Counts the visits.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Comes whenever it is woken. Ends with the test's runtime.
pub(crate) async fn live(phone: Phone, notifications: Arc<Notifications>, visits: Arc<Visits>) {
    let mut answered = 0;
    loop {
        let woken = notifications
            .accepted()
            .iter()
            .filter(|accepted| accepted.token == phone.token)
            .count();
        if woken > answered {
            answered = woken;
            for user in &phone.users {
                come(&phone, user, &visits).await;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn come(phone: &Phone, user: &str, visits: &Visits) {
    for _ in 0..TRIES {
        if let Ok(Ok(())) = timeout(Duration::from_secs(10), look(phone, user, visits)).await {
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Logs in, hands the token over, fetches, waits for a moment, and hangs up. Fetched messages are known, whatever comes after
/// that.
async fn look(phone: &Phone, user: &str, visits: &Visits) -> io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, phone.port)).await?);
    command(&mut stream, &format!("a LOGIN {user} {}", quoted(PASSWORD)), "a OK").await?;
    let token = quoted(&phone.token);
    command(&mut stream, &format!("b SETMETADATA INBOX (/private/devicetoken {token})"), "b OK")
        .await?;
    command(&mut stream, "c SELECT INBOX", "c OK").await?;
    let items = "(UID FLAGS BODY.PEEK[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)])";
    let fetched = command(&mut stream, &format!("d UID FETCH 1:* {items}"), "d OK").await?;
    let messages = fetched.lines().filter_map(number).collect();
    visits.0.lock().unwrap().push(Visit {
        user: user.to_owned(),
        token: phone.token.clone(),
        messages,
    });
    command(&mut stream, "e IDLE", "+").await?;
    sleep(Duration::from_millis(fastrand::u64(0..500))).await;
    Ok(())
}

/// Sends a command, and returns what comes up to the wanted line.
async fn command(
    stream: &mut BufReader<TcpStream>,
    command: &str,
    wanted: &str,
) -> io::Result<String> {
    stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).await?;
    let (mut all, mut line) = (String::new(), Vec::new());
    while stream.read_until(b'\n', &mut line).await? > 0 {
        if line.starts_with(wanted.as_bytes()) {
            return Ok(all);
        }
        if line.starts_with(b"* BYE")
            || line.starts_with(format!("{} ", command.split(' ').next().unwrap()).as_bytes())
        {
            break;
        }
        all.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Err(io::Error::other(format!("expected {wanted}, got {:?}", String::from_utf8_lossy(&line))))
}
