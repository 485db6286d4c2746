//! The latency report: how long each step took from the last message to push until the device fetched it.

use super::format::{answer, delay, short_hash};
use crate::telemetry::PostResult;
use crate::telemetry::history::{HistoryEntry, HistoryTime, Timeline, WatchNote, What};

/// A step longer than this, in milliseconds, is reported as a cause of the delay.
const LONG: u64 = 2_000;

/// The last new mail and the events after it.
struct Story<'a> {
    timeline: &'a Timeline,
    /// The index of the entry with the decision to wake the devices.
    noticed: usize,
    /// The time of the mail server's announcement or, for mail found by catch-up, of the discovery.
    news: HistoryTime,
    found_by_looking: bool,
    /// The account has one device.
    is_only_device: bool,
}

/// Explains the last pushed message of an account with this many devices, by sentences; empty if there was none.
pub(super) fn explain(timeline: &Timeline, devices: usize, now: HistoryTime) -> Vec<String> {
    let announced =
        |entry: &HistoryEntry| matches!(entry.what, What::Noticed { announce: true, .. });
    let Some(noticed) = timeline.entries.iter().rposition(announced) else { return Vec::new() };
    let Some(HistoryEntry { at, what: What::Noticed { heard, .. } }) =
        timeline.entries.get(noticed)
    else {
        return Vec::new();
    };
    let news = at.earlier(heard.unwrap_or(0));
    let story = Story {
        timeline,
        noticed,
        news,
        found_by_looking: heard.is_none(),
        is_only_device: devices == 1,
    };
    let mut said = vec![story.beginning(*at)];
    let devices = story.devices();
    if devices.is_empty() {
        said.push("No POST has been made since".into());
        said.extend(story.reason_to_wait());
    }
    said.extend(devices.into_iter().map(|device| story.of_device(device, *at, now)));
    said
}

impl Story<'_> {
    /// The events since the push decision: the POST may begin, even end, before the watch records the message.
    fn since(&self) -> impl Iterator<Item = &HistoryEntry> {
        let entries = &self.timeline.entries;
        let mut before = entries.iter().take(self.noticed);
        let last = before.rposition(|entry| matches!(entry.what, What::Noticed { .. }));
        let judged = (last.map_or(0, |last| last + 1)..self.noticed).find(|index| {
            let entry = entries.get(*index);
            entry.is_some_and(|entry| matches!(entry.what, What::Judged { skipped: None, .. }))
        });
        let start = judged.unwrap_or(self.noticed);
        let began = entries.get(start).map_or(0, |entry| entry.at.since_start);
        // A POST of an earlier message may end in between.
        let is_its = move |index: usize, entry: &HistoryEntry| match entry.what {
            What::Posted { took, .. } if index < self.noticed => {
                entry.at.earlier(took).since_start >= began
            }
            _ => true,
        };
        let later = entries.iter().enumerate().skip(start);
        later.filter(move |(index, entry)| is_its(*index, entry)).map(|(_, entry)| entry)
    }

    fn beginning(&self, noticed: HistoryTime) -> String {
        if !self.found_by_looking {
            let took = noticed.after(self.news);
            let slow = if took > LONG {
                ": the mail server's answers, a grace (push.grace) or this machine's disk took that long"
            } else {
                ""
            };
            return format!(
                "The last message to push was stored {} after the mail server announced it{slow}",
                delay(took)
            );
        }
        let before = self.timeline.entries.iter().take(self.noticed);
        let interrupted = before.rev().find_map(|entry| match &entry.what {
            What::Watch {
                state: WatchNote::Interrupted | WatchNote::AwaitingLogin, words, ..
            } => Some((entry.at, words)),
            _ => None,
        });
        match interrupted {
            Some((at, words)) => format!(
                "The last message to push was found by catch-up, {} after the watch had been interrupted ({words}): it \
                 may have arrived at any time in between",
                delay(self.news.after(at))
            ),
            None => "The last message to push was found by catch-up when the watch began: it had arrived before".into(),
        }
    }

    /// The devices with a POST since then.
    fn devices(&self) -> Vec<u32> {
        let mut devices = Vec::new();
        for entry in self.since() {
            if let What::Posted { device, .. } = entry.what
                && !devices.contains(&device)
            {
                devices.push(device);
            }
        }
        devices
    }

    fn reason_to_wait(&self) -> Option<String> {
        let waits = self.since().filter(|entry| matches!(entry.what, What::Waits { .. })).last()?;
        let What::Waits { pause, .. } = waits.what else { return None };
        Some(match pause {
            crate::telemetry::Pause::Coalescing => {
                "The push waits for the end of the coalescing window (push.coalesce)".into()
            }
            crate::telemetry::Pause::Failed => "The push waits for the next attempt".into(),
            crate::telemetry::Pause::Outage => {
                "The push waits for the notification server, which is down".into()
            }
        })
    }

    /// The steps from the record on disk to the device's fetch.
    fn of_device(&self, device: u32, noticed: HistoryTime, now: HistoryTime) -> String {
        let name = short_hash(device);
        let posts: Vec<(HistoryTime, PostResult, u32)> = self
            .since()
            .filter_map(|entry| match entry.what {
                What::Posted { device: whose, result, took } if whose == device => {
                    Some((entry.at, result, took))
                }
                _ => None,
            })
            .collect();
        let Some((at, last, _)) = posts.last().copied() else { return String::new() };
        let Some((accepted, _, took)) =
            posts.iter().find(|(_, result, _)| *result == PostResult::Accepted).copied()
        else {
            let tries = posts.len();
            return format!(
                "Device {name}: {tries} POSTs, none accepted; the last one {} ago: {}",
                delay(now.after(at)),
                answer(last)
            );
        };
        let waited = accepted.earlier(took).after(noticed);
        let failed =
            posts.iter().take_while(|(_, result, _)| *result != PostResult::Accepted).count();
        let why = match failed {
            0 if waited > LONG => {
                ", delayed by the coalescing window (push.coalesce), the rate limit (push.max_per_second) or an outage"
            }
            0 => "",
            _ => ", after attempts that failed",
        };
        let slow =
            if u64::from(took) > LONG { ": the notification server took that long" } else { "" };
        let push = format!(
            "Device {name}: POST {} after that{why}, accepted within {}{slow}",
            delay(waited),
            delay(took.into())
        );
        format!("{push}; {}", self.device_came(device, accepted, now))
    }

    /// Describes a background fetch in `session`, in which an app hands over no token.
    fn background_fetch(&self, came: HistoryTime, session: u64, accepted: HistoryTime) -> String {
        let who = if self.is_only_device {
            "the device"
        } else {
            "one of the account's devices (it is not known which one)"
        };
        let fetched = self.since().find_map(|entry| match entry.what {
            What::Fetched { session: whose, .. } if whose == session => Some(entry.at),
            _ => None,
        });
        let fetched = fetched.map_or_else(
            || "has not requested the message".to_owned(),
            |fetched| {
                format!(
                    "requested the message {} after the new mail",
                    delay(fetched.after(self.news))
                )
            },
        );
        format!(
            "{who} connected for a background fetch {} later and {fetched}",
            delay(came.after(accepted))
        )
    }

    fn device_came(&self, device: u32, accepted: HistoryTime, now: HistoryTime) -> String {
        let later =
            || self.since().filter(move |entry| entry.at.since_start >= accepted.since_start);
        let connected = later().find_map(|entry| match entry.what {
            What::Connected { device: Some(whose), .. } if whose == device => Some(entry.at),
            _ => None,
        });
        let fetched = later().find_map(|entry| match entry.what {
            What::Fetched { device: Some(whose), .. } if whose == device => Some(entry.at),
            _ => None,
        });
        let background = later().find_map(|entry| match entry.what {
            What::Connected { session, background: true, .. } => Some((entry.at, session)),
            _ => None,
        });
        // Of several devices it may have been another one: what is certain counts first.
        let is_first = |certain: HistoryTime| {
            self.is_only_device
                && background.is_some_and(|(came, _)| came.since_start <= certain.since_start)
        };
        if let Some((came, session)) = background
            && connected.or(fetched).is_none_or(is_first)
        {
            return self.background_fetch(came, session, accepted);
        }
        match (connected, fetched) {
            (Some(connected), fetched) => {
                let took = connected.after(accepted);
                let slow = if took > LONG {
                    " (the push service's time, and the phone's: saving its battery, or without network)"
                } else {
                    ""
                };
                let fetched = match fetched {
                    Some(fetched) => format!(
                        "it fetched {} after that, {} after the new mail",
                        delay(fetched.after(connected)),
                        delay(fetched.after(self.news))
                    ),
                    None => "it has not requested the message since".into(),
                };
                format!("the device connected {}{slow} later; {fetched}", delay(took))
            }
            (None, Some(fetched)) => {
                format!(
                    "it was connected already and fetched {} after the new mail",
                    delay(fetched.after(self.news))
                )
            }
            (None, None) => format!(
                "it has not connected since, for {}: the push service has not reached it, or the phone does not let the app run \
                 (battery saving, no network); `deltapush push-test` shows whether a push wakes it",
                delay(now.after(accepted))
            ),
        }
    }
}
