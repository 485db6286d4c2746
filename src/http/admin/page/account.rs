//! The page of one account: its watch, its devices and its recent history.

use maud::{Markup, html};

use super::overview::{badge, device_line};
use super::query::value;
use super::{ago, frame};
use crate::account::AccountId;
use crate::admin::format;
use crate::admin::report::WatchKind;
use crate::admin::timeline::{AccountHistory, Happened, TimelineKind};
use crate::http::admin::site::AdminSite;

/// The page of the account that the query names; `None` if there is none.
pub(in crate::http::admin) async fn account(site: &AdminSite, query: &str) -> Option<Markup> {
    let account = AccountId::new(&value(query, "name"), &value(query, "server"));
    let history = site.reporter.account(&account).await.ok()??;
    Some(frame(site, &format::tame(&account.user), false, &content(&history)))
}

fn content(history: &AccountHistory) -> Markup {
    let (account, now) = (&history.account, history.at);
    let watch = &account.watch;
    html! {
        p { a href="/" { "← All accounts" } }
        h2 { (format::tame(&account.name)) " " span.quiet { "at " (format::tame(&account.server)) } }
        p {
            (badge(watch))
            @if let Some(since) = watch.since { " since " (format::moment(since)) }
            "; " span.quiet { (watch.next_step) }
        }
        @if let Some(problem) = &account.problem {
            p.state.warn { (format::tame(&problem.words)) "; " (format::tame(&problem.cure)) }
        }
        @if let Some(news) = &account.news { p { (news.words(now)) "." } }
        @for note in &watch.notes { p.state.warn { (format::tame(note)) } }
        @if let Some(at) = watch.last_activity { p { "Last sign of life of the mail server: " (ago(at, now)) "." } }
        p { "Its devices are woken for " (account.messages) "." }
        @if let Some(came) = account.background_fetch { p { "A device connected for a background fetch " (ago(came, now)) "." } }
        h2 { "Devices" }
        ul { @for device in &account.devices { li { (device_line(device, now)) } } }
        @if !history.explanation.is_empty() {
            h2 { "The last message" }
            ul { @for line in &history.explanation { li { (format::tame(line)) } } }
        }
        h2 { "Recent events" }
        (timeline(history))
        p.quiet {
            @if history.dropped { "Earlier events are not stored. " }
            "deltapush started " (ago(history.started, now)) ". Reload this page to see newer events."
        }
    }
}

/// The history, newest first.
fn timeline(history: &AccountHistory) -> Markup {
    html! {
        @if let Some(node) = &history.account.watch.node {
            p.quiet {
                @if history.account.watch.state == WatchKind::AtAnotherNode {
                    "Node " (format::tame(node)) ", which has the history, does not answer. Here are clients that came to this node."
                } @else { "As node " (format::tame(node)) " has them in memory, which watches the account." }
            }
        }
        @if history.happened.is_empty() {
            p.quiet { "Nothing yet." }
        } @else {
            ol.timeline { @for happened in history.happened.iter().rev() { (entry(happened)) } }
        }
    }
}

fn entry(happened: &Happened) -> Markup {
    let class = match happened.kind {
        TimelineKind::Answer | TimelineKind::Connected | TimelineKind::Fetched => "step",
        TimelineKind::GaveUp | TimelineKind::Waits => "step warn",
        _ => "step plain",
    };
    html! {
        li class=(class) {
            time datetime=(happened.at.strftime("%Y-%m-%dT%H:%M:%SZ")) { (format::moment(happened.at)) }
            span {
                (format::tame(&happened.words))
                @if let Some(after) = happened.after_milliseconds { " " span.quiet { "+" (format::delay(after)) } }
            }
        }
    }
}
