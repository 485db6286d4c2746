//! Metrics as Prometheus's own library reads them.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use super::super::support::python;
use super::super::support::scene::PATIENCE;
use super::{Admin, alone, scene};

async fn parsed(admin: &Admin) -> Value {
    let (status, text) = admin.get("/metrics").await;
    assert_eq!(status, 200);
    parse(&text)
}

/// Parses the metrics: families by name, each with type, help and samples.
pub(super) fn parse(text: &str) -> Value {
    let mut command = python::script("parse_metrics.py");
    let mut parser = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = parser.wait_with_output().unwrap();
    assert!(output.status.success(), "the parser refuses it:\n{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The value of a sample, by its name and the value of its only label.
fn value(families: &Value, name: &str, label: Option<&str>) -> f64 {
    let samples = families
        .as_object()
        .unwrap()
        .values()
        .flat_map(|family| family["samples"].as_array().unwrap());
    let fits = |labels: &Value| match label {
        None => labels.as_object().unwrap().is_empty(),
        Some(label) => labels.as_object().unwrap().values().any(|value| value == label),
    };
    let mut found = samples
        .filter(|sample| sample[0] == name && fits(&sample[1]))
        .map(|sample| sample[2].as_f64());
    found.next().flatten().unwrap_or_else(|| panic!("no {name} {label:?} in {families:#}"))
}

#[tokio::test]
async fn every_series_is_there_from_the_start() {
    let (_deltapush, admin) = alone();
    let families = parsed(&admin).await;
    for (name, labels) in [
        (
            "deltapush_logins_total",
            &["accepted", "refused", "limited", "not_allowed", "unavailable", "no_mechanism"][..],
        ),
        ("deltapush_relayed_bytes_total", &["to_client", "to_upstream"]),
        ("deltapush_watches", &["connecting", "watching", "interrupted", "awaiting_login"]),
        (
            "deltapush_messages_judged_total",
            &[
                "push",
                "seen",
                "deleted",
                "junk",
                "automatic",
                "own_mail",
                "no_chat",
                "not_encrypted",
            ],
        ),
        (
            "deltapush_posts_total",
            &["accepted", "gone", "refused", "failed", "timed_out", "unreachable"],
        ),
        ("deltapush_noticed_to_posted_seconds_bucket", &["0.1", "1", "10", "3600", "+Inf"]),
        ("deltapush_posted_to_connected_seconds_bucket", &["0.1", "1", "10", "3600", "+Inf"]),
        ("deltapush_post_duration_seconds_bucket", &["0.1", "1", "10", "3600", "+Inf"]),
    ] {
        for label in labels {
            assert!(value(&families, name, Some(label)).abs() < f64::EPSILON, "{name} {label}");
        }
    }
    for name in [
        "deltapush_connections_turned_away_total",
        "deltapush_noticed_total",
        "deltapush_pushes_given_up_total",
        "deltapush_tokens_quarantined",
        "deltapush_trace_lines_dropped_total",
        "deltapush_log_lines_left_out_total",
        "deltapush_accounts",
        "deltapush_watch_interruptions_total",
        "deltapush_registrations_total",
    ] {
        assert!(value(&families, name, None).abs() < f64::EPSILON, "{name}");
    }
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
        "deltapush_state_writable",
        "deltapush_notification_server_up",
        "deltapush_certificate_start_timestamp_seconds",
        "deltapush_certificate_expiry_timestamp_seconds",
    ] {
        let least = if name.contains("cpu") { 0.0 } else { 1.0 };
        assert!(value(&families, name, None) >= least, "{name}");
    }
    for (name, family) in families.as_object().unwrap() {
        let kind = family["type"].as_str().unwrap();
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
        assert!(family["help"].as_str().unwrap().ends_with('.'), "{name} has no words");
        assert!(name.starts_with("deltapush_") || name.starts_with("process_"), "{name}");
    }
}

#[tokio::test]
async fn metrics_count_events_and_name_nobody() {
    let (mut scene, admin) = scene("admin-metrics", |_| ()).await;
    scene.register("secret-token").await;
    let mut wrong = scene.connect().await;
    wrong.send(&format!("a1 LOGIN {} wrong", scene.user)).await;
    wrong.until_tagged("a1").await;
    scene.deliver_news().await;
    scene.expect_pushes(&["secret-token"]).await;
    let mut client = scene.client().await;
    client.command("c2 SELECT INBOX").await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let families = loop {
        let families = parsed(&admin).await;
        if value(&families, "deltapush_posted_to_connected_seconds_count", None) > 0.0 {
            break families;
        }
        assert!(tokio::time::Instant::now() < deadline, "{families:#}");
        // The answer to the POST may have come after the login.
        scene.client().await;
    };
    for (name, label, exactly) in [
        ("deltapush_logins_total", Some("refused"), 1.0),
        ("deltapush_watches", Some("watching"), 1.0),
        ("deltapush_accounts", None, 1.0),
        ("deltapush_registrations_total", None, 1.0),
        ("deltapush_messages_judged_total", Some("push"), 1.0),
        ("deltapush_noticed_total", None, 1.0),
        ("deltapush_posts_total", Some("accepted"), 1.0),
        ("deltapush_noticed_to_posted_seconds_count", None, 1.0),
        ("deltapush_post_duration_seconds_count", None, 1.0),
    ] {
        assert!(
            (value(&families, name, label) - exactly).abs() < f64::EPSILON,
            "{name} {label:?}: {families:#}"
        );
    }
    for (name, label) in [
        ("deltapush_logins_total", Some("accepted")),
        ("deltapush_sessions", None),
        ("deltapush_connections_open", None),
        ("deltapush_connections_total", None),
        ("deltapush_relayed_bytes_total", Some("to_client")),
        ("deltapush_relayed_bytes_total", Some("to_upstream")),
        ("deltapush_noticed_to_posted_seconds_sum", None),
    ] {
        assert!(value(&families, name, label) > 0.0, "{name} {label:?}: {families:#}");
    }
    let text = families.to_string();
    for secret in ["admin-metrics", "secret-token", "@", "127.0.0.1"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
