//! Phones: where no password is kept, a device that is woken comes, looks, and goes, and leaves its session behind.

use std::collections::HashSet;
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
use super::post::message_id;

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

/// Which device has seen which messages for itself.
#[derive(Default)]
pub(crate) struct Visits(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// Whose visits went well to the end.
    count: usize,
    /// A device's token, and a message's ID.
    messages: HashSet<(String, String)>,
}

impl Visits {
    /// Whether the device with this token has seen the message with this ID.
    pub(crate) fn has_seen(&self, token: &str, id: &str) -> bool {
        self.0.lock().unwrap().messages.contains(&(token.to_owned(), id.to_owned()))
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().count
    }

    fn has_gone_well(&self) {
        self.0.lock().unwrap().count += 1;
    }

    fn sees(&self, token: &str, ids: Vec<String>) {
        self.0.lock().unwrap().messages.extend(ids.into_iter().map(|id| (token.to_owned(), id)));
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
        if let Ok(Ok(())) = timeout(Duration::from_secs(10), look(phone, user, visits)).await {
            visits.has_gone_well();
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Logs in, hands the token over, fetches, waits for a moment, and hangs up.
async fn look(phone: &Phone, user: &str, visits: &Visits) -> io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, phone.port)).await?);
    command(&mut stream, &format!("a LOGIN {user} {}", quoted(PASSWORD)), "a OK").await?;
    let token = quoted(&phone.token);
    command(&mut stream, &format!("b SETMETADATA INBOX (/private/devicetoken {token})"), "b OK").await?;
    command(&mut stream, "c SELECT INBOX", "c OK").await?;
    let fetch = "d UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)])";
    // Whatever happens after it.
    visits.sees(&phone.token, command(&mut stream, fetch, "d OK").await?);
    command(&mut stream, "e IDLE", "+").await?;
    sleep(Duration::from_millis(fastrand::u64(0..500))).await;
    Ok(())
}

/// Says a command, and returns the message IDs that come before the line that is wanted.
async fn command(stream: &mut BufReader<TcpStream>, command: &str, wanted: &str) -> io::Result<Vec<String>> {
    stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).await?;
    let (mut line, mut ids) = (Vec::new(), Vec::new());
    while stream.read_until(b'\n', &mut line).await? > 0 {
        if line.starts_with(wanted.as_bytes()) {
            return Ok(ids);
        }
        ids.extend(str::from_utf8(&line).ok().and_then(message_id));
        if line.starts_with(b"* BYE") || line.starts_with(format!("{} ", command.split(' ').next().unwrap()).as_bytes())
        {
            break;
        }
        line.clear();
    }
    Err(io::Error::other(format!("expected {wanted}, got {:?}", String::from_utf8_lossy(&line))))
}
