//! News of the mail server: what `deltapush news` hands over, and the report of an account.

use super::clock::DisplayClock;
use super::control_server::Peer;
use super::question::{AskedNews, NewsAnswer, NewsRefusal};
use super::report::{AccountProblem, NewsReport, WatchKind};
use crate::push::account::NewsStatus;
use crate::push::server_news::{
    NewsError, NewsHeaders, NewsOutcome, NewsReceiver, NewsScope, ServerNews,
};

/// Hands news over, and tells `peer` what came of it.
pub(super) async fn receive(
    receiver: &NewsReceiver,
    told: AskedNews,
    header: Vec<u8>,
    peer: Peer,
) -> NewsAnswer {
    let name = told.name.clone();
    match receiver.receive(news(told, header, peer), &NewsScope::All).await {
        Ok(outcome) => NewsAnswer::Accepted(words(&name, outcome, peer)),
        Err(error) => NewsAnswer::Refused { kind: kind(&error), words: error.to_string() },
    }
}

/// A UID moves the account's position past messages that the watch has not seen: it counts only from users who could do worse.
fn news(told: AskedNews, header: Vec<u8>, peer: Peer) -> ServerNews {
    let AskedNews { name, mailbox, uid, uid_validity, from, header_bytes: _ } = told;
    let headers = match from {
        Some(from) => NewsHeaders::From(from),
        None if header.is_empty() => NewsHeaders::Unknown,
        None => NewsHeaders::All(header),
    };
    ServerNews {
        name,
        mailbox,
        uid: uid.filter(|_| peer.is_trusted),
        uid_validity: uid_validity.filter(|_| peer.is_trusted),
        headers,
        ..ServerNews::default()
    }
}

/// The outcome, as text. Other users of the machine learn nothing of accounts and devices.
fn words(name: &str, outcome: NewsOutcome, peer: Peer) -> String {
    match outcome {
        _ if !peer.is_trusted => "accepted".to_owned(),
        NewsOutcome::Announced => format!("the devices of {name} are woken"),
        NewsOutcome::Skipped(reason) => format!("no push: {reason}"),
        NewsOutcome::Known => "no push: the message was known already".to_owned(),
        NewsOutcome::OtherMailbox => {
            "no push: this mailbox is not one that wakes devices".to_owned()
        }
        NewsOutcome::NoDevice => format!("no push: {name} has no device here"),
    }
}

fn kind(error: &NewsError) -> NewsRefusal {
    match error {
        NewsError::Invalid(_) | NewsError::Ambiguous => NewsRefusal::Invalid,
        NewsError::NotConfigured | NewsError::OutOfScope => NewsRefusal::NotConfigured,
        NewsError::TooMany | NewsError::Store(_) => NewsRefusal::Later,
    }
}

/// The report of an account's news, and the problem if the mail server leaves messages out that no watch finds.
pub(super) fn describe(
    status: NewsStatus,
    watch: WatchKind,
    clock: DisplayClock,
) -> (Option<NewsReport>, Option<AccountProblem>) {
    let report = NewsReport {
        last: status.last.map(|last| clock.time_of(last)),
        missed: status.missed,
        missed_at: status.missed_at.map(|missed| clock.time_of(missed)),
    };
    let is_all = watch == WatchKind::ServerTells;
    let problem = (is_all && status.is_silent()).then(|| AccountProblem {
        words: NewsReport::SILENT.to_owned(),
        cure: NewsReport::REMEDY.to_owned(),
    });
    let has_told = report != NewsReport::default();
    ((is_all || has_told).then_some(report), problem)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[test]
    fn silence_is_a_problem_where_no_watch_finds_the_messages() {
        let (clock, now) = (DisplayClock::now(), Instant::now());
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds));
        let described = |status, watch| describe(status, watch, clock);
        let silent = NewsStatus { last: ago(90), missed: 2, missed_at: ago(5) };
        let (report, problem) = described(silent, WatchKind::ServerTells);
        assert_eq!(report.unwrap().missed, 2);
        assert_eq!(problem.unwrap().words, NewsReport::SILENT);
        assert!(described(silent, WatchKind::Watching).1.is_none(), "the watch found them");
        let well = NewsStatus { last: ago(5), missed: 2, missed_at: ago(90) };
        assert!(described(well, WatchKind::ServerTells).1.is_none());
        let none = NewsStatus::default();
        assert!(described(none, WatchKind::ServerTells).0.is_some());
        assert_eq!(described(none, WatchKind::Watching), (None, None));
    }

    #[test]
    fn uid_counts_only_from_trusted_users() {
        let told = AskedNews { uid: Some(7), uid_validity: Some(1), ..AskedNews::of("alice") };
        let trusted = news(told.clone(), vec![], Peer { is_trusted: true });
        assert_eq!((trusted.uid, trusted.uid_validity), (Some(7), Some(1)));
        let other = news(told, vec![], Peer { is_trusted: false });
        assert_eq!((other.uid, other.uid_validity), (None, None));
    }

    #[test]
    fn other_users_learn_nothing_of_accounts() {
        let outcomes = [
            NewsOutcome::Announced,
            NewsOutcome::Skipped("own mail"),
            NewsOutcome::Known,
            NewsOutcome::OtherMailbox,
            NewsOutcome::NoDevice,
        ];
        for outcome in outcomes {
            assert_eq!(words("alice", outcome, Peer { is_trusted: false }), "accepted");
            let trusted = words("alice", outcome, Peer { is_trusted: true });
            assert_ne!(trusted, "accepted", "{outcome:?}");
        }
    }

    #[test]
    fn filter_judges_by_what_was_told() {
        let peer = Peer { is_trusted: true };
        let headers = |from: Option<&str>, header: &[u8]| {
            let told = AskedNews { from: from.map(str::to_owned), ..AskedNews::of("alice") };
            news(told, header.to_vec(), peer).headers
        };
        assert!(headers(None, b"") == NewsHeaders::Unknown);
        assert!(headers(None, b"A: b\n") == NewsHeaders::All(b"A: b\n".to_vec()));
        assert!(headers(Some("bob@b.example"), b"") == NewsHeaders::From("bob@b.example".into()));
    }
}
