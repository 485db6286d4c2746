//! One delivery after the other, and the table.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::notifications::Notifications;
use super::relay::{Passed, Relay, Way};
use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{Dovecot, Setup, message};
use super::support::lmtp;
use super::support::news::{self, Hook};

/// Time after which a push counts as missing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two deliveries, in milliseconds, at random: Dovecot bundles news, and the pace of the benchmark must not meet its
/// own.
const PAUSE: std::ops::Range<u64> = 100..500;

/// The way in which deltapush learns of a message.
#[derive(Clone, Copy)]
enum Source {
    /// A watch of a Dovecot with this set-up.
    Idle(Setup),
    /// Dovecot tells in this way, and nobody watches.
    News(news::Way),
}

const SOURCES: [(&str, Source); 6] = [
    ("IDLE with NOTIFY", Source::Idle(Setup::Vanilla)),
    ("IDLE without NOTIFY", Source::Idle(Setup::WithoutNotify)),
    ("Lua script", Source::News(news::Way::Lua)),
    ("OX driver", Source::News(news::Way::Ox)),
    ("Sieve and `deltapush news`", Source::News(news::Way::Sieve)),
    ("dict socket", Source::News(news::Way::Dict)),
];

/// Figures of one delivery.
struct Sample {
    /// From the end of the message's data, as it is handed over by LMTP, to the POST's first byte.
    total: Duration,
    /// From there to the arrival of the EXISTS line, or of the news. None where nothing can be put between.
    heard: Option<Duration>,
    /// The share that deltapush added.
    own: Option<Duration>,
    /// From the end of the message's data to Dovecot's answer.
    delivery: Duration,
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
        "| new mail is learned of by | delivery to POST: median | p99 | to EXISTS or news: median | deltapush itself: median | p99 | delivery to Dovecot's answer: median |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (name, source) in SOURCES {
        let samples = match source {
            Source::Idle(setup) => measure(setup, deliveries).await?,
            Source::News(way) => measure_news(way, deliveries).await?,
        };
        let figures = |of: fn(&Sample) -> Option<Duration>| {
            let mut times: Vec<Duration> = samples.iter().filter_map(of).collect();
            times.sort_unstable();
            let at = |index: usize| {
                times.get(index).map_or("–".to_owned(), |time| milliseconds(*time))
            };
            (at(times.len() / 2), at((times.len() * 99).div_ceil(100).saturating_sub(1)))
        };
        let ((total, total_99), (heard, _), (own, own_99), (delivery, _)) = (
            figures(|sample| Some(sample.total)),
            figures(|sample| sample.heard),
            figures(|sample| sample.own),
            figures(|sample| Some(sample.delivery)),
        );
        println!("| {name} | {total} | {total_99} | {heard} | {own} | {own_99} | {delivery} |");
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
    let user = register(&dovecot, &deltapush).await;
    dovecot.wait_for_watch(&user, 1).await;
    deliver(&dovecot, &user, Some(&relay), &mut notifications, deliveries, sample).await
}

/// As [`measure`], where Dovecot tells.
async fn measure_news(way: news::Way, deliveries: usize) -> Result<Vec<Sample>> {
    let mut hook = Hook::new();
    let relay = match way {
        news::Way::Lua | news::Way::Ox => Some(Relay::start(hook.port()).await?),
        news::Way::Sieve | news::Way::Dict => None,
    };
    hook.between = relay.as_ref().map(|relay| relay.port);
    let dovecot = news::dovecot(way, &hook);
    let mut notifications = Notifications::start().await?;
    let options = news::options(&dovecot, &hook, way, "server");
    let options = Options { notify_url: notifications.url.clone(), ..options };
    let deltapush = Deltapush::start(&options);
    let user = register(&dovecot, &deltapush).await;
    if way == news::Way::Ox {
        news::set_ox_metadata(&dovecot, &user);
    }
    deliver(&dovecot, &user, relay.as_ref(), &mut notifications, deliveries, sample_of_news).await
}

async fn register(dovecot: &Dovecot, deltapush: &Deltapush) -> String {
    let user = dovecot.user("bench");
    let mut client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
    client.log_in(&user).await;
    client.command(r#"c2 SETMETADATA INBOX (/private/devicetoken "openpgp:bench")"#).await;
    user
}

/// Delivers one message after the other.
async fn deliver(
    dovecot: &Dovecot,
    user: &str,
    relay: Option<&Relay>,
    notifications: &mut Notifications,
    deliveries: usize,
    sample: fn(Sample, Instant, Instant, &[Passed]) -> Result<Sample>,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::with_capacity(deliveries);
    for number in 0..deliveries {
        sleep(Duration::from_millis(fastrand::u64(PAUSE))).await;
        relay.inspect(|relay| relay.forget());
        let message = message("bob@elsewhere.test", user, &format!("news {number}"), "");
        let delivered =
            lmtp::try_deliver(dovecot.lmtp, "bob@elsewhere.test", user, &message).await?;
        let delivery = delivered.elapsed();
        let posted = notifications.next(PATIENCE).await?;
        let total = posted.saturating_duration_since(delivered);
        let bare = Sample { total, heard: None, own: None, delivery };
        samples.push(match relay {
            Some(relay) => sample(bare, delivered, posted, &relay.passed())?,
            None => bare,
        });
    }
    ensure!(
        notifications.next(Duration::from_secs(1)).await.is_err(),
        "there are more pushes than messages"
    );
    Ok(samples)
}

/// The news is complete with the last bytes for deltapush before the POST.
fn sample_of_news(
    bare: Sample,
    delivered: Instant,
    posted: Instant,
    passed: &[Passed],
) -> Result<Sample> {
    let told = passed.iter().rfind(|passed| passed.way == Way::ToServer && passed.at <= posted);
    let told = told.with_context(|| format!("a push without news: {passed:#?}"))?.at;
    let heard = Some(told.saturating_duration_since(delivered));
    Ok(Sample { heard, own: Some(posted - told), ..bare })
}

fn sample(bare: Sample, delivered: Instant, posted: Instant, passed: &[Passed]) -> Result<Sample> {
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
    let heard = Some(until_posted[exists].at.saturating_duration_since(delivered));
    Ok(Sample { heard, own: Some(own), ..bare })
}
