//! Renders a [`StatusReport`] as text for a terminal: few accounts in full, many as a table, problems first.

use std::fmt::{Display, Write};
use std::time::Duration;

use jiff::Timestamp;

use super::cluster_table;
use super::format::{ago, brief, counted, date, delay, moment, rounded, tame};
use super::layout::{LABEL, Layout};
use super::report::{
    AccountReport, DeviceReport, ServerProblem, StatusReport, TokenlessReport, WatchKind,
};
use super::timeline::AccountHistory;

/// The maximum number of accounts that are shown in full.
pub(super) const FEW: usize = 5;

/// The next step where there is no account yet.
const NO_ACCOUNT: &str = "\
no device has handed over its push token yet: connect Delta Chat through deltapush (`deltapush qr ADDRESS` prints the login code); \
builds without push (F-Droid, Desktop) have no token\n";

/// An account and its history.
#[must_use]
pub fn account(history: &AccountHistory, layout: Layout) -> String {
    let mut text = String::new();
    in_full(&mut text, &history.account, history.at);
    if let Some(since) = history.down_since {
        let _ = writeln!(
            text,
            "  pushes   wait: the notification server has been down since {}",
            moment(since)
        );
    }
    let _ = writeln!(text, "\n{}", known(history));
    if !history.happened.is_empty() {
        let mut table = layout.table(&["TIME (UTC)", "AFTER", "EVENT"]);
        for happened in &history.happened {
            let after = happened
                .after_milliseconds
                .map_or(String::new(), |after| format!("+{}", delay(after)));
            let time = happened.at.strftime("%m-%d %H:%M:%S%.3f").to_string();
            table.add_row([time, after, tame(&happened.words)]);
        }
        let _ = writeln!(text, "{}", layout.render(table));
    }
    if !history.explanation.is_empty() {
        let mut table = layout.table(&["DELAYS"]);
        for sentence in &history.explanation {
            table.add_row([format!("{}.", tame(sentence))]);
        }
        let _ = writeln!(text, "\n{}", layout.render(table));
    }
    layout.wrap(&text)
}

/// The period that the history covers.
fn known(history: &AccountHistory) -> String {
    let started = moment(history.started);
    let node = history.account.watch.node.as_deref().map(tame);
    if let (Some(node), WatchKind::AtAnotherNode) = (&node, history.account.watch.state) {
        return format!(
            "Node {node}, which has the history, does not answer: ask again, or run `deltapush account` there. This node knows \
             only of clients that came here since it started ({started})."
        );
    }
    if let Some(node) = node {
        return format!(
            "Node {node} watches it, and knows of events since {}.",
            first_known(history)
        );
    }
    match (history.happened.first(), history.dropped) {
        (None, _) => {
            format!("No events since deltapush started ({started}); earlier events are not stored.")
        }
        (Some(first), true) => {
            let first = moment(first.at);
            format!(
                "Events since {first}; older events are dropped, because the history of an account is limited."
            )
        }
        (Some(_), false) => {
            format!("Events since deltapush started ({started}); earlier events are not stored.")
        }
    }
}

/// The oldest event that is known, or the start.
fn first_known(history: &AccountHistory) -> String {
    let first = history.happened.first().filter(|_| history.dropped);
    moment(first.map_or(history.started, |first| first.at))
}

/// Renders the whole report. Writing to a string cannot fail.
#[must_use]
pub fn status(report: &StatusReport, layout: Layout) -> String {
    let mut text = head(report);
    if let Some(cluster) = &report.cluster {
        let _ = write!(text, "\n{}", cluster_table::nodes(cluster, report.at, layout));
    }
    if layout.long || report.accounts.len() <= FEW {
        for account in &report.accounts {
            text.push('\n');
            in_full(&mut text, account, report.at);
        }
        return layout.wrap(&text);
    }
    let of_servers = report.server_problems();
    let is_of_a_server = |account: &AccountReport| {
        of_servers
            .iter()
            .any(|of| of.server == account.server && account.problem.as_ref() == Some(of.problem))
    };
    let troubled: Vec<&AccountReport> = report
        .accounts
        .iter()
        .filter(|account| account.problem.is_some() && !is_of_a_server(account))
        .collect();
    if !troubled.is_empty() {
        let _ = write!(text, "\n{}\n", problems(&troubled, layout));
    }
    let _ = write!(text, "\n{}\n", overview(report, layout));
    text.push_str(
        "\n`deltapush status NAME` shows an account with its devices, `deltapush account NAME` its recent history\n",
    );
    layout.wrap(&text)
}

fn head(report: &StatusReport) -> String {
    let (counts, up) = (report.counts, report.at.duration_since(report.started).unsigned_abs());
    let mut text = format!(
        "deltapush {}, up {}: {} with a device, {} watched",
        report.version,
        rounded(up),
        counted(counts.accounts as u64, "account"),
        counts.watched,
    );
    if counts.told > 0 {
        let _ = write!(text, ", {} told of by the mail server", counts.told);
    }
    if counts.waiting > 0 {
        let _ = write!(text, ", {} waiting for the phone to log in", counts.waiting);
    }
    text.push('\n');
    if counts.unusable > 0 {
        let unusable = counts.unusable;
        let _ = writeln!(
            text,
            "{unusable} of them cannot be watched because of how their clients log in"
        );
    }
    text.push_str(&counted(counts.devices as u64, "device"));
    if counts.pending > 0 {
        let _ = write!(text, ", {} of them with a push that is not accepted yet", counts.pending);
    }
    let here = if report.cluster.is_some() { " to this node" } else { "" };
    let _ = writeln!(text, "; {} connected{here}", counted(report.connections, "client"));
    if report.refused_accounts > 0 {
        let _ = writeln!(
            text,
            "new accounts were refused {} since the start: see limits.accounts and limits.new_accounts_per_address",
            counted(report.refused_accounts, "time")
        );
    }
    if let Some(since) = report.notifications.down_since {
        let _ = writeln!(
            text,
            "the notification server has been down since {}: pushes wait and are not lost; if this lasts, check that this \
             machine reaches push.notify_url",
            moment(since)
        );
    }
    if let Some(cluster) = &report.cluster {
        cluster_table::push_problems(&mut text, cluster);
    }
    push_servers(&mut text, report);
    push_tokenless(&mut text, report);
    if counts.accounts == 0 && report.tokenless.is_empty() && report.unreadable.is_none() {
        text.push_str(NO_ACCOUNT);
    }
    if counts.quarantined > 0 {
        let quarantined = counts.quarantined;
        let _ = writeln!(
            text,
            "{} in quarantine: the notification server rejected the token as gone (410); deltapush tries it again with new mail",
            counted(quarantined as u64, "device")
        );
    }
    for erased in report.erased.iter().take(FEW) {
        let _ = writeln!(
            text,
            "erased {}: {} at {}: {}",
            moment(erased.at),
            tame(&erased.name),
            tame(&erased.server),
            tame(&erased.reason)
        );
    }
    if let Some(reason) = &report.unreadable {
        let _ = writeln!(text, "the accounts cannot be read at the moment: {}", tame(reason));
    } else if report.is_cut {
        text.push_str(
            "there may be more accounts with this name or server: give the whole login name\n",
        );
    } else if report.accounts.is_empty() && counts.accounts > 0 {
        text.push_str("no account with a device has this name or server\n");
    } else if report.accounts.len() < counts.accounts {
        let follow = if report.accounts.len() == 1 { "follows" } else { "follow" };
        let _ = writeln!(text, "{} of these accounts {follow}", report.accounts.len());
    }
    text
}

/// Certificates and mail servers at which something is wrong, a line for each.
fn push_servers(text: &mut String, report: &StatusReport) {
    for trouble in &report.certificates {
        let _ = writeln!(text, "{}", tame(trouble));
    }
    for limited in &report.limited {
        let (failed, within) =
            (limited.failed, rounded(Duration::from_secs(limited.within_seconds)));
        let _ = writeln!(
            text,
            "{}: {} failed there within {within} (limit {} for unknown accounts): deltapush refuses their logins until {}; \
             see limits.failed_logins",
            tame(&limited.server),
            counted(failed as u64, "login"),
            limited.limit,
            moment(limited.until)
        );
    }
    for ServerProblem { server, problem, accounts } in report.server_problems() {
        let _ = writeln!(
            text,
            "{}: {}: {accounts} accounts wait; {}",
            tame(server),
            tame(&problem.words),
            tame(&problem.cure)
        );
    }
}

/// Accounts whose clients have no push token, and what that means.
fn push_tokenless(text: &mut String, report: &StatusReport) {
    if report.tokenless.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "no push comes for {} whose apps handed over no push token: Delta Chat Desktop, Delta Chat from F-Droid and other mail \
         programs have none",
        counted(report.tokenless.len() as u64, "account")
    );
    for TokenlessReport { name, server, clients, last_login } in report.tokenless.iter().take(FEW) {
        let _ = writeln!(
            text,
            "  {} at {}: {} connected, last login {}",
            tame(name),
            tame(server),
            counted(*clients as u64, "client"),
            ago(*last_login, report.at)
        );
    }
    if let Some(more @ 1..) = report.tokenless.len().checked_sub(FEW) {
        let _ = writeln!(text, "  and {} more (--json lists all)", counted(more as u64, "account"));
    }
}

fn problems(accounts: &[&AccountReport], layout: Layout) -> String {
    let mut table = layout.table(&["ACCOUNT OR DEVICE", "PROBLEM", "REMEDY"]);
    for account in accounts {
        let Some(problem) = &account.problem else { continue };
        let next = account.watch.next.map(|_| " (see NEXT below)").unwrap_or_default();
        table.add_row([
            tame(&account.name),
            tame(&problem.words),
            format!("{}{next}", problem.cure),
        ]);
    }
    layout.render(table)
}

fn overview(report: &StatusReport, layout: Layout) -> String {
    let header = [
        "ACCOUNT",
        "SERVER",
        "WATCH",
        "ALIVE",
        "NEXT",
        "DEVICES",
        "LAST MESSAGE",
        "LAST PUSH",
        "PENDING",
    ];
    let mut table = layout.table(&header);
    for account in &report.accounts {
        let some_ago =
            |time: Option<Timestamp>| time.map_or("-".into(), |time| ago(time, report.at));
        let next = account.watch.next.map_or("-".into(), |next| ahead(next, report.at));
        let pending = account.devices.iter().filter(|device| device.pending).count();
        table.add_row([
            tame(&account.name),
            tame(&account.server),
            account.watch.label(),
            some_ago(account.watch.last_activity),
            next,
            account.devices.len().to_string(),
            some_ago(account.last_message),
            last_push(account, report.at),
            if pending == 0 { "-".into() } else { pending.to_string() },
        ]);
    }
    layout.render(table)
}

/// The last push in short. For the time before the start, the devices' records are used.
fn last_push(account: &AccountReport, now: Timestamp) -> String {
    if let Some(push) = &account.last_push {
        let delay = push
            .delay_milliseconds
            .map(|taken| format!(" in {}", delay(taken)))
            .unwrap_or_default();
        let answer = if push.accepted { "accepted" } else { "not accepted" };
        return format!("{}, {answer}{delay}", ago(push.at, now));
    }
    let accepted = account.devices.iter().filter_map(|device| device.accepted).max();
    accepted.map_or("-".into(), |accepted| format!("{}, accepted", ago(accepted, now)))
}

fn ahead(next: Timestamp, now: Timestamp) -> String {
    format!("in {}", brief(next.duration_since(now).max(jiff::SignedDuration::ZERO).unsigned_abs()))
}

/// One account, line by line.
fn in_full(text: &mut String, account: &AccountReport, now: Timestamp) {
    let _ = writeln!(text, "{} at {}", tame(&account.name), tame(&account.server));
    let mut line = |label: &str, words: &dyn Display| {
        let _ = writeln!(text, "  {label:<width$} {words}", width = LABEL - 3);
    };
    line("watch", &watch_line(account, now));
    if let (Some(max_detection_delay), Some(activity)) =
        (account.watch.max_detection_delay_seconds, account.watch.last_activity)
    {
        let activity = ago(activity, now);
        let max_detection_delay = rounded(Duration::from_secs(max_detection_delay));
        line(
            "alive",
            &format_args!(
                "last sign of life {activity}; a dead connection is detected within {max_detection_delay}"
            ),
        );
    }
    if let Some(news) = &account.news {
        line("news", &news.words(now));
    }
    for note in &account.watch.notes {
        line("note", &tame(note));
    }
    for mailbox in &account.mailboxes {
        line(
            "mailbox",
            &format_args!("{} checked below UID {}", tame(&mailbox.name), mailbox.uid_next),
        );
    }
    line("pushes", &account.messages);
    if let Some(last) = account.background_fetch {
        line(
            "app",
            &format_args!(
                "a device connected for a background fetch {} ({})",
                ago(last, now),
                moment(last)
            ),
        );
    }
    if let Some(last) = account.last_message {
        line("message", &format_args!("last new mail {} ({})", ago(last, now), moment(last)));
    }
    if let Some(push) = &account.last_push {
        let delay =
            push.delay_milliseconds.map(|taken| format!(", {} after the new mail", delay(taken)));
        let (when, answer) = (ago(push.at, now), tame(&push.answer));
        line(
            "push",
            &format_args!("last for {}, {when}{}: {answer}", push.token, delay.unwrap_or_default()),
        );
    }
    for device in &account.devices {
        line("device", &device_line(device, now));
    }
    if let Some(problem) = account.problem.as_ref().filter(|_| is_watched(account)) {
        line("problem", &format_args!("{}; {}", tame(&problem.words), problem.cure));
    }
}

/// True if the account has a problem that is not the watch's.
fn is_watched(account: &AccountReport) -> bool {
    matches!(
        account.watch.state,
        WatchKind::Watching
            | WatchKind::WithClient
            | WatchKind::ServerTells
            | WatchKind::Connecting
            | WatchKind::NotStarted
            | WatchKind::AtAnotherNode
    )
}

fn watch_line(account: &AccountReport, now: Timestamp) -> String {
    let watch = &account.watch;
    let (reason, cure) = match &account.problem {
        Some(problem) => (tame(&problem.words), problem.cure.as_str()),
        None => (String::new(), ""),
    };
    match watch.state {
        WatchKind::Watching => watch
            .since
            .map_or("watching".into(), |since| format!("watching since {}", moment(since))),
        WatchKind::WithClient | WatchKind::ServerTells | WatchKind::AtAnotherNode => {
            watch.next_step.clone()
        }
        WatchKind::Connecting => "connecting, or waiting for its turn".into(),
        WatchKind::Interrupted => {
            let next = watch.next.map_or("soon".into(), |next| ahead(next, now));
            format!("interrupted: {reason}; next attempt {next}")
        }
        WatchKind::Ended => format!("ended: {reason}; {cure}"),
        WatchKind::WaitingForLogin => format!("waits for its phone to log in: {reason}; {cure}"),
        WatchKind::WaitingForDevice => format!("waiting for a device: {reason}; {cure}"),
        WatchKind::Unusable => format!("cannot be watched: {reason}; {cure}"),
        WatchKind::NotStarted => "not started yet".into(),
        WatchKind::WithoutNode => format!("{reason}: {}; {cure}", watch.next_step),
    }
}

fn device_line(device: &DeviceReport, now: Timestamp) -> String {
    let mut line = format!(
        "{} since {}, last seen {}",
        device.token,
        date(device.first_seen),
        date(device.last_seen)
    );
    if device.online {
        line.push_str(", connected now");
    } else if let Some(connected) = device.connected {
        let _ = write!(line, ", connected {}", ago(connected, now));
    }
    if device.pending {
        line.push_str("; a push is pending");
    }
    if let Some(quarantine) = &device.quarantine {
        let _ = write!(
            line,
            "; in quarantine since {} (410, {}), tried again with new mail {}",
            moment(quarantine.since),
            counted(quarantine.answers.into(), "time"),
            if quarantine.until > now {
                format!("after {}", moment(quarantine.until))
            } else {
                "at once".into()
            },
        );
    }
    match (&device.given_up, device.accepted) {
        (Some(given_up), _) => {
            let _ = write!(
                line,
                "; last push given up {}: {}",
                moment(given_up.at),
                tame(&given_up.reason)
            );
        }
        (None, Some(when)) => {
            let _ = write!(line, "; last push accepted {}", moment(when));
        }
        (None, None) => line.push_str("; no push yet"),
    }
    if !device.fetches.is_empty() {
        let _ = write!(line, "; {}", device.fetches);
    }
    line
}
