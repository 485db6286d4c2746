//! The page, rendered on the server so that it works without scripts. maud escapes all inserted text.

mod account;
mod nodes;
mod overview;
mod query;

use jiff::Timestamp;
use maud::{Markup, html};

use super::site::AdminSite;
use crate::admin::format;
use crate::http::html::{Page, document};
pub(super) use account::account;
pub(super) use overview::{live_part, overview};

/// A page around `content`. With `is_live` it refreshes itself; without scripts it reloads periodically.
fn frame(site: &AdminSite, title: &str, is_live: bool, content: &Markup) -> Markup {
    let updates = html! {
        noscript { meta http-equiv="refresh" content="30"; }
        script src="/live.js" defer {}
    };
    let header = html! {
        h1 { a href="/" { (site.hostname) } }
        @if is_live { span #link role="status" { } }
    };
    let footer = html! {
        "deltapush " (env!("CARGO_PKG_VERSION")) " · "
        a href="/metrics" { "metrics" } " · " a href="/readyz" { "health" }
    };
    document(&Page {
        title,
        head: is_live.then_some(updates),
        is_narrow: false,
        header,
        main: content,
        footer: Some(footer),
    })
}

/// The time since a moment, coarse enough that the text changes at most once a minute.
fn ago(time: Timestamp, now: Timestamp) -> Markup {
    let seconds = now.duration_since(time).as_secs().max(0);
    let words = match seconds {
        0..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    };
    html! { time datetime=(time.strftime("%Y-%m-%dT%H:%M:%SZ")) title=(format::moment(time)) { (words) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glance_is_enough() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let text = |seconds: i64| {
            ago(Timestamp::from_second(1_000_000 - seconds).unwrap(), now).into_string()
        };
        for (seconds, words) in [
            (-5, "just now"),
            (59, "just now"),
            (60, "1 min ago"),
            (7199, "1 h ago"),
            (172_800, "2 days ago"),
        ] {
            assert!(text(seconds).contains(&format!(">{words}<")), "{}", text(seconds));
        }
        assert!(
            text(0).contains("datetime=\"1970-01-12T13:46:40Z\" title=\"1970-01-12 13:46:40 UTC\""),
            "{}",
            text(0)
        );
    }
}
