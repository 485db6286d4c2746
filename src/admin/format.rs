//! Formatting shared by status, history and web page: times, delays, POST results.

use std::time::Duration;

use jiff::Timestamp;

pub(crate) use crate::printable::counted;
use crate::store::UnixTime;
use crate::telemetry::PostResult;

/// Describes the result of a POST and its meaning.
#[must_use]
pub fn answer(result: PostResult) -> String {
    match result {
        PostResult::Accepted => "accepted".into(),
        PostResult::Gone => {
            "the notification server rejected the token as gone (410): the app was removed, or its push service no \
                             longer knows the device"
                .into()
        }
        PostResult::Refused(status) => format!("the notification server refuses the token (status {status})"),
        PostResult::Failed(status) => format!("the notification server reported an error (status {status})"),
        PostResult::TimedOut => "the notification server did not answer in time".into(),
        PostResult::Unreachable => "the notification server could not be reached".into(),
    }
}

/// The short hash that names a device's token.
#[must_use]
pub fn short_hash(device: u32) -> String {
    format!("{device:08x}")
}

/// A duration in whole seconds: `12d 4h 3m 2s`.
#[must_use]
pub fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        (seconds.div_euclid(86_400), "d"),
        (seconds.div_euclid(3600).rem_euclid(24), "h"),
        (seconds.div_euclid(60).rem_euclid(60), "m"),
        (seconds.rem_euclid(60), "s"),
    ];
    let said: Vec<String> =
        units.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if said.is_empty() { "0s".into() } else { said.join(" ") }
}

/// The same in its two largest units: `3h 12m`.
#[must_use]
pub fn brief(duration: Duration) -> String {
    let whole = rounded(duration);
    let mut units = whole.split(' ');
    match (units.next(), units.next()) {
        (Some(first), Some(second)) => format!("{first} {second}"),
        _ => whole,
    }
}

/// A duration that is usually below a minute.
#[must_use]
pub fn delay(milliseconds: u64) -> String {
    match milliseconds {
        0..=999 => format!("{milliseconds} ms"),
        1_000..=59_999 => {
            format!(
                "{}.{} s",
                milliseconds.div_euclid(1000),
                milliseconds.rem_euclid(1000).div_euclid(100)
            )
        }
        _ => brief(Duration::from_millis(milliseconds)),
    }
}

/// The time from a moment to `now`: `3m 5s ago`.
#[must_use]
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    match brief(now.duration_since(time).max(jiff::SignedDuration::ZERO).unsigned_abs()).as_str() {
        "0s" => "just now".into(),
        ago => format!("{ago} ago"),
    }
}

/// A day.
#[must_use]
pub fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// A second.
#[must_use]
pub fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Foreign text on one line, with the control characters of terminals escaped.
#[must_use]
pub fn tame(text: &str) -> String {
    text.chars()
        .map(
            |char| {
                if char.is_control() { char.escape_default().to_string() } else { char.to_string() }
            },
        )
        .collect()
}

/// A time of the store.
pub(super) fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp::from_second(time.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_precise_as_a_person_wants() {
        assert_eq!(
            (delay(7).as_str(), delay(1_960).as_str(), delay(61_500).as_str()),
            ("7 ms", "1.9 s", "1m 1s")
        );
        assert_eq!(brief(Duration::from_secs(3 * 3600 + 12 * 60 + 5)), "3h 12m");
        assert_eq!(rounded(Duration::from_secs(12 * 86_400 + 4 * 3600)), "12d 4h");
        assert_eq!(
            (counted(1, "account"), counted(0, "account")),
            ("1 account".into(), "0 accounts".into())
        );
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(ago(Timestamp::from_second(910).unwrap(), now), "1m 30s ago");
        assert_eq!(ago(Timestamp::from_second(2000).unwrap(), now), "just now");
    }

    #[test]
    fn words_of_others_do_not_command_a_terminal() {
        assert_eq!(tame("grüße\x1b[2J\r\n"), "grüße\\u{1b}[2J\\r\\n");
    }
}
