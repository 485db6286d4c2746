//! The accounts of the running deltapush: tokens, watches, and what happens to idle connections.

use std::time::Duration;

use super::{Finding, listed};
use crate::admin::format::{counted, rounded};
use crate::admin::report::{AccountReport, LostReport, StatusReport};

const SUBJECT: &str = "accounts";
const IDLE: &str = "idle";

/// Lost sessions of an account that are no accident: a mail server that is restarted loses one.
const REPEATED: u32 = 3;

/// Problems that are shown; `status` has all.
const MAX_SHOWN: usize = 5;

/// Judges the accounts.
pub(in super::super) fn judge(report: &StatusReport) -> Vec<Finding> {
    let mut findings = vec![tokens(report)];
    let problems: Vec<_> = report.accounts.iter().filter_map(problem).collect();
    let more = problems.len().saturating_sub(MAX_SHOWN);
    findings.extend(problems.into_iter().take(MAX_SHOWN));
    if more > 0 {
        findings.push(Finding::warn(
            SUBJECT,
            format!("{} with a problem", counted(more as u64, "further account")),
            "deltapush status",
        ));
    }
    findings
}

fn tokens(report: &StatusReport) -> Finding {
    let counts = &report.counts;
    let without = report.tokenless.len();
    if counts.accounts == 0 {
        let words = match without {
            0 => "no app has logged in yet".to_owned(),
            count => {
                format!("{} without a push token: no push comes", counted(count as u64, "account"))
            }
        };
        return Finding::warn(
            SUBJECT,
            words,
            "scan the code of `deltapush qr ADDRESS` with Delta Chat; its builds from F-Droid and for desktops have no token",
        );
    }
    let watched = format!(
        "{} with a device, {} watched",
        counted(counts.accounts as u64, "account"),
        counts.watched
    );
    let without = match without {
        0 => String::new(),
        count => format!("; {} whose apps have no push token", counted(count as u64, "account")),
    };
    Finding::ok(SUBJECT, watched + &without)
}

fn problem(account: &AccountReport) -> Option<Finding> {
    let problem = account.problem.as_ref()?;
    let words = format!("{} at {}: {}", account.name, account.server, problem.words);
    Some(Finding::warn(SUBJECT, words, problem.cure.clone()))
}

/// Judges the connections that wait for new mail, with the time after which deltapush renews IDLE, and that of keepalives to clients.
pub(in super::super) fn judge_idle(
    report: &StatusReport,
    renewal: Duration,
    keepalive: Option<Duration>,
) -> Finding {
    let lost: Vec<(&str, LostReport)> = report
        .accounts
        .iter()
        .filter_map(|account| Some((account.server.as_str(), account.watch.lost?)))
        .filter(|(_, lost)| lost.count >= REPEATED)
        .collect();
    let clients = keepalive.map_or("none, the mail server decides".to_owned(), rounded);
    let Some(shortest) = lost.iter().map(|(_, lost)| lost.quiet_seconds).min() else {
        return Finding::ok(
            IDLE,
            format!(
                "watches renew IDLE after {}; keepalives to clients: {clients}",
                rounded(renewal)
            ),
        );
    };
    let mut servers: Vec<_> = lost.iter().map(|(server, _)| *server).collect();
    servers.sort_unstable();
    servers.dedup();
    let shortest = Duration::from_secs(shortest);
    Finding::warn(
        IDLE,
        format!(
            "connections to {} are lost again and again while they wait, after {} of silence",
            listed(&servers),
            rounded(shortest)
        ),
        format!(
            "a router or firewall on the way drops idle connections: set `push.idle_renewal` ({}) to less than its limit, \
             such as {}",
            rounded(renewal),
            rounded(renewal.min(shortest) / 2)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::report::{AccountCounts, AccountProblem};
    use crate::admin::snapshot_tests;
    use crate::commands::findings::Verdict;

    fn report() -> StatusReport {
        snapshot_tests::well()
    }

    #[test]
    fn accounts_are_counted_and_their_problems_named() {
        let mut report = report();
        assert_eq!(judge(&report).len(), 1, "{:?}", judge(&report));
        let problem = AccountProblem { words: "refused".into(), cure: "log in".into() };
        report.accounts[0].problem = Some(problem);
        report.accounts = vec![report.accounts[0].clone(); 7];
        let found = judge(&report);
        assert_eq!(found.len(), 1 + MAX_SHOWN + 1);
        assert_eq!(found[1].remedy.as_deref(), Some("log in"));
        assert!(found.last().unwrap().words.starts_with("2 further accounts"));
        report.accounts.clear();
        report.counts = AccountCounts::default();
        assert_eq!(judge(&report)[0].verdict, Verdict::Warn);
    }

    #[test]
    fn connections_that_are_lost_while_idle_need_shorter_silence() {
        let mut report = report();
        let (renewal, keepalive) = (Duration::from_secs(540), Some(Duration::from_secs(290)));
        let judged = |report: &StatusReport| judge_idle(report, renewal, keepalive);
        let well = judged(&report);
        assert!(well.verdict == Verdict::Ok && well.words.contains("after 9m"), "{well:?}");
        let lost = LostReport { count: REPEATED, at: report.at, quiet_seconds: 300 };
        report.accounts[0].watch.lost = Some(LostReport { count: REPEATED - 1, ..lost });
        assert_eq!(judged(&report), well);
        report.accounts[0].watch.lost = Some(lost);
        let found = judged(&report);
        assert!(found.verdict == Verdict::Warn && found.words.contains("after 5m"), "{found:?}");
        assert!(found.remedy.unwrap().ends_with("such as 2m 30s"));
    }
}
