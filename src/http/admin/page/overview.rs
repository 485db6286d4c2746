//! The overview: health, recent mail, and each account.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

use super::query::{address, value};
use super::{ago, frame, nodes};
use crate::admin::cluster_report::ClusterReport;
use crate::admin::format;
use crate::admin::report::{
    AccountReport, DeviceReport, PushReport, ServerProblem, StatusReport, WatchKind, WatchReport,
};
use crate::http::admin::plot;
use crate::http::admin::site::AdminSite;
use crate::telemetry::metrics::now;

/// Accounts on a page. Those with a problem come first.
const PER_PAGE: usize = 100;

/// The whole page for this query.
pub(in crate::http::admin) async fn overview(site: &AdminSite, query: &str) -> Markup {
    let search = value(query, "q");
    let content = html! {
        form method="get" action="/" role="search" {
            input type="search" name="q" value=(search) placeholder="Find an account" aria-label="Find an account";
            button { "Find" }
        }
        (live_part(site, query).await)
    };
    frame(site, &site.hostname, true, &content)
}

/// The part that live updates replace.
pub(in crate::http::admin) async fn live_part(site: &AdminSite, query: &str) -> Markup {
    let search = value(query, "q");
    let page = value(query, "page").parse().unwrap_or(1);
    let metrics = site.registry.telemetry().metrics();
    html! {
        div #live {
            @match site.report(&search).await {
                Ok(report) => {
                    (verdict(site, &report))
                    (numbers(&report))
                    (plot::plots(&metrics.series().get(now())))
                    @if let Some(cluster) = &report.cluster { (nodes::nodes(cluster, report.at)) }
                    (accounts(&report, &search, page))
                    (tokenless(&report))
                }
                Err(error) => p.state.bad { "The state cannot be read: " (error) }
            }
        }
    }
}

/// The overall condition in one line.
fn verdict(site: &AdminSite, report: &StatusReport) -> Markup {
    let counts = report.counts;
    let (all, nodes) = (counts.accounts, report.cluster.as_ref());
    let problems = nodes.map(ClusterReport::problems).unwrap_or_default();
    let (sound, server) = (
        site.registry.is_writable(),
        site.registry.telemetry().metrics().notification_server_answers(),
    );
    html! {
        @for problem in &problems { (nodes::problem(problem)) }
        // The problems of nodes have a database that is away.
        @if !sound && nodes.is_none_or(|nodes| nodes.database.is_none()) {
            p.state.bad { "The state cannot be written: " (site.registry.usual_trouble()) " Tokens are refused meanwhile." }
        }
        @if let Some(since) = report.notifications.down_since {
            p.state.bad { "The notification server has been down since " (format::moment(since)) ": pushes wait, and are sent when it is back." }
        } @else if !server {
            p.state.bad { "The notification server did not answer the last requests: pushes wait, and are sent when it is back." }
        }
        @for ServerProblem { server, problem, accounts } in report.server_problems() {
            p.state.bad { (server) ": " (problem.words) ": " (accounts) " accounts wait. " (problem.cure) }
        }
        @if counts.problems > 0 {
            p.state.warn { (counted(counts.problems, "account needs", "accounts need")) " attention." }
        } @else if sound && server && problems.is_empty() && report.notifications.down_since.is_none() {
            p.state.good {
                @if counts.accounts == 0 && !report.tokenless.is_empty() { "Ready. No device has handed over its token yet: see below." }
                @else if counts.accounts == 0 { "Ready. No device has handed over its token yet: connect Delta Chat through deltapush. Builds without push (F-Droid, Desktop) have no token." }
                @else if counts.watched == all { "All is well: each account is watched." }
                @else if counts.told == all { "All is well: the mail server tells of each account." }
                @else if counts.watched + counts.told == all { "All is well: each account is watched, or the mail server tells of it." }
                @else { "All is well: " (counts.watched + counts.told) " of " (all) " accounts are watched, the others follow." }
            }
        }
    }
}

fn numbers(report: &StatusReport) -> Markup {
    let counts = report.counts;
    let up = report.at.duration_since(report.started).as_secs().max(0).unsigned_abs();
    let up = format::brief(Duration::from_secs((up - up % 60).max(60)));
    html! {
        dl.numbers {
            (number("accounts", counts.accounts))
            (number("watched", counts.watched))
            @if counts.elsewhere > 0 { (number("at other nodes", counts.elsewhere)) }
            @if counts.told > 0 { (number("told of", counts.told)) }
            (number("devices", counts.devices))
            (number("pushes wait", counts.pending))
            (number(if report.cluster.is_some() { "clients at this node" } else { "clients connected" }, report.connections))
            (number("up", up))
        }
    }
}

fn number(name: &str, value: impl std::fmt::Display) -> Markup {
    html! { div { dt { (name) } dd { (value.to_string()) } } }
}

fn accounts(report: &StatusReport, search: &str, page: usize) -> Markup {
    let narrowed = (!search.is_empty()).then(|| report.clone().narrowed(&[search.to_owned()]));
    let report = narrowed.as_ref().unwrap_or(report);
    let found = report.accounts.len();
    let pages = found.div_ceil(PER_PAGE).max(1);
    let page = page.clamp(1, pages);
    let first = (page - 1) * PER_PAGE;
    let link = |page: usize| address("/", &[("q", search), ("page", &page.to_string())]);
    html! {
        h2 { "Accounts" }
        @if let Some(reason) = &report.unreadable {
            p.state.bad { "The accounts cannot be read at the moment: " (reason) }
        } @else if found == 0 {
            p.quiet {
                @if search.is_empty() { "An account appears here when Delta Chat has logged in through deltapush and handed over its push token." }
                @else { "No account matches." }
            }
        } @else {
            table {
                thead { tr { th { "Account" } th { "Watch" } th { "Last message" } th { "Last push" } th { "Devices" } } }
                tbody {
                    @for account in report.accounts.iter().skip(first).take(PER_PAGE) { (row(account, report.at)) }
                }
            }
        }
        @if report.cluster.is_some() && (report.is_cut || search.is_empty() && found < report.counts.accounts) {
            p.quiet { "There are more accounts: find one by its whole login name." }
        }
        @if pages > 1 {
            nav aria-label="Pages" {
                @if page > 1 { a href=(link(page - 1)) { "Before" } }
                span { "Page " (page) " of " (pages) }
                @if page < pages { a href=(link(page + 1)) { "Next" } }
            }
        }
    }
}

/// Accounts whose clients have no push token.
fn tokenless(report: &StatusReport) -> Markup {
    html! {
        @if !report.tokenless.is_empty() {
            h2 { "No push" }
            p.quiet {
                "The apps of these accounts handed over no push token. Delta Chat Desktop, Delta Chat from F-Droid and other mail "
                "programs have none."
            }
            table {
                thead { tr { th { "Account" } th { "Clients connected" } th { "Last login" } } }
                tbody {
                    @for account in report.tokenless.iter().take(PER_PAGE) {
                        tr {
                            td { (format::tame(&account.name)) br; span.quiet { (format::tame(&account.server)) } }
                            td data-name="Clients connected" { (account.clients) }
                            td data-name="Last login" { (ago(account.last_login, report.at)) }
                        }
                    }
                }
            }
        }
    }
}

fn row(account: &AccountReport, now: Timestamp) -> Markup {
    let link = address("/account", &[("name", &account.name), ("server", &account.server)]);
    html! {
        tr {
            td { a href=(link) { (format::tame(&account.name)) } br; span.quiet { (format::tame(&account.server)) } }
            td data-name="Watch" {
                (badge(&account.watch))
                @if let Some(problem) = &account.problem {
                    p.problem { (format::tame(&problem.words)) "; " span.quiet { (format::tame(&problem.cure)) } }
                }
            }
            td data-name="Last message" {
                @match account.last_message { Some(at) => (ago(at, now)), None => span.quiet { "none since the start" } }
            }
            td data-name="Last push" { (last_push(account, now)) }
            td data-name="Devices" {
                ul { @for device in &account.devices { li { (device_line(device, now)) } } }
            }
        }
    }
}

/// The state of a watch as a coloured word.
pub(super) fn badge(watch: &WatchReport) -> Markup {
    let class = match watch.state {
        WatchKind::Watching
        | WatchKind::WithClient
        | WatchKind::ServerTells
        | WatchKind::AtAnotherNode => "good",
        WatchKind::Connecting | WatchKind::NotStarted => "busy",
        WatchKind::Interrupted | WatchKind::WaitingForLogin | WatchKind::WaitingForDevice => "warn",
        WatchKind::Ended | WatchKind::Unusable | WatchKind::WithoutNode => "bad",
    };
    html! { span.badge.(class) { (watch.label()) } }
}

/// The last POST since the start; otherwise the record on disk.
fn last_push(account: &AccountReport, now: Timestamp) -> Markup {
    let known = account.devices.iter().filter_map(|device| device.accepted).max();
    html! {
        @match (&account.last_push, known) {
            (Some(push), _) => (push_words(push, now)),
            (None, Some(at)) => { "accepted " (ago(at, now)) },
            (None, None) => span.quiet { "none yet" },
        }
    }
}

fn push_words(push: &PushReport, now: Timestamp) -> Markup {
    html! {
        @if push.accepted { "accepted " (ago(push.at, now)) } @else { (push.answer) ", " (ago(push.at, now)) }
        @if let Some(delay) = push.delay_milliseconds {
            " " br; span.quiet { (format::delay(delay)) " after the message" }
        }
    }
}

/// A device and its pending or failed push.
pub(super) fn device_line(device: &DeviceReport, now: Timestamp) -> Markup {
    html! {
        code { (device.token) }
        " " span.quiet { "seen " (ago(device.connected.unwrap_or(device.last_seen).max(device.last_seen), now)) }
        @if device.pending { " " span.badge.busy { "push waits" } }
        @if device.given_up.is_some() { " " span.badge.warn { "push given up" } }
        @if !device.fetches.is_empty() { " " span.quiet { (device.fetches) } }
    }
}

fn counted(number: usize, one: &str, more: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {more}") }
}
