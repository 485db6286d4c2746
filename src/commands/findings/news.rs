//! News of the mail server: the routes that take it, the ways in which it comes, and whether the mail server tells.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::super::Fault;
use super::dovecot::DovecotFacts;
use super::{Finding, listed};
use crate::admin::format::{ago, counted};
use crate::admin::report::{AccountReport, NewsReport, StatusReport};
use crate::config::{Config, NewsSource, StartupConfig};

const SUBJECT: &str = "news";

/// Time limit of a connection to the hook.
const TIME: Duration = Duration::from_secs(5);

/// Problems that are shown; `status` has all.
const MAX_SHOWN: usize = 5;

/// Keys that do not fit together: each works, and not as the operator may expect.
pub(in super::super) fn mismatches(config: &Config) -> Vec<Finding> {
    let takes_news = takes_news(config);
    let has_way = !ways(&config.startup).is_empty();
    let nobody_tells = (takes_news && !has_way).then(|| {
        Finding::warn(
            SUBJECT,
            "a route has `news: server` or `news: both`, and the mail server has no way to tell",
            "set `news.listen`, `news.socket` or `news.dict`: docs/news.md",
        )
    });
    let nobody_hears = (!takes_news && has_way).then(|| {
        Finding::warn(
            SUBJECT,
            format!(
                "the mail server can tell by {}, and no route takes it",
                listed(&ways(&config.startup))
            ),
            "set `news: both` or `news: server` in its route",
        )
    });
    let without_grace = (takes_news && !config.live.push.grace.is_zero()).then(|| {
        Finding::warn(
            SUBJECT,
            "`push.grace` has no effect on what the mail server tells: devices are woken at once",
            "remove it, or use `news: idle`",
        )
    });
    [nobody_tells, nobody_hears, without_grace].into_iter().flatten().collect()
}

fn takes_news(config: &Config) -> bool {
    config.live.routes.iter().any(|route| route.news != NewsSource::Idle)
}

/// The keys of the ways that are configured.
fn ways(startup: &StartupConfig) -> Vec<&'static str> {
    let news = &startup.news;
    let ways = [
        news.listen.is_some().then_some("news.listen"),
        news.socket.is_some().then_some("news.socket"),
        news.dict.is_some().then_some("news.dict"),
    ];
    ways.into_iter().flatten().collect()
}

/// Facts about the ways and the mail server.
#[derive(Debug)]
pub(in super::super) struct NewsFacts {
    /// Each configured way, and why it does not answer.
    ways: Vec<(String, Result<(), String>)>,
    dovecot: Option<DovecotFacts>,
    /// The script that Dovecot is to run, and why it cannot be read.
    script: Option<(PathBuf, Result<(), String>)>,
}

/// Looks at the ways of a deltapush that runs with `config`. `None` if no route takes news.
pub(in super::super) async fn look(config: &Config) -> Option<NewsFacts> {
    if !takes_news(config) {
        return None;
    }
    let news = &config.startup.news;
    let words = |error: std::io::Error| error.to_string();
    let hook = news.listen.as_deref().map(|address| {
        let answer = TcpStream::connect_timeout(&reached_at(*address), TIME);
        (format!("the hook at {address}"), answer.map(drop).map_err(words))
    });
    let socket = |path: &PathBuf| {
        (path.display().to_string(), UnixStream::connect(path).map(drop).map_err(words))
    };
    let sockets = [&news.socket, &news.dict].into_iter().flatten().map(socket);
    let ways = hook.into_iter().chain(sockets).collect();
    let dovecot = DovecotFacts::look().await;
    let script = dovecot.as_ref().and_then(DovecotFacts::script);
    let readable = |path: &Path| std::fs::File::open(path).map(drop).map_err(words);
    let script = script.map(|path| (path.to_owned(), readable(path)));
    Some(NewsFacts { ways, script, dovecot })
}

/// The address by which this machine reaches a listener.
fn reached_at(address: SocketAddr) -> SocketAddr {
    let local = match address.ip() {
        ip if !ip.is_unspecified() => return address,
        ip if ip.is_ipv4() => std::net::Ipv4Addr::LOCALHOST.into(),
        _ => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(local, address.port())
}

/// Judges the ways, and the accounts of the running deltapush.
pub(in super::super) fn judge(facts: &NewsFacts, report: &StatusReport) -> Vec<Finding> {
    let closed = facts.ways.iter().filter_map(|(way, answer)| {
        let error = answer.as_ref().err()?;
        Some(Finding::fail(
            Fault::Unavailable,
            SUBJECT,
            format!("{way} does not answer: {error}"),
            "the log of deltapush has the reason from its start (`journalctl -u deltapush`); a changed address takes a restart",
        ))
    });
    let script = facts.script.iter().filter_map(|(path, readable)| {
        let error = readable.as_ref().err()?;
        Some(Finding::fail(
            Fault::Configuration,
            SUBJECT,
            format!("Dovecot cannot run {}: {error}", path.display()),
            "install the file, or correct its path in Dovecot's configuration: docs/news-dovecot.md",
        ))
    });
    closed.chain(script).chain(judge_accounts(facts, report)).collect()
}

fn judge_accounts(facts: &NewsFacts, report: &StatusReport) -> Vec<Finding> {
    let told: Vec<(&AccountReport, &NewsReport)> = report
        .accounts
        .iter()
        .filter_map(|account| Some((account, account.news.as_ref()?)))
        .collect();
    let Some(last) = told.iter().filter_map(|(_, news)| news.last).max() else {
        return nothing_told(facts, told.len()).into_iter().collect();
    };
    let silent: Vec<_> = told.iter().filter(|(_, news)| news.is_silent()).collect();
    let more = silent.len().saturating_sub(MAX_SHOWN);
    let mut findings = vec![told_lately(told.len(), last, report.at)];
    findings.extend(
        silent.iter().take(MAX_SHOWN).map(|(account, news)| silence(account, news, report.at)),
    );
    if more > 0 {
        let words = format!(
            "{} of which the mail server tells nothing",
            counted(more as u64, "further account")
        );
        findings.push(Finding::warn(SUBJECT, words, "deltapush status"));
    }
    findings
}

fn told_lately(accounts: usize, last: Timestamp, now: Timestamp) -> Finding {
    let accounts = counted(accounts as u64, "account");
    Finding::ok(
        SUBJECT,
        format!("the mail server tells of {accounts}; the last time {}", ago(last, now)),
    )
}

/// Mail servers tell of what comes: without a message there is nothing to tell.
fn nothing_told(facts: &NewsFacts, accounts: usize) -> Option<Finding> {
    let words = "the mail server has told of no message since the start";
    match &facts.dovecot {
        Some(dovecot) if dovecot.news_settings().is_empty() => Some(Finding::warn(
            SUBJECT,
            format!("{words}; the Dovecot of this machine has no settings for it"),
            "docs/news-dovecot.md has them; then: systemctl reload dovecot",
        )),
        // Nothing is known of accounts that are watched as well, until a message comes.
        _ if accounts == 0 => None,
        _ => Some(Finding::warn(
            SUBJECT,
            words,
            "if mail has come since, see the mail server's log, and try `deltapush news ADDRESS </dev/null`",
        )),
    }
}

fn silence(account: &AccountReport, news: &NewsReport, now: Timestamp) -> Finding {
    Finding::warn(
        SUBJECT,
        format!("{} at {}: {}", account.name, account.server, news.words(now)),
        NewsReport::REMEDY,
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpSocket;

    use super::*;
    use crate::admin::snapshot_tests;
    use crate::commands::findings::Verdict;

    const ROUTE: &str = "routes: [{domain: a.example, upstream: imaps://a.example, news: both}]\n";

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("/"), "test").unwrap()
    }

    #[test]
    fn keys_that_have_no_effect_are_named() {
        let words = |text: &str| {
            mismatches(&config(text)).into_iter().map(|finding| finding.words).collect::<Vec<_>>()
        };
        assert!(words("{}").is_empty());
        let with_way = format!("{ROUTE}news: {{socket: /run/deltapush/news.sock}}\n");
        assert!(words(&with_way).is_empty());
        assert!(words(ROUTE).concat().contains("has no way to tell"));
        let nobody_hears = words("news: {listen: 127.0.0.1:1981, dict: /run/x}\n").concat();
        assert!(
            nobody_hears.contains("by news.listen and news.dict, and no route"),
            "{nobody_hears}"
        );
        let grace = words(&format!("{with_way}push: {{grace: 2s}}\n"));
        assert!(
            grace.len() == 1 && grace.concat().contains("`push.grace` has no effect"),
            "{grace:?}"
        );
    }

    #[tokio::test]
    async fn way_that_does_not_answer_is_a_failure() {
        // Nobody else gets the port, and until it listens it refuses connections.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let text = format!("{ROUTE}news: {{listen: \"{address}\"}}\n");
        let failures = |facts: &NewsFacts| {
            let found = judge(facts, &snapshot_tests::well());
            found.into_iter().filter(Finding::is_failure).count()
        };
        let closed = look(&config(&text)).await.unwrap();
        assert_eq!(failures(&closed), 1);
        let _listener = socket.listen(8).unwrap();
        let open = look(&config(&text)).await.unwrap();
        assert_eq!(failures(&open), 0);
        assert!(look(&config("{}")).await.is_none());
    }

    fn facts(settings: &str) -> NewsFacts {
        let dovecot = DovecotFacts {
            version: "2.3.19".into(),
            file: "/etc/dovecot/dovecot.conf".into(),
            settings: settings.to_owned(),
            has_lua: true,
        };
        NewsFacts { ways: vec![], script: None, dovecot: Some(dovecot) }
    }

    #[test]
    fn mail_server_that_does_not_tell_is_named_with_what_helps() {
        let mut report = snapshot_tests::well();
        let at = report.at;
        let judged = |report: &StatusReport, settings: &str| judge(&facts(settings), report);
        let news = |last: Option<u64>, missed: Option<u64>| {
            let before = |seconds| at - Duration::from_secs(seconds);
            let missed_at = missed.map(before);
            let missed = missed.map_or(0, |_| 2);
            Some(NewsReport { last: last.map(before), missed, missed_at })
        };
        report.accounts[0].news = news(None, None);
        let never = judged(&report, "");
        assert!(never[0].words.ends_with("has no settings for it"), "{never:?}");
        let never = judged(&report, "lua_file = /x/deltapush.lua");
        assert!(never[0].remedy.as_ref().unwrap().contains("deltapush news"), "{never:?}");
        report.accounts[0].news = news(Some(60), Some(3600));
        let well = judged(&report, "");
        assert!(well.len() == 1 && well[0].verdict == Verdict::Ok, "it tells again: {well:?}");
        report.accounts[0].news = news(Some(3600), Some(60));
        report.accounts = vec![report.accounts[0].clone(); 7];
        let silent = judged(&report, "");
        assert_eq!(silent.len(), 1 + MAX_SHOWN + 1);
        assert!(silent[1].words.contains("did not tell of 2 messages"), "{silent:?}");
    }

    #[test]
    fn script_that_cannot_be_read_is_a_failure() {
        let script = Some((PathBuf::from("/x/deltapush.lua"), Err("no such file".to_owned())));
        let found = judge(&NewsFacts { script, ..facts("") }, &snapshot_tests::well());
        assert!(found[0].is_failure() && found[0].words.contains("/x/deltapush.lua"), "{found:?}");
    }
}
