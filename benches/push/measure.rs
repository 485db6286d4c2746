//! One delivery after the other, and the table.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::notifications::Notifications;
use super::relay::{Passed, Relay, Way};
use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{Dovecot, Setup, message};
use super::support::lmtp;

/// Time after which a push counts as missing. If a user's inotify instances are used up, by other tests for example, Dovecot
/// looks for new mail every 30 s only.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two deliveries, in milliseconds, at random: Dovecot bundles news, and the pace of the benchmark must not meet its
/// own.
const PAUSE: std::ops::Range<u64> = 100..500;

/// Figures of one delivery.
struct Sample {
    /// From the end of the message's data, as it is handed over by LMTP, to the POST's first byte.
    total: Duration,
    /// From there to the EXISTS line's arrival.
    exists: Duration,
    /// The share that deltapush added.
    own: Duration,
}

/// Measures both set-ups, and prints a table.
///
/// # Errors
/// If a push is missing.
pub(crate) async fn all(deliveries: usize) -> Result<()> {
    println!(
        "{deliveries} deliveries each; to write a page to this disk and be sure of it takes {}\n",
        milliseconds(fsync()?)
    );
    println!(
        "| Dovecot | delivery to POST: median | p99 | delivery to EXISTS: median | deltapush itself: median | p99 |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (name, setup) in [("with NOTIFY", Setup::Vanilla), ("without NOTIFY", Setup::WithoutNotify)]
    {
        let samples = measure(setup, deliveries).await?;
        let figures = |of: fn(&Sample) -> Duration| {
            let mut times: Vec<Duration> = samples.iter().map(of).collect();
            times.sort_unstable();
            (
                milliseconds(times[times.len() / 2]),
                milliseconds(times[(times.len() * 99).div_ceil(100) - 1]),
            )
        };
        let ((total, total_99), (exists, _), (own, own_99)) = (
            figures(|sample| sample.total),
            figures(|sample| sample.exists),
            figures(|sample| sample.own),
        );
        println!("| {name} | {total} | {total_99} | {exists} | {own} | {own_99} |");
    }
    Ok(())
}

/// News is on disk before it is posted: the time that this machine's disk takes for the least of that, in the median.
fn fsync() -> Result<Duration> {
    let mut file = tempfile::tempfile()?;
    let mut times = Vec::new();
    for _ in 0..51 {
        let began = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

async fn measure(setup: Setup, deliveries: usize) -> Result<Vec<Sample>> {
    let dovecot = Dovecot::exclusive(setup);
    let relay = Relay::start(dovecot.imap).await?;
    let mut notifications = Notifications::start().await?;
    let options = Options {
        notify_url: notifications.url.clone(),
        coalesce: "1ms",
        ..Options::plain(relay.port)
    };
    let deltapush = Deltapush::start(&options);
    let user = dovecot.user("bench");
    let mut client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
    client.log_in(&user).await;
    client.command(r#"c2 SETMETADATA INBOX (/private/devicetoken "openpgp:bench")"#).await;
    drop(client);
    dovecot.wait_for_watch(&user, 1).await;

    let mut samples = Vec::with_capacity(deliveries);
    for number in 0..deliveries {
        sleep(Duration::from_millis(fastrand::u64(PAUSE))).await;
        relay.forget();
        let message = message("bob@elsewhere.test", &user, &format!("news {number}"), "");
        let delivered =
            lmtp::try_deliver(dovecot.lmtp, "bob@elsewhere.test", &user, &message).await?;
        let posted = notifications.next(PATIENCE).await?;
        samples.push(sample(delivered, posted, &relay.passed())?);
    }
    ensure!(
        notifications.next(Duration::from_secs(1)).await.is_err(),
        "there are more pushes than messages"
    );
    Ok(samples)
}

fn sample(delivered: Instant, posted: Instant, passed: &[Passed]) -> Result<Sample> {
    let until_posted: Vec<&Passed> = passed.iter().filter(|passed| passed.at <= posted).collect();
    let contains = |passed: &Passed, word: &str| {
        passed.way == Way::ToDeltapush && String::from_utf8_lossy(&passed.bytes).contains(word)
    };
    let exists = until_posted.iter().position(|passed| contains(passed, " EXISTS"));
    // News after it belongs to the next wait: the last word that the push depended on is the end of a FETCH.
    let decisive = until_posted
        .iter()
        .rposition(|passed| contains(passed, "FETCH") || contains(passed, "Fetch completed"));
    let (Some(exists), Some(decisive)) = (exists, decisive) else {
        anyhow::bail!("a push without news: {passed:#?}");
    };
    let mut own = posted - until_posted[decisive].at;
    for pair in until_posted[exists..=decisive].windows(2) {
        if (pair[0].way, pair[1].way) == (Way::ToDeltapush, Way::ToServer) {
            own += pair[1].at - pair[0].at;
        }
    }
    Ok(Sample {
        total: posted.saturating_duration_since(delivered),
        exists: until_posted[exists].at.saturating_duration_since(delivered),
        own,
    })
}
