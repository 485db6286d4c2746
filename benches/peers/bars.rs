//! What deltapush is to reach, and how far it is from there.

use super::candidate::{Entrant, Kind};
use super::figures::{Better, Figure, Series};
use super::page::Page;

/// How much of the yardstick's figures deltapush may lose, since it reads what passes.
const TO_BYTES: f64 = 1.1;

/// Something to reach.
pub(crate) struct Bar {
    pub(crate) figure: String,
    pub(crate) bar: String,
    pub(crate) measured: String,
    pub(crate) is_met: bool,
}

/// All bars of which something was measured.
pub(crate) fn all(page: &Page) -> Vec<Bar> {
    let (driven, entrants) = (&page.driven, &page.entrants);
    let mut bars = Vec::new();
    for figure in [&driven.throughput, &driven.per_gib] {
        bars.extend(worst(figure, "better than every peer", 1.0, |row| figure.to_best_peer(row, entrants)));
        let to_bytes = |row: &_| Figure::to_kind(row, Kind::Bytes, entrants);
        bars.extend(worst(figure, "within 10 % of bytes", TO_BYTES, to_bytes));
    }
    for figure in [&driven.median, &driven.slow, &driven.per_command] {
        bars.extend(worst(figure, "as good as the best peer", 1.0, |row| figure.to_best_peer(row, entrants)));
    }
    for figure in [&driven.logins, &driven.per_login] {
        bars.extend(worst(figure, "better than every peer", 1.0, |row| figure.to_best_peer(row, entrants)));
    }
    bars.extend(memory(page, entrants));
    bars.extend(while_idle(page));
    if let Some(watched) = &page.watched {
        bars.push(below("Watching: KiB each", 16.0, watched.kib_each, 1));
        let ratio = watched.start / watched.handshakes;
        bars.push(below("Start until all are watched, to bare handshakes", 1.5, ratio, 2));
    }
    bars
}

/// The worst row of a figure.
fn worst(figure: &Figure, bar: &str, allowed: f64, ratio: impl Fn(&super::figures::Row) -> Option<f64>) -> Option<Bar> {
    // As a cost, of which less is better.
    let cost = |ratio: f64| if figure.better == Better::Less { ratio } else { 1.0 / ratio };
    let rows = figure.rows.iter().filter_map(|row| Some((row, ratio(row)?)));
    let (row, ratio) = rows.max_by(|(_, a), (_, b)| cost(*a).total_cmp(&cost(*b)))?;
    Some(Bar {
        figure: figure.title.to_owned(),
        bar: bar.to_owned(),
        measured: format!("{ratio:.2} × ({})", row.name),
        is_met: cost(ratio) <= allowed,
    })
}

fn memory(page: &Page, entrants: &[Entrant]) -> Vec<Bar> {
    let Some(idle) = &page.idle else { return Vec::new() };
    let mut bars = Vec::new();
    let plain = idle.plain.rows.last();
    let ours = |row: &super::figures::Row| row.cells.first().and_then(|cell| cell.as_ref()).map(Series::median);
    if let Some(ratio) = plain.and_then(|row| Figure::to_kind(row, Kind::Haproxy, entrants)) {
        bars.push(below("Idle session: memory, to HAProxy's", 0.5, ratio, 2));
    }
    if let (Some(plain), Some(compressed)) = (plain.and_then(ours), idle.compressed.rows.last().and_then(ours)) {
        bars.push(below("Idle session, compressed: memory, to a plain one's", 1.25, compressed / plain, 2));
    }
    bars
}

/// Idle sessions and watched accounts are measured one after the other, and to be seen together.
fn while_idle(page: &Page) -> Option<Bar> {
    let idle = page.idle.as_ref()?.processor.rows.last()?.cells.first()?.as_ref()?.median();
    let percent = idle + page.watched.as_ref()?.percent;
    Some(below("Cost while nothing happens: percent of a core, idle and watching", 1.0, percent, 3))
}

fn below(figure: &str, bar: f64, measured: f64, digits: usize) -> Bar {
    Bar {
        figure: figure.to_owned(),
        bar: format!("at most {bar}"),
        measured: format!("{measured:.digits$}"),
        is_met: measured <= bar,
    }
}
