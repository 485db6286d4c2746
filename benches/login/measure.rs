//! One background fetch after the other, and the table.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::distance;
use super::support::client::{Client, quoted};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{Dovecot, PASSWORD, Setup};
use super::support::notify::NotifyServer;
use super::support::poll;

const PATIENCE: Duration = Duration::from_secs(20);

/// The headers of new messages that the core asks for before it decides which to download.
const PREFETCH: &str = "UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE X-MICROSOFT-ORIGINAL-MESSAGE-ID FROM CONTENT-TYPE \
                        SECURE-JOIN CHAT-VERSION CHAT-IS-POST-MESSAGE AUTOCRYPT-SETUP-MESSAGE)]";

/// Round trips in milliseconds: from the phone to the server that it enters, and from deltapush to the mail server.
const DISTANCES: [(u64, u64); 4] = [(0, 0), (40, 0), (40, 10), (40, 40)];

/// The phone's way to its mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Sealed,
    None,
}

impl Way {
    const ALL: [Self; 3] = [Self::Direct, Self::Sealed, Self::None];

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "directly",
            Self::Sealed => "`sealed`: deltapush logs in",
            Self::None => "`none`: the kept session",
        }
    }
}

/// The times of one fetch, each from LOGIN on but for the last.
struct Sample {
    logged_in: Duration,
    fetched: Duration,
    /// From before the connection on.
    in_all: Duration,
}

/// Measures all ways at all distances, and prints a table.
///
/// # Errors
/// If a fetch fails.
pub(crate) async fn all(fetches: usize, is_long: bool) -> Result<()> {
    println!("{fetches} fetches each, medians (99th percentile)\n");
    println!(
        "| phone to server | deltapush to mail server | way | LOGIN to OK | LOGIN to first FETCH | connecting to first FETCH |"
    );
    println!("| ---: | ---: | --- | ---: | ---: | ---: |");
    let distances = if is_long { &DISTANCES[..] } else { &DISTANCES[2..3] };
    let dovecot = Dovecot::exclusive(Setup::Vanilla);
    for (number, &(phone, server)) in distances.iter().enumerate() {
        for way in Way::ALL {
            let user = dovecot.user(&format!("{way:?}-{number}").to_lowercase());
            dovecot.deliver_news(&user, "news").await;
            let distance = (Duration::from_millis(phone), Duration::from_millis(server));
            let samples = measure(&dovecot, way, &user, distance, fetches).await?;
            let figures = |of: fn(&Sample) -> Duration| {
                let mut times: Vec<Duration> = samples.iter().map(of).collect();
                times.sort_unstable();
                let (median, worst) =
                    (times[times.len() / 2], times[(times.len() * 99).div_ceil(100) - 1]);
                format!("{:.1} ms ({:.1})", median.as_secs_f64() * 1e3, worst.as_secs_f64() * 1e3)
            };
            let (logged_in, fetched, in_all) = (
                figures(|sample| sample.logged_in),
                figures(|sample| sample.fetched),
                figures(|sample| sample.in_all),
            );
            let behind = if way == Way::Direct { "–".into() } else { format!("{server} ms") };
            println!(
                "| {phone} ms | {behind} | {} | {logged_in} | {fetched} | {in_all} |",
                way.name()
            );
        }
    }
    Ok(())
}

async fn measure(
    dovecot: &Dovecot,
    way: Way,
    user: &str,
    (phone, server): (Duration, Duration),
    fetches: usize,
) -> Result<Vec<Sample>> {
    if way == Way::Direct {
        let phones = distance::relay(dovecot.imaps, phone).await?;
        let mut samples = Vec::with_capacity(fetches);
        for _ in 0..fetches {
            samples.push(fetch(phones, &dovecot.authority.ca, user).await);
        }
        return Ok(samples);
    }
    let notify = NotifyServer::start().await;
    let servers = distance::relay(dovecot.imaps, server).await?;
    let options = Options {
        upstream: format!("imaps://localhost:{servers}"),
        notify_url: notify.url.clone(),
        credentials: if way == Way::None { "none" } else { "sealed" },
        ..Options::dovecot(dovecot)
    };
    let deltapush = Deltapush::start(&options);
    let certificate = deltapush.certificate();
    // Two sessions: the first of an account is never handed back.
    for _ in 0..2 {
        wait_in_idle(&deltapush, &certificate, user).await;
        is_watched(&deltapush).await?;
    }
    let logins = || dovecot.log().matches(&format!("Login: user=<{user}>")).count();
    let before = logins();
    let phones = distance::relay(deltapush.imaps, phone).await?;
    let mut samples = Vec::with_capacity(fetches);
    for _ in 0..fetches {
        samples.push(fetch(phones, &certificate, user).await);
        is_watched(&deltapush).await?;
    }
    let expected = if way == Way::None { 0 } else { fetches };
    poll(Duration::from_secs(5), || logins() - before >= expected).await;
    ensure!(
        logins() - before == expected,
        "{way:?}: {} logins at the mail server",
        logins() - before
    );
    Ok(samples)
}

/// A client with a device, which waits and goes.
async fn wait_in_idle(deltapush: &Deltapush, certificate: &Path, user: &str) {
    let mut client = Client::tls(deltapush.imaps, certificate).await;
    client.log_in(user).await;
    client.command(r#"c2 SETMETADATA INBOX (/private/devicetoken "openpgp:bench")"#).await;
    client.command("c3 SELECT INBOX").await;
    client.send("c4 IDLE").await;
    client.expect_prefix("+").await;
}

/// Waits until the account's mailbox is watched, and no client is there any more.
async fn is_watched(deltapush: &Deltapush) -> Result<()> {
    // The status may still be that from before the client went.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let watched = poll(PATIENCE, || deltapush.status().contains("watch    watching")).await;
    ensure!(watched, "the mailbox is not watched: {}", deltapush.status());
    Ok(())
}

/// A background fetch of the core. It hangs up without LOGOUT.
async fn fetch(port: u16, trusted: &Path, user: &str) -> Sample {
    let connecting = Instant::now();
    let mut client = Client::tls(port, trusted).await;
    client.expect_prefix("* OK").await;
    let began = Instant::now();
    let login = client.command(&format!("c1 LOGIN \"{user}\" {}", quoted(PASSWORD))).await;
    assert!(login.result.starts_with("OK"), "{login:?}");
    let logged_in = began.elapsed();
    client.command(r#"c2 ID ("name" "Delta Chat")"#).await;
    let selected = client.command("c3 SELECT \"INBOX\"").await;
    assert!(selected.result.starts_with("OK"), "{selected:?}");
    client.send(&format!("c4 UID FETCH 1:* ({PREFETCH})")).await;
    let first = client.response().await;
    assert!(first.starts_with("* 1 FETCH"), "{first:?}");
    Sample { logged_in, fetched: began.elapsed(), in_all: connecting.elapsed() }
}
