//! The watch of an account in the status report: state, next step, limits, and the problem with its remedy.

use jiff::Timestamp;

use super::clock::DisplayClock;
use super::report::{AccountProblem, LostReport, WatchKind, WatchReport};
use crate::cluster::AccountOwner;
use crate::push::watch_status::{SkippedMailbox, WatchEntry, WatchState};
use crate::store::AccountStatus;

/// The report of a watch, and its problem.
pub(super) fn describe(
    status: &AccountStatus,
    watch: Option<&WatchEntry>,
    clock: DisplayClock,
) -> (WatchReport, Option<AccountProblem>) {
    let (state, next, words, problem) = step(status, watch, clock);
    let report = WatchReport {
        state,
        since: watch.map(|watch| clock.time_of(watch.since)),
        last_activity: watch
            .and_then(|watch| watch.last_activity)
            .map(|proof| clock.time_of(proof)),
        // Not measured for a client's own session.
        max_detection_delay_seconds: watch
            .map(|watch| watch.max_detection_delay.as_secs())
            .filter(|seconds| *seconds > 0),
        next_step: words,
        next,
        notes: watch.map(notes).unwrap_or_default(),
        lost: watch.and_then(|watch| watch.lost).map(|lost| LostReport {
            count: lost.count,
            at: clock.time_of(lost.at),
            quiet_seconds: lost.quiet.as_secs(),
        }),
        node: None,
    };
    (report, problem)
}

/// The report of an account that this node does not watch, and its problem. The state is in the memory of the node that does.
pub(super) fn elsewhere(owner: &AccountOwner) -> (WatchReport, Option<AccountProblem>) {
    let (state, node, next_step) = match owner {
        AccountOwner::Node(name) => {
            let words = format!(
                "node {name} watches it, and has its state and history in memory: `deltapush account` asks for them"
            );
            (WatchKind::AtAnotherNode, Some(name.clone()), words)
        }
        AccountOwner::Nobody(Some(last)) => {
            let words =
                format!("node {last} has lost its lease: another node takes over within seconds");
            (WatchKind::WithoutNode, None, words)
        }
        AccountOwner::Nobody(None) => {
            (WatchKind::WithoutNode, None, "a node takes it within seconds".to_owned())
        }
        AccountOwner::Unknown => {
            let words = "this node has not seen the other nodes yet".to_owned();
            (WatchKind::WithoutNode, None, words)
        }
    };
    let problem = (state == WatchKind::WithoutNode).then(|| AccountProblem {
        words: "no node watches it at the moment".into(),
        cure: "if it stays so, `deltapush status` shows the nodes".into(),
    });
    let report = WatchReport {
        state,
        since: None,
        last_activity: None,
        max_detection_delay_seconds: None,
        next_step,
        next: None,
        notes: Vec::new(),
        lost: None,
        node,
    };
    (report, problem)
}

/// A watch of this node that may write and push nothing at the moment.
pub(super) const STANDBY: &str =
    "this node has no lease: the watch waits, and writes and pushes nothing";

/// The limits of a watch.
pub(super) fn notes(watch: &WatchEntry) -> Vec<String> {
    let left_out = watch.left_out.iter().map(|SkippedMailbox { mailbox, reason, .. }| {
        let words = if reason.is_empty() { "the mail server gives no reason" } else { reason.as_str() };
        format!("mailbox {mailbox:?} is not watched: it cannot be opened ({words}); deltapush tries again after 10 minutes, then at intervals that grow to 6 hours")
    });
    let uw_imapd = watch.is_uw_imapd.then(|| {
        "the mail server seems to be UW imapd, which does not announce new mail to an idle session: pushes may come \
         late or not at all; another server program for the same mailboxes, such as Dovecot, helps"
            .to_owned()
    });
    left_out.chain(uw_imapd).collect()
}

/// The state of a watch, its next step with the time, and its problem.
fn step(
    status: &AccountStatus,
    watch: Option<&WatchEntry>,
    clock: DisplayClock,
) -> (WatchKind, Option<Timestamp>, String, Option<AccountProblem>) {
    let problem =
        |words: &str, cure: &str| Some(AccountProblem { words: words.into(), cure: cure.into() });
    // With kept sessions, the clients' login methods do not matter.
    match watch.map(|watch| &watch.state) {
        Some(WatchState::WithClient) => {
            return (
                WatchKind::WithClient,
                None,
                "the client's own session reports new mail, and deltapush wakes the other devices"
                    .into(),
                None,
            );
        }
        Some(WatchState::ServerTells) => {
            return (
                WatchKind::ServerTells,
                None,
                "not needed: the mail server tells of each new message; no password is stored"
                    .into(),
                None,
            );
        }
        Some(WatchState::AwaitingDevice { reason }) => {
            let next = "deltapush wakes its devices, and the watch starts when one of them logs in";
            return (
                WatchKind::WaitingForDevice,
                None,
                next.into(),
                problem(reason, "deltapush wakes its devices; or open the app"),
            );
        }
        _ => {}
    }
    if let Some(mechanism) = status.unusable {
        let words = format!(
            "its client logs in with {}, which gives deltapush no credentials for a login of its own",
            mechanism.name()
        );
        let cure = "make the client send a password (LOGIN, or AUTHENTICATE PLAIN)";
        return (
            WatchKind::Unusable,
            None,
            "nothing, until its client logs in with a password".into(),
            problem(&words, cure),
        );
    }
    if !status.has_credentials {
        let (words, cure) =
            ("the password is not known", "open the app: the watch starts when its phone logs in");
        return (
            WatchKind::WaitingForLogin,
            None,
            "the watch starts when its phone logs in".into(),
            problem(words, cure),
        );
    }
    match watch.map(|watch| &watch.state) {
        Some(WatchState::Watching) => {
            (WatchKind::Watching, None, "waits for new mail; renews IDLE regularly".into(), None)
        }
        Some(WatchState::Connecting) => (
            WatchKind::Connecting,
            None,
            "logs in when the pacing of its server permits it".into(),
            None,
        ),
        Some(WatchState::Interrupted { reason, next }) => {
            let cure =
                "deltapush retries automatically, and then finds the mail that arrived meanwhile";
            let at = clock.time_of(*next);
            (WatchKind::Interrupted, Some(at), "next attempt".into(), problem(reason, cure))
        }
        Some(WatchState::AwaitingLogin { reason, cure }) => {
            (WatchKind::Ended, None, format!("nothing, until: {cure}"), problem(reason, cure))
        }
        None if status.refused => {
            let (words, cure) =
                ("the mail server refused the login", "log in with the app to start it again");
            (WatchKind::Ended, None, format!("nothing, until: {cure}"), problem(words, cure))
        }
        _ => (WatchKind::NotStarted, None, "starts soon".into(), None),
    }
}
