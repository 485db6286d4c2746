//! A push is never lost: messages are delivered while deltapush is killed, the mail server is restarted, the notification
//! server fails and the network breaks, at random. In the end each account's ledger must agree.
//!
//! Deltapush hears of mail by watches, by kept sessions, or by the mail server's news, with and without watches.
//!
//! The seed is printed; `DELTAPUSH_SEED=n` takes that one again. It decides which faults come and when, but not how the
//! programs' threads meet them. `DELTAPUSH_FAULTS=long` is a run of many minutes:
//! `DELTAPUSH_FAULTS=long cargo test --test integration faults:: -- --nocapture`.

pub(crate) mod lane;
mod late;
pub(crate) mod ledger;
mod left;
mod news;
pub(crate) mod notifications;
mod phone;
pub(crate) mod plan;
pub(crate) mod post;
mod weather;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::sleep;

use self::lane::{Count, Lane, Span};
use self::ledger::{Account, Delivered, Kind, Missing, Tally};
use self::notifications::{Day, Notifications};
use self::phone::{Phone, Visits};
use self::plan::Stream;
use self::post::Ports;
use self::weather::{Halt, MailServer, PushServer};
use super::support::client::{Client, quoted};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{Dovecot, Setup};
use super::support::network::{Manner, Network};
use super::support::news::{self as told, Hook, Way};

/// Quantities of a run.
#[derive(Clone, Copy, Debug)]
struct Plan {
    accounts: usize,
    stream: Stream,
    /// Between two kills.
    kill_every: Span,
    /// Between two faults at the mail server or on the way there.
    mail_gap: Span,
    /// Between two faults at the notification server or on the way there.
    push_gap: Span,
    /// True if some announcements fail although the server is well, so that they wait for minutes, and if connections that are
    /// dead without a sign stay so to the end, until a renewed IDLE finds them.
    patient: bool,
    /// Duration of the last faults after the deliveries under them.
    finale_lasts: Duration,
    /// Time limit for the last announcement after the last fault.
    patience: Duration,
}

/// Messages of a burst.
const BURST: usize = 4;

/// Part of every test run.
const SHORT: Plan = Plan {
    accounts: 20,
    stream: Stream { messages: 300, senders: 6, pause: Span(100, 700) },
    kill_every: Span(2_000, 8_000),
    mail_gap: Span(300, 2_000),
    push_gap: Span(500, 2_000),
    patient: false,
    finale_lasts: Duration::from_millis(1_500),
    patience: Duration::from_secs(180),
};

/// The same where the mail server tells: shorter, because POSTs and their faults are the same for all.
const SHORT_NEWS: Plan = Plan {
    accounts: 10,
    stream: Stream { messages: 100, senders: 4, pause: Span(50, 400) },
    kill_every: Span(300, 1_500),
    mail_gap: Span(300, 1_000),
    finale_lasts: Duration::from_millis(500),
    ..SHORT
};

const LONG: Plan = Plan {
    accounts: 50,
    stream: Stream { messages: 2_500, senders: 8, pause: Span(0, 2_000) },
    kill_every: Span(2_000, 40_000),
    mail_gap: Span(500, 12_000),
    push_gap: Span(500, 12_000),
    patient: true,
    finale_lasts: Duration::from_secs(20),
    // A token whose POST fails three times while the server is well is posted again after 512 s and a quarter; an upstream
    // that was away for long is asked again after 300 s.
    patience: Duration::from_secs(900),
};

/// Two accounts that share a device, the first of them with one more of its own; every seventh account is sent nothing that
/// deserves a push; every third has two devices.
fn accounts(dovecot: &Dovecot, count: usize, source: Source) -> Vec<Account> {
    let account = |index: usize| {
        let devices = if index.is_multiple_of(3) { 2 } else { 1 };
        let mut tokens: Vec<String> =
            (0..devices).map(|device| format!("openpgp:{index}-{device}")).collect();
        if index < 2 {
            tokens[0] = "openpgp:shared".to_owned();
        }
        let user = dovecot.user(&format!("faults-{index}"));
        // Dovecot's Lua script hands over the sender alone, which does not tell an automatic reply.
        let gets_replies = matches!(source, Source::Idle(_));
        Account { user, tokens, quiet: index % 7 == 6, gets_replies }
    };
    (0..count).map(account).collect()
}

/// All that takes part, apart from the programs that are killed and restarted.
struct FaultScene {
    plan: Plan,
    ports: Ports,
    accounts: Vec<Account>,
    to_dovecot: Arc<Network>,
    notifications: Arc<Notifications>,
    /// Visits of devices, if no password is stored.
    visits: Option<Arc<Visits>>,
    /// Where nobody watches: deltapush's port in plain text, for clients that come after the faults.
    clients: Option<u16>,
    to_notifications: Arc<Network>,
}

/// How deltapush hears of mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// By watches, with these credentials.
    Idle(&'static str),
    /// By the mail server's news, with this value of `news`.
    News(&'static str),
}

impl Source {
    fn keeps_sessions(self) -> bool {
        self == Self::Idle("none")
    }

    /// Without a watch, devices are woken for what was not told when a client opens the mailbox.
    fn waits_for_clients(self) -> bool {
        self == Self::News("server")
    }
}

/// Registers every device as Delta Chat does, and waits until all mailboxes are watched.
async fn register(accounts: &[Account], dovecot: &Dovecot, deltapush: &Deltapush, source: Source) {
    for account in accounts {
        for token in &account.tokens {
            let mut client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
            client.log_in(&account.user).await;
            let entry = format!("c2 SETMETADATA INBOX (/private/devicetoken {})", quoted(token));
            let reply = client.command(&entry).await;
            assert!(reply.result.starts_with("OK"), "{reply:?}");
            if source.waits_for_clients() {
                let reply = client.command("c3 SELECT INBOX").await;
                assert!(reply.result.starts_with("OK"), "{reply:?}");
            }
        }
    }
    for account in accounts.iter().filter(|_| !source.waits_for_clients()) {
        dovecot.wait_for_watch(&account.user, 1).await;
    }
}

/// Delivers all messages.
async fn deliver_all(scene: &Arc<FaultScene>, rng: &mut Rng) -> Vec<Delivered> {
    let delivered = Arc::<Mutex<Vec<Delivered>>>::default();
    let (stream, scene, all) = (scene.plan.stream, Arc::clone(scene), Arc::clone(&delivered));
    let deliver = move |mut rng: Rng| {
        let (scene, all) = (Arc::clone(&scene), Arc::clone(&all));
        async move {
            let account = rng.usize(0..scene.accounts.len());
            let kind = scene.accounts[account].kind(&mut rng);
            let one = post::put(scene.ports, &scene.accounts, account, kind).await;
            all.lock().unwrap().push(one);
        }
    };
    stream.run(rng, deliver).await;
    delivered.lock().unwrap().clone()
}

/// The last faults, under which each account is sent a few messages close together, and then nothing any more: what is lost
/// there is not made good by the next message.
#[derive(Clone, Copy, Debug)]
enum Finale {
    /// All answers are late: news comes between two looks, and while a POST is under way.
    Late,
    /// Nothing is accepted, and connections to the mail server are cut.
    Failing,
}

async fn bursts(scene: &Arc<FaultScene>, finale: Finale, rng: &mut Rng) -> Vec<Delivered> {
    match finale {
        Finale::Late => {
            scene.to_dovecot.all(Manner::Delayed(Duration::from_millis(150)));
            scene.notifications.day(Day::Slow);
        }
        Finale::Failing => {
            scene.to_dovecot.some(50, Manner::Reset, rng);
            scene.notifications.day(Day::Failing);
        }
    }
    let sending: Vec<_> = (0..scene.accounts.len())
        .map(|account| tokio::spawn(burst(Arc::clone(scene), account, rng.fork())))
        .collect();
    let mut delivered = Vec::new();
    for burst in sending {
        delivered.extend(burst.await.unwrap());
    }
    sleep(scene.plan.finale_lasts).await;
    scene.notifications.day(Day::Good);
    scene.to_dovecot.heal();
    delivered
}

async fn burst(scene: Arc<FaultScene>, index: usize, mut rng: Rng) -> Vec<Delivered> {
    let account = &scene.accounts[index];
    let mut delivered = Vec::new();
    for _ in 0..BURST {
        sleep(Duration::from_millis(rng.u64(0..1_000))).await;
        let kind = if account.quiet { account.kind(&mut rng) } else { Kind::News };
        delivered.push(post::put(scene.ports, &scene.accounts, index, kind).await);
    }
    delivered
}

impl FaultScene {
    fn tally(&self, delivered: &[Delivered]) -> Tally {
        let knows = |user: &str, token: &str, message| {
            self.visits.as_ref().is_some_and(|visits| visits.know(user, token, message))
        };
        ledger::compare(&self.accounts, delivered, &self.notifications.accepted(), knows)
    }

    /// Waits until nothing is missing, or for as long as the plan allows.
    async fn settle(&self, delivered: &[Delivered]) -> Tally {
        let deadline = Instant::now() + self.plan.patience;
        if let Some(port) = self.clients {
            news::clients_come(&self.accounts, port).await;
        }
        loop {
            let tally = self.tally(delivered);
            if tally.missing.is_empty() || Instant::now() > deadline {
                return tally;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A last message for each account: it is watched, those accounts, too, of which no notification came so far.
    async fn last_round(&self, delivered: &mut Vec<Delivered>) {
        for index in 0..self.accounts.len() {
            delivered.push(post::put(self.ports, &self.accounts, index, Kind::News).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_push_is_lost_whatever_breaks() {
    run(Source::Idle("sealed")).await;
}

/// Here nobody can know of a message that comes while no session can be there: it is announced at the latest when a device has
/// returned, or is called back. And accounts that have nothing to announce are called back, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_push_is_lost_where_sessions_are_kept() {
    run(Source::Idle("none")).await;
}

/// The mail server tells of each message, and watches find what it left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_push_is_lost_where_the_mail_server_tells_and_watches_are_the_net() {
    run(Source::News("both")).await;
}

/// The mail server tells of each message, and nobody watches: what it could not tell is announced when a client comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_push_is_lost_for_longer_than_until_a_client_comes_where_the_mail_server_tells() {
    run(Source::News("server")).await;
}

async fn run(source: Source) {
    let keeps_sessions = source.keeps_sessions();
    let plan = match source {
        _ if plan::is_long() => LONG,
        Source::Idle(_) => SHORT,
        Source::News(_) => SHORT_NEWS,
    };
    let seed = plan::seed();
    let began = Instant::now();
    let mut rng = Rng::with_seed(seed);

    let hook = Hook::new();
    let dovecot = match source {
        Source::Idle(_) => Dovecot::exclusive(Setup::Vanilla),
        Source::News(_) => told::dovecot(Way::Lua, &hook),
    };
    let notifications = Arc::new(Notifications::start().await);
    let to_dovecot = Arc::new(Network::start(dovecot.imaps).await);
    let to_notifications = Arc::new(Network::start(notifications.port).await);
    let options = news::options(source, &dovecot, to_dovecot.port, &hook);
    let deltapush = Deltapush::start(&Options {
        notify_url: format!("http://127.0.0.1:{}/notify", to_notifications.port),
        coalesce: "1s",
        idle_renewal: "30s",
        ..options
    });
    let ports = Ports { imap: dovecot.imap, lmtp: dovecot.lmtp };
    let accounts = accounts(&dovecot, plan.accounts, source);
    register(&accounts, &dovecot, &deltapush, source).await;
    let visits = keeps_sessions.then(|| phones(&accounts, deltapush.plain, &notifications));
    let clients = source.waits_for_clients().then_some(deltapush.plain);
    let scene = Arc::new(FaultScene {
        plan,
        ports,
        accounts,
        to_dovecot,
        notifications,
        visits,
        clients,
        to_notifications,
    });

    let (over, is_over) = watch::channel(false);
    let halts = match source {
        Source::Idle(_) => [Halt::Kill].as_slice(),
        Source::News(_) => &[Halt::Kill, Halt::Stop, Halt::FullDisk],
    };
    let killing = Lane::new(deltapush, halts, plan.kill_every, rng.fork());
    let mail_server = MailServer { dovecot, network: Arc::clone(&scene.to_dovecot) };
    let breaking_mail =
        Lane::new(mail_server, weather::mail_faults(source), plan.mail_gap, rng.fork());
    let push_server = PushServer {
        notifications: Arc::clone(&scene.notifications),
        network: Arc::clone(&scene.to_notifications),
    };
    let push_faults = weather::push_faults(source, plan.patient);
    let breaking_pushes = Lane::new(push_server, &push_faults, plan.push_gap, rng.fork());
    let killing = tokio::spawn(killing.run_all(is_over.clone()));
    let breaking_mail = tokio::spawn(breaking_mail.run_all(is_over.clone()));
    let breaking_pushes = tokio::spawn(breaking_pushes.run_all(is_over));
    let mut delivered = deliver_all(&scene, &mut rng).await;
    over.send_replace(true);
    let Lane { part: deltapush, count: killed, .. } = killing.await.unwrap();
    let Lane { part: mail_server, count: broken_mail, .. } = breaking_mail.await.unwrap();
    let broken_pushes = breaking_pushes.await.unwrap().count;
    if !plan.patient {
        scene.to_dovecot.reset_half_open();
        scene.to_notifications.reset_half_open();
    }

    let healed = Instant::now();
    let mut tally = scene.settle(&delivered).await;
    let settled = healed.elapsed();
    let finales = match source {
        Source::Idle(_) => [Finale::Late, Finale::Failing].as_slice(),
        Source::News(_) => &[Finale::Late],
    };
    for finale in finales.iter().copied() {
        // Further messages would make good what is missing.
        if tally.missing.is_empty() {
            delivered.extend(bursts(&scene, finale, &mut rng).await);
            tally = scene.settle(&delivered).await;
        }
    }
    // Surplus pushes come at the end of a window.
    sleep(Duration::from_secs(3)).await;
    let tally = Tally { missing: tally.missing, ..scene.tally(&delivered) };
    scene.last_round(&mut delivered).await;
    let last = scene.settle(&delivered).await;

    let mut report = format!(
        "\n| faults, seed {seed} | {} accounts, {:.0} s |\n| --- | ---: |\n",
        plan.accounts,
        began.elapsed().as_secs_f32()
    );
    for (lane, count) in [("", &killed), ("mail: ", &broken_mail), ("push: ", &broken_pushes)] {
        describe(lane, count, &mut report);
    }
    writeln!(report, "| POSTs answered with a failure | {:>6} |", scene.notifications.refused())
        .unwrap();
    if let Some(visits) = &scene.visits {
        writeln!(report, "| devices that were there for themselves | {:>6} |", visits.count())
            .unwrap();
    }
    writeln!(
        report,
        "{tally}\n| from the last fault to the last announcement | {:>4.1} s |",
        settled.as_secs_f32()
    )
    .unwrap();
    eprintln!("{report}");

    assert!(
        tally.missing.is_empty(),
        "seed {seed}: not announced:\n{}\n{}",
        list(&tally.missing),
        mail_server.dovecot.log()
    );
    // A client shows how far a mailbox goes, not what is in it.
    let may_be_for_nothing = keeps_sessions || source.waits_for_clients();
    assert!(
        may_be_for_nothing || tally.nuisances.is_empty(),
        "seed {seed}: announced, although there was nothing: {:?}",
        tally.nuisances
    );
    assert!(
        last.missing.is_empty(),
        "seed {seed}: not watched any more in the end:\n{}",
        list(&last.missing)
    );
    assert_eq!(scene.notifications.strange(), Vec::<String>::new());
    // Its log is shown if something failed before this.
    drop(deltapush);
}

/// The devices of all accounts, each of which comes when it is woken.
fn phones(accounts: &[Account], port: u16, notifications: &Arc<Notifications>) -> Arc<Visits> {
    let visits = Arc::new(Visits::default());
    let tokens: BTreeSet<&String> = accounts.iter().flat_map(|account| &account.tokens).collect();
    for token in tokens {
        let owners = accounts.iter().filter(|account| account.tokens.contains(token));
        let users = owners.map(|account| account.user.clone()).collect();
        let phone = Phone { port, users, token: token.clone() };
        tokio::spawn(phone::live(phone, Arc::clone(notifications), Arc::clone(&visits)));
    }
    visits
}

fn describe(lane: &str, count: &Count, report: &mut String) {
    for (name, count) in count {
        writeln!(report, "| {lane}{name} | {count:>6} |").unwrap();
    }
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(|missing| format!("{missing}\n")).collect()
}
