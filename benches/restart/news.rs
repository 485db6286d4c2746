//! Accounts of which the mail server tells: their memory, and news at a steady pace while deltapush has one core.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::common::accounts::token;
use super::common::process::Process;
use super::common::server::LoadServer;
use super::program::{Program, Upstream};
use super::support::notify::NotifyServer;
use super::support::ports::{ReservedPort, wait_for_port};

/// News in a second.
const PACE: usize = 100;

/// Time limit for the last of the pushes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A deltapush with accounts, and its peers.
struct Told {
    hook: u16,
    server: LoadServer,
    notifications: NotifyServer,
    program: Program,
    _reserved: ReservedPort,
    _folder: tempfile::TempDir,
}

impl Told {
    async fn start(accounts: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("deltapush-bench-").tempdir()?;
        let server = LoadServer::start(accounts.max(1), None)?;
        let notifications = NotifyServer::start().await;
        let reserved = ReservedPort::new();
        let hook = reserved.number();
        let upstream = Upstream { port: server.port, ca: None, hook: Some(hook) };
        let mut program =
            Program::prepare(folder.path(), &upstream, &notifications.url, accounts, "").await?;
        program.start()?;
        ensure!(wait_for_port(hook, PATIENCE), "nobody listens on the port of the hook");
        let mut told =
            Self { hook, server, notifications, program, _reserved: reserved, _folder: folder };
        // The accounts were watched before: at the first start, their passwords are erased.
        told.memory().await?;
        told.program.kill()?;
        told.program.start()?;
        ensure!(wait_for_port(hook, PATIENCE), "nobody listens on the port of the hook");
        Ok(told)
    }

    /// Memory once nothing happens any more.
    async fn memory(&self) -> Result<u64> {
        let process = Process::of(self.program.pid()?);
        let mut before = Duration::MAX;
        while before != process.processor_time()? {
            before = process.processor_time()?;
            sleep(Duration::from_secs(1)).await;
        }
        process.pss()
    }
}

/// Measures all, and prints it.
///
/// # Errors
/// If a session is opened, or news refused or not pushed.
pub(crate) async fn all(accounts: usize, seconds: usize) -> Result<()> {
    let empty = Told::start(0).await?.memory().await?;
    let told = Told::start(accounts).await?;
    let idle = told.memory().await?;
    let pace = at_a_steady_pace(&told, accounts, seconds).await?;
    let after = told.memory().await?;
    let (_, sessions) = told.server.take_peak();
    ensure!(sessions == 0, "{sessions} sessions at the mail server");
    let kib = |bytes: u64| bytes.saturating_sub(empty) / 1024;
    println!("\n{accounts} accounts of which the mail server tells; no session was opened\n");
    println!("| | |\n| --- | ---: |");
    println!("| memory of the accounts (PSS), nothing told | {} KiB |", kib(idle));
    println!("| … after {} messages | {} KiB |", pace.messages, kib(after));
    println!(
        "| {PACE} messages a second, one core: news to answer, median | {} |",
        percentile(&pace.answers, 50)
    );
    println!("| … 99th percentile | {} |", percentile(&pace.answers, 99));
    println!("| … news to POST, median | {} |", percentile(&pace.waits, 50));
    println!("| … 99th percentile | {} |", percentile(&pace.waits, 99));
    println!("| … processor | {:.1} % of a core |", pace.processor * 100.0);
    Ok(())
}

struct Pace {
    messages: usize,
    /// From the first byte of the news to the POST, in order.
    waits: Vec<Duration>,
    /// From there to the answer, in order.
    answers: Vec<Duration>,
    processor: f64,
}

/// One of times in order.
fn percentile(times: &[Duration], percent: usize) -> String {
    let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
    format!("{:.2} ms", times[index].as_secs_f64() * 1e3)
}

async fn at_a_steady_pace(told: &Told, accounts: usize, seconds: usize) -> Result<Pace> {
    let pid = told.program.pid()?;
    let pinned = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", "0", &pid.to_string()])
        .output()?;
    ensure!(pinned.status.success(), "{pinned:?}");
    let process = Process::of(pid);
    let (began, before) = (Instant::now(), process.processor_time()?);
    let messages = PACE * seconds;
    let mut tick = interval(Duration::from_secs(1) / u32::try_from(PACE)?);
    // A pace that the sender cannot keep is made good, not stretched.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut telling = JoinSet::new();
    for number in 0..messages {
        tick.tick().await;
        let uid = 2 + number / accounts;
        telling.spawn(tell(told.hook, number % accounts, uid));
    }
    let mut sent: HashMap<String, Vec<Instant>> = HashMap::new();
    let mut answers = Vec::with_capacity(messages);
    while let Some(told) = telling.join_next().await {
        let (account, at, answered) = told??;
        sent.entry(token(account)).or_default().push(at);
        answers.push(answered);
    }
    answers.sort_unstable();
    let took = began.elapsed();
    let processor = (process.processor_time()? - before).as_secs_f64() / took.as_secs_f64();
    let deadline = Instant::now() + PATIENCE;
    while told.notifications.posted().len() < messages {
        ensure!(
            Instant::now() < deadline,
            "{} of {messages} pushes came",
            told.notifications.posted().len()
        );
        sleep(Duration::from_millis(20)).await;
    }
    sent.values_mut().for_each(|sent| sent.sort_unstable());
    let mut posted: HashMap<String, Vec<Instant>> = HashMap::new();
    for one in told.notifications.posted() {
        posted.entry(one.token).or_default().push(one.at);
    }
    let mut waits = Vec::with_capacity(messages);
    for (token, sent) in &sent {
        let posted = posted.get(token).context("an account was not pushed")?;
        ensure!(posted.len() == sent.len(), "{} pushes for {} messages", posted.len(), sent.len());
        waits.extend(
            sent.iter().zip(posted).map(|(sent, posted)| posted.saturating_duration_since(*sent)),
        );
    }
    waits.sort_unstable();
    Ok(Pace { messages, waits, answers, processor })
}

/// Tells of a message as a delivery does: in a connection of its own. Returns when it began, and how long
/// the answer took.
async fn tell(port: u16, account: usize, uid: usize) -> Result<(usize, Instant, Duration)> {
    let body = format!(
        r#"{{"name":"u{account}@lab.test","mailbox":"INBOX","uid":{uid},"uid_validity":1,"from":"bob@elsewhere.test"}}"#
    );
    let request = format!(
        "POST /v1/news HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let began = Instant::now();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok((account, began, began.elapsed()))
}
