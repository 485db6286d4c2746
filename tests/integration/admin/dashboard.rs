//! The Grafana dashboard: it shows all metrics, and asks for none that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::alone;
use super::metrics::parse;

/// The row for several nodes.
const OF_NODES: &str = "Nodes";

#[tokio::test]
async fn dashboard_shows_what_there_is() {
    let (_deltapush, admin) = alone();
    let (_, text) = admin.get("/metrics").await;
    assert_dashboard_shows(&text, |row| row != OF_NODES);
}

/// Makes sure that the metrics have all that these rows of the dashboard ask for, and that these rows show all of deltapush's.
pub(crate) fn assert_dashboard_shows(metrics: &str, is_row: impl Fn(&str) -> bool) {
    let families = parse(metrics);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/grafana/deltapush.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let queries = queries(&dashboard, is_row);
    assert!(queries.len() > 15, "{queries:?}");
    let samples: Vec<&Value> = families
        .as_object()
        .unwrap()
        .values()
        .flat_map(|family| family["samples"].as_array().unwrap())
        .collect();
    let mut asked = BTreeSet::new();
    for query in &queries {
        let names: Vec<&str> =
            query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let metrics: Vec<&str> = (names.iter().copied())
            .filter(|name| name.starts_with("deltapush_") || name.starts_with("process_"))
            .collect();
        assert!(!metrics.is_empty(), "{query}");
        for metric in metrics {
            assert!(
                samples.iter().any(|sample| sample[0] == metric),
                "{query}: there is no {metric}"
            );
            asked.insert(metric.to_owned());
        }
        // `by (label)`, and `label="value"`.
        for label in query.split("by (").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let has = |sample: &&&Value| {
                query.contains(sample[0].as_str().unwrap()) && !sample[1][label].is_null()
            };
            assert!(samples.iter().find(has).is_some(), "{query}: no label {label}");
        }
        let matchers =
            query.split('{').skip(1).flat_map(|rest| rest.split('}').next().unwrap().split(','));
        for (label, wanted) in matchers.filter_map(|matcher| matcher.split_once('=')) {
            let wanted = wanted.trim_matches('"');
            let has = |sample: &&&Value| {
                query.contains(sample[0].as_str().unwrap()) && sample[1][label] == wanted
            };
            // That one is Prometheus's own.
            assert!(
                label == "instance" || samples.iter().find(has).is_some(),
                "{query}: no {label} {wanted}"
            );
        }
    }
    // All that deltapush itself counts is shown.
    for sample in &samples {
        let name = sample[0].as_str().unwrap();
        let is_part = name.ends_with("_count") || name.ends_with("_sum");
        assert!(
            !name.starts_with("deltapush_") || is_part || asked.contains(name),
            "the dashboard does not show {name}"
        );
    }
}

fn queries(dashboard: &Value, is_row: impl Fn(&str) -> bool) -> Vec<String> {
    let (mut queries, mut is_wanted) = (Vec::new(), true);
    for panel in dashboard["panels"].as_array().unwrap() {
        if panel["type"] == "row" {
            is_wanted = is_row(panel["title"].as_str().unwrap());
        }
        for target in panel["targets"].as_array().into_iter().flatten().filter(|_| is_wanted) {
            queries.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    queries
}
