//! Two SVG plots of the last day, without scripts: messages, and delays of pushes.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::format;
use crate::telemetry::metrics::now;
use crate::telemetry::series::{SLOT_SECONDS, SLOTS, Slot};

/// The height of a plot, in units of its own; the width is one unit for each slot.
const HEIGHT: f64 = 40.0;

/// The part of a slot's width that a bar takes.
const BAR: f64 = 0.8;

/// A bar of a plot.
struct Bar {
    slot: usize,
    value: f64,
    class: &'static str,
    words: String,
}

/// Both plots of `slots`, the last of which is in progress.
pub(super) fn plots(slots: &[Slot]) -> Markup {
    let messages: u64 = slots.iter().map(|slot| u64::from(slot.messages)).sum();
    let pushes: u32 = slots.iter().map(|slot| slot.pushes).sum();
    let delay = slots.iter().map(|slot| slot.delay).sum::<Duration>();
    let longest = slots.iter().map(|slot| slot.longest).max().unwrap_or_default();
    let late = match delay.checked_div(pushes) {
        Some(average) => format!("{} on average, {} at most", in_words(average), in_words(longest)),
        None => "no push yet".to_owned(),
    };
    html! {
        div.plots {
            (plot("Messages", &counted(messages, "message to be pushed", "messages to be pushed"), &message_bars(slots),
                |value| format!("{value:.0}")))
            (plot("Push delay", &late, &delay_bars(slots), |value| in_words(Duration::from_secs_f64(value))))
        }
    }
}

fn counted(number: u64, one: &str, more: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {more}") }
}

fn in_words(duration: Duration) -> String {
    format::delay(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn message_bars(slots: &[Slot]) -> Vec<Bar> {
    let bars = slots.iter().enumerate().filter(|(_, slot)| slot.messages > 0);
    bars.map(|(place, slot)| {
        let words =
            format!("{}: {}", span(place), counted(slot.messages.into(), "message", "messages"));
        Bar { slot: place, value: slot.messages.into(), class: "main", words }
    })
    .collect()
}

/// The longest delay behind the average one.
fn delay_bars(slots: &[Slot]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (place, slot) in slots.iter().enumerate() {
        let Some(average) = slot.average() else { continue };
        let span = span(place);
        let words = format!("{span}: {} at most", in_words(slot.longest));
        bars.push(Bar { slot: place, value: slot.longest.as_secs_f64(), class: "behind", words });
        let words = format!("{span}: {} on average", in_words(average));
        bars.push(Bar { slot: place, value: average.as_secs_f64(), class: "main", words });
    }
    bars
}

/// The time span of a slot, of those that end now.
fn span(place: usize) -> String {
    let time = |seconds: u64| {
        let time =
            Timestamp::from_second(i64::try_from(seconds).unwrap_or_default()).unwrap_or_default();
        time.strftime("%H:%M").to_string()
    };
    let newest = now() / SLOT_SECONDS;
    let number = newest.saturating_sub((SLOTS - 1 - place) as u64);
    let begin = number * SLOT_SECONDS;
    format!("{}–{} UTC", time(begin), time(begin + SLOT_SECONDS))
}

fn plot(title: &str, words: &str, bars: &[Bar], label: impl Fn(f64) -> String) -> Markup {
    let highest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let top = round_up(highest);
    html! {
        figure {
            figcaption { strong { (title) } " " span.quiet { (words) } }
            div.plot {
                span.top { @if highest > 0.0 { (label(top)) } }
                svg viewBox={ "0 0 " (SLOTS) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                    aria-label={ (title) ", the last 24 hours: " (words) } {
                    line.grid x1="0" x2=(SLOTS) y1="0" y2="0" {}
                    line.grid x1="0" x2=(SLOTS) y1=(HEIGHT / 2.0) y2=(HEIGHT / 2.0) {}
                    line.grid x1="0" x2=(SLOTS) y1=(HEIGHT) y2=(HEIGHT) {}
                    @for bar in bars { (drawn(bar, top)) }
                }
            }
            div.hours aria-hidden="true" { span { "24 h ago" } span { "18 h" } span { "12 h" } span { "6 h" } span { "now" } }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a slot's number is far below what a float holds exactly"
)]
fn drawn(bar: &Bar, top: f64) -> Markup {
    // The smallest bar is still visible.
    let height = (bar.value / top * HEIGHT).clamp(0.8, HEIGHT);
    html! {
        rect class=(bar.class) x=(format!("{:.1}", bar.slot as f64 + (1.0 - BAR) / 2.0)) y=(format!("{:.2}", HEIGHT - height))
            width=(BAR) height=(format!("{height:.2}")) { title { (bar.words) } }
    }
}

/// The next of 1, 2 and 5 with a power of ten: what an axis may end with.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= value)
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_with_round_numbers() {
        for (value, top) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (1.1, 2.0),
            (3.0, 5.0),
            (7.0, 10.0),
            (140.0, 200.0),
            (0.03, 0.05),
        ] {
            assert!((round_up(value) - top).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn plot_says_in_words_what_it_shows_and_nothing_leaves_it() {
        let mut slots = vec![Slot::default(); SLOTS];
        slots[3] = Slot { messages: 1, ..Slot::default() };
        slots[143] = Slot {
            messages: 4,
            pushes: 2,
            delay: Duration::from_secs(3),
            longest: Duration::from_millis(2500),
        };
        let text = plots(&slots).into_string();
        assert!(text.contains("Messages, the last 24 hours: 5 messages to be pushed"), "{text}");
        assert!(text.contains("1.5 s on average, 2.5 s at most"), "{text}");
        assert_eq!(text.matches("<rect").count(), 4);
        let heights = text
            .split(" height=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse::<f64>().unwrap());
        assert!(heights.into_iter().all(|height| (0.0..=HEIGHT).contains(&height)), "{text}");
        let empty = plots(&vec![Slot::default(); SLOTS]).into_string();
        assert!(
            empty.contains("0 messages to be pushed")
                && empty.contains("no push yet")
                && !empty.contains("<rect")
        );
    }
}
