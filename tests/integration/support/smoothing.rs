//! Removes the differences between two sessions that are equal otherwise from a server's lines.

/// Without the time that a command took, which servers put in brackets behind their answer: Dovecot `(0.001 + 0.000 secs)`,
/// Cyrus `(2 msgs in 0.001 secs)`, and `(0.001 sec)` in the singular where the time is below a thousandth.
pub(crate) fn without_time(text: &str) -> String {
    let took = |line: &str| {
        let (before, rest) = line.rsplit_once(" (")?;
        let (_, after) = rest.rsplit_once(" secs)").or_else(|| rest.rsplit_once(" sec)"))?;
        Some(format!("{before} (TIME){after}"))
    };
    text.split_inclusive('\n').map(|line| took(line).unwrap_or_else(|| line.to_owned())).collect()
}

#[test]
fn times_of_all_servers_are_smoothed() {
    for (said, smoothed) in [
        ("OK Fetch completed (0.001 + 0.000 secs).\n", "OK Fetch completed (TIME).\n"),
        ("OK Completed (2 msgs in 0.001 secs)\r\n", "OK Completed (TIME)\r\n"),
        ("OK Completed (0.000 sec)\n* 1 EXISTS\n", "OK Completed (TIME)\n* 1 EXISTS\n"),
        ("* LIST () \".\" (secs)\n", "* LIST () \".\" (secs)\n"),
    ] {
        assert_eq!(without_time(said), smoothed);
    }
}
