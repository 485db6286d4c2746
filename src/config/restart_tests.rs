//! The marks "(restart)" in docs/configuration.md, compared with the parts of [`Config`] that each key changes.

use super::*;

const REFERENCE: &str = include_str!("../../docs/configuration.md");

/// Values of which some key takes one that is not its default.
const VALUES: [&str; 17] = [
    "true",
    "false",
    "7",
    "7s",
    "2m",
    "7/s",
    "9KiB",
    "80B",
    "127.0.0.1:7",
    "https://a.example/",
    "you@a.example",
    "[a.example]",
    "takeover",
    "memory",
    "json",
    "debug",
    "x",
];

/// Values of keys that take only few.
const OWN_VALUES: [(&str, &str); 5] = [
    ("relay.jmapaccess", "pass"),
    ("storage.postgres.url", "postgresql://db.example.org/deltapush"),
    ("push.messages", "chat"),
    ("allow.networks", "[192.0.2.1]"),
    ("trace.directory", "elsewhere"),
];

fn parse(text: &str) -> Option<Config> {
    Config::parse(text, Path::new(""), "test").ok()
}

/// Key and mark of each row whose key stands alone, without a list or a name around it.
fn rows() -> impl Iterator<Item = (&'static str, bool)> {
    REFERENCE.lines().filter_map(|row| {
        let (key, rest) = row.strip_prefix("| `")?.split_once("` |")?;
        let is_alone = !key.contains("[]") && !key.contains("NAME") && key != "metadata";
        // A certificate needs several keys at once, files of the trace their folder, and a database its URL.
        let needs_others =
            ["certificate.", "trace.", "storage.postgres.ca", "storage.postgres.pass"];
        let needs_others = needs_others.iter().any(|others| key.starts_with(others));
        (is_alone && !needs_others).then_some((key, rest.ends_with(" (restart) |")))
    })
}

/// A configuration in which `key` differs from its default.
fn changed(key: &str) -> Config {
    let own = OWN_VALUES.into_iter().filter(|(own, _)| *own == key).map(|(_, value)| value);
    let with = |value: &str| {
        let yaml =
            key.rsplit('.').fold(value.to_owned(), |inner, name| format!("{{{name}: {inner}}}"));
        parse(&yaml).filter(|config| *config != Config::default())
    };
    own.chain(VALUES).find_map(with).unwrap_or_else(|| panic!("no value changes {key}"))
}

#[test]
fn reference_marks_the_keys_that_need_a_restart() {
    let default = Config::default();
    let mut compared = 0;
    for (key, is_marked) in rows() {
        let config = changed(key);
        assert_eq!(config.startup != default.startup, is_marked, "{key}");
        assert_eq!(config.live == default.live, is_marked, "{key}");
        compared += 1;
    }
    assert!(compared > 55, "{compared}");
}
