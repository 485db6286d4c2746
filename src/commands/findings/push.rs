//! The notification server, and the clock: its answer has the time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use reqwest::header::DATE;
use reqwest::{Client, Url, redirect};
use tokio_rustls::rustls::ClientConfig;

use super::super::Fault;
use super::Finding;
use crate::admin::format::{moment, rounded};
use crate::causes::{causes, with_causes};
use crate::config::PushDelivery;
use crate::crypto;
use crate::dns::HttpDns;
use crate::tls::client;

const SUBJECT: &str = "push";
const CLOCK: &str = "clock";

/// Time limit of the request.
const TIME: Duration = Duration::from_secs(10);

/// A difference of clocks that harms nothing: certificates and access tokens count in minutes.
const TOLERANCE: Duration = Duration::from_secs(60);

/// Facts about the notification server.
#[derive(Debug)]
pub(in super::super) struct PushFacts {
    pub(in super::super) host: String,
    /// The time in its answer, if it has one; or why there is no answer.
    pub(in super::super) answer: Result<Option<SystemTime>, String>,
    /// The time here, when the answer came.
    pub(in super::super) now: SystemTime,
    /// Since when the running deltapush has had no answer.
    pub(in super::super) down_since: Option<Timestamp>,
}

/// Asks the notification server for nothing but its head: no token is sent.
pub(in super::super) async fn look(
    push: &PushDelivery,
    down_since: Option<Timestamp>,
) -> PushFacts {
    let host = push.notify_url.host_str().unwrap_or_default().to_owned();
    let answer = ask(push).await;
    PushFacts { host, answer, now: SystemTime::now(), down_since }
}

async fn ask(push: &PushDelivery) -> Result<Option<SystemTime>, String> {
    let roots = client::https_roots(push.ca.as_ref()).map_err(|error| error.to_string())?;
    let tls = ClientConfig::builder_with_provider(crypto::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder()
        .dns_resolver(Arc::new(HttpDns::of_system()))
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .timeout(TIME);
    // Plain HTTP is for this machine, where no proxy stands between.
    let client = if push.notify_url.scheme() == "http" { client.no_proxy() } else { client };
    let client = client.build().map_err(|error| with_causes(&error))?;
    let answer = client.head(root_of(&push.notify_url)).send().await;
    // The library's own words around it say nothing more.
    let answer = answer
        .map_err(|error| causes(&error).last().map_or(error.to_string(), ToString::to_string))?;
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    Ok(date
        .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
        .map(|date| date.timestamp().into()))
}

fn root_of(url: &Url) -> Url {
    let mut root = url.clone();
    root.set_path("/");
    root.set_query(None);
    root
}

/// Judges the notification server, and the clock if its time is known.
pub(in super::super) fn judge(facts: &PushFacts) -> Vec<Finding> {
    let mut findings = vec![judge_server(facts)];
    if let Ok(Some(time)) = facts.answer {
        findings.push(judge_clock(&facts.host, time, facts.now));
    }
    findings
}

fn judge_server(facts: &PushFacts) -> Finding {
    let host = &facts.host;
    match (&facts.answer, facts.down_since) {
        (Err(error), _) => Finding::fail(
            Fault::Unavailable,
            SUBJECT,
            format!("the notification server {host} cannot be reached: {error}"),
            "check the DNS server and the firewall of this machine, its clock, and `push.notify_url`; pushes wait meanwhile",
        ),
        (Ok(_), Some(since)) => Finding::warn(
            SUBJECT,
            format!(
                "the notification server {host} answers, and has taken no push since {}",
                moment(since)
            ),
            "deltapush tries again by itself; docs/push.md",
        ),
        (Ok(_), None) => Finding::ok(SUBJECT, format!("the notification server {host} answers")),
    }
}

fn judge_clock(host: &str, theirs: SystemTime, ours: SystemTime) -> Finding {
    let (difference, word) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if difference <= TOLERANCE {
        return Finding::ok(CLOCK, "the clock of this machine is right");
    }
    Finding::fail(
        Fault::System,
        CLOCK,
        format!("the clock of this machine is {} {word} that of {host}", rounded(difference)),
        "certificates and access tokens need the right time: `timedatectl set-ntp true`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(answer: Result<Option<SystemTime>, String>) -> PushFacts {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        PushFacts { host: "notifications.example".into(), answer, now, down_since: None }
    }

    #[test]
    fn answer_tells_reach_and_time() {
        let here = facts(Ok(None)).now;
        let found = judge(&facts(Ok(Some(here - Duration::from_secs(30)))));
        assert!(found.iter().all(|finding| finding.remedy.is_none()), "{found:?}");
        let ahead = judge(&facts(Ok(Some(here - Duration::from_secs(7200)))));
        assert!(ahead[1].words.contains("2h ahead of"), "{ahead:?}");
        let behind = judge(&facts(Ok(Some(here + Duration::from_secs(300)))));
        assert!(behind[1].words.contains("5m behind"), "{behind:?}");
        assert_eq!(judge(&facts(Ok(None))).len(), 1);
    }

    #[test]
    fn server_that_does_not_answer_or_takes_nothing_is_told() {
        let unreachable = judge(&facts(Err("no route".into())));
        assert!(unreachable[0].is_failure() && unreachable[0].words.ends_with(": no route"));
        let since = Some("2026-11-30T10:00:00Z".parse().unwrap());
        let down = judge(&PushFacts { down_since: since, ..facts(Ok(None)) });
        assert!(down[0].words.contains("no push since 2026-11-30 10:00:00 UTC"), "{down:?}");
    }

    #[test]
    fn only_the_servers_root_is_asked() {
        let url = "https://notifications.example/notify?x=y".parse().unwrap();
        assert_eq!(root_of(&url).as_str(), "https://notifications.example/");
    }
}
