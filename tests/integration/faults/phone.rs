//! Phones: where no password is kept, a device that is woken comes, looks, and goes, and leaves its session behind.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::super::support::client::quoted;
use super::super::support::dovecot::PASSWORD;
use super::notifications::{Accepted, Notifications};

/// How often an app tries before its system puts it to sleep again.
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

/// When which account was looked at by which device.
#[derive(Default)]
pub(crate) struct Visits(Mutex<Vec<(String, Accepted)>>);

impl Visits {
    /// Those of a user's devices.
    pub(crate) fn of(&self, user: &str) -> Vec<Accepted> {
        self.0.lock().unwrap().iter().filter(|(visited, _)| visited == user).map(|(_, visit)| visit.clone()).collect()
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Comes whenever it is woken. Ends with the test's runtime.
pub(crate) async fn live(phone: Phone, notifications: Arc<Notifications>, visits: Arc<Visits>) {
    let mut answered = 0;
    loop {
        let woken = notifications.accepted().iter().filter(|accepted| accepted.token == phone.token).count();
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
        if let Ok(Ok(at)) = timeout(Duration::from_secs(10), look(phone, user)).await {
            visits.0.lock().unwrap().push((user.to_owned(), Accepted { at, token: phone.token.clone() }));
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Logs in, hands the token over, fetches, waits for a moment, and hangs up. Returns when it had not begun to look.
async fn look(phone: &Phone, user: &str) -> io::Result<Instant> {
    let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, phone.port)).await?);
    command(&mut stream, &format!("a LOGIN {user} {}", quoted(PASSWORD)), "a OK").await?;
    let token = quoted(&phone.token);
    command(&mut stream, &format!("b SETMETADATA INBOX (/private/devicetoken {token})"), "b OK").await?;
    let before = Instant::now();
    command(&mut stream, "c SELECT INBOX", "c OK").await?;
    command(&mut stream, "d UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (FROM AUTO-SUBMITTED)])", "d OK").await?;
    command(&mut stream, "e IDLE", "+").await?;
    sleep(Duration::from_millis(fastrand::u64(0..500))).await;
    Ok(before)
}

async fn command(stream: &mut BufReader<TcpStream>, command: &str, wanted: &str) -> io::Result<()> {
    stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await? > 0 {
        if line.starts_with(wanted.as_bytes()) {
            return Ok(());
        }
        if line.starts_with(b"* BYE") || line.starts_with(format!("{} ", command.split(' ').next().unwrap()).as_bytes())
        {
            break;
        }
        line.clear();
    }
    Err(io::Error::other(format!("expected {wanted}, got {:?}", String::from_utf8_lossy(&line))))
}
