//! Start, kill and start again, cut: and the table.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::common::accounts::token;
use super::common::process::Process;
use super::common::server::LoadServer;
use super::program::{Program, Upstream};
use super::support::certs::Authority;
use super::support::notify::NotifyServer;

/// Time limit for all to come back.
const PATIENCE: Duration = Duration::from_secs(900);

/// Every so many-th account receives a message while it is not watched.
const WITH_NEWS: usize = 10;

/// Descriptors other than those of connections.
const OTHER_FILES: u64 = 100;

/// Measures all, and prints a table.
///
/// # Errors
/// If an account is not watched, or a message not announced.
pub(crate) async fn all(accounts: usize, tls: bool) -> Result<()> {
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    ensure!(
        limit >= accounts as u64 + OTHER_FILES,
        "{limit} open files are too few for {accounts} accounts"
    );
    let folder = tempfile::Builder::new().prefix("deltapush-bench-").tempdir()?;
    let authority = Authority::new(folder.path());
    let server =
        LoadServer::start(accounts, tls.then(|| TlsAcceptor::from(authority.server_config())))?;
    let notifications = NotifyServer::start().await;
    let upstream =
        Upstream { port: server.port, ca: tls.then(|| authority.ca.clone()), hook: None };
    let mut program =
        Program::prepare(folder.path(), &upstream, &notifications.url, accounts, "").await?;
    let news: Vec<usize> = (0..accounts).step_by(WITH_NEWS).collect();
    let bench = Bench { server, notifications, accounts };

    println!(
        "{accounts} accounts at one server, TLS: {}; {} of them with news",
        if tls { "yes" } else { "no" },
        news.len()
    );
    println!(
        "| | all watched after | new sessions in the busiest second | sessions in all | all announced after | RSS | PSS |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    program.start()?;
    bench.come_back("started", &program, &[]).await?;

    program.kill()?;
    bench.wait_until(|| bench.server.watched() == 0).await?;
    news.iter().for_each(|account| bench.server.deliver(*account));
    program.start()?;
    bench.come_back("killed, started again", &program, &news).await?;

    bench.server.cut();
    bench.wait_until(|| bench.server.watched() < accounts / 2).await?;
    news.iter().for_each(|account| bench.server.deliver(*account));
    bench.come_back("all connections cut", &program, &news).await
}

struct Bench {
    server: LoadServer,
    notifications: NotifyServer,
    accounts: usize,
}

impl Bench {
    /// Waits until all accounts are watched and what is new is announced, and prints a line.
    async fn come_back(&self, name: &str, program: &Program, news: &[usize]) -> Result<()> {
        let began = Instant::now();
        let before = self.notifications.posted().len();
        self.wait_until(|| self.server.watched() == self.accounts).await?;
        let watched = began.elapsed();
        let announced = || {
            let posted = self.notifications.posted();
            let tokens: HashSet<&str> =
                posted.iter().skip(before).map(|posted| posted.token.as_str()).collect();
            news.iter().all(|account| tokens.contains(token(*account).as_str()))
        };
        self.wait_until(announced).await?;
        let posted = self.notifications.posted();
        let last = posted
            .last()
            .filter(|_| !news.is_empty())
            .map(|last| last.at.saturating_duration_since(began));
        // Those with news leave IDLE for it.
        self.wait_until(|| self.server.watched() == self.accounts).await?;
        let (peak, sessions) = self.server.take_peak();
        let process = Process::of(program.pid()?);
        let (rss, pss) = (process.resident()?, process.pss()?);
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f32());
        let mib = |bytes: u64| format!("{} MiB", bytes / (1024 * 1024));
        println!(
            "| {name} | {} | {peak} | {sessions} | {} | {} | {} |",
            seconds(watched),
            last.map_or_else(|| "–".to_owned(), seconds),
            mib(rss),
            mib(pss)
        );
        match posted.len() - before - news.len() {
            0 => {}
            surplus => println!("\n{surplus} of these messages were announced twice\n"),
        }
        Ok(())
    }

    async fn wait_until(&self, condition: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            ensure!(
                Instant::now() < deadline,
                "after {} s {} of {} accounts are watched, {} notifications were posted",
                PATIENCE.as_secs(),
                self.server.watched(),
                self.accounts,
                self.notifications.posted().len()
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}
