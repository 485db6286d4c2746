//! The figures that deltapush is to reach, and its distance from them.

use super::candidate::{Entrant, Kind};
use super::figures::{Better, Figure, Row, Series};
use super::page::Page;

/// The factor of the yardstick's figures that deltapush may lose, since it reads what passes.
const TO_BYTES: f64 = 1.1;

/// Something to reach.
pub(crate) struct Bar {
    pub(crate) figure: String,
    pub(crate) bar: String,
    pub(crate) measured: String,
    /// The same without nginx's mail proxy, which does without TLS to the server.
    pub(crate) with_tls: String,
    pub(crate) is_met: bool,
}

/// All bars of which something was measured.
pub(crate) fn all(page: &Page) -> Vec<Bar> {
    let (driven, entrants) = (&page.driven, &page.entrants);
    let mut bars = Vec::new();
    for figure in [&driven.throughput, &driven.per_gib] {
        bars.extend(to_peers(figure, "better than every peer", entrants));
        bars.extend(to_bytes(figure, entrants));
    }
    for figure in [&driven.median, &driven.slow, &driven.per_command] {
        bars.extend(to_peers(figure, "as good as the best peer", entrants));
    }
    for figure in [&driven.logins, &driven.per_login] {
        bars.extend(to_peers(figure, "better than every peer", entrants));
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

/// The row in which deltapush is worst: what it takes of what another takes, turned over where more is better.
struct Worst {
    cost: f64,
    text: String,
}

fn worst(figure: &Figure, against: impl Fn(&Row) -> Option<(f64, String)>) -> Option<Worst> {
    let cost = |ratio: f64| if figure.better == Better::Less { ratio } else { 1.0 / ratio };
    let rows = figure.rows.iter().filter_map(|row| Some((row, against(row)?)));
    let (row, (ratio, whom)) =
        rows.max_by(|(_, (a, _)), (_, (b, _))| cost(*a).total_cmp(&cost(*b)))?;
    Some(Worst { cost: cost(ratio), text: format!("{ratio:.2} × {whom} ({})", row.name) })
}

fn to_peers(figure: &Figure, bar: &str, entrants: &[Entrant]) -> Option<Bar> {
    let to_best = |row: &Row, counts: &dyn Fn(Kind) -> bool| {
        let best = figure.best(row, entrants, counts)?;
        let ratio = row.cells.first()?.as_ref()?.ratio_to(row.cells.get(best)?.as_ref()?)?;
        Some((ratio, entrants.get(best)?.name().to_owned()))
    };
    let all = worst(figure, |row| to_best(row, &Kind::is_peer))?;
    let with_tls =
        worst(figure, |row| to_best(row, &|kind| kind.is_peer() && kind != Kind::NginxMail));
    Some(Bar {
        figure: figure.title.to_owned(),
        bar: bar.to_owned(),
        measured: all.text,
        with_tls: with_tls.map(|worst| worst.text).unwrap_or_default(),
        is_met: all.cost <= 1.0,
    })
}

fn to_bytes(figure: &Figure, entrants: &[Entrant]) -> Option<Bar> {
    let worst = worst(figure, |row| {
        Some((Figure::to_kind(row, Kind::Bytes, entrants)?, "bytes".to_owned()))
    })?;
    Some(Bar {
        figure: figure.title.to_owned(),
        bar: "within 10 % of bytes".to_owned(),
        measured: worst.text,
        with_tls: String::new(),
        is_met: worst.cost <= TO_BYTES,
    })
}

fn memory(page: &Page, entrants: &[Entrant]) -> Vec<Bar> {
    let Some(idle) = &page.idle else { return Vec::new() };
    let mut bars = Vec::new();
    let plain = idle.plain.rows.last();
    let ours = |row: &Row| row.cells.first().and_then(|cell| cell.as_ref()).map(Series::median);
    if let Some(ratio) = plain.and_then(|row| Figure::to_kind(row, Kind::Haproxy, entrants)) {
        bars.push(below("Idle session: memory, to HAProxy's", 0.5, ratio, 2));
    }
    if let (Some(plain), Some(compressed)) =
        (plain.and_then(ours), idle.compressed.rows.last().and_then(ours))
    {
        bars.push(below(
            "Idle session, compressed: memory, to a plain one's",
            1.25,
            compressed / plain,
            2,
        ));
    }
    bars
}

fn while_idle(page: &Page) -> Option<Bar> {
    let percent = page.together.as_ref()?.percent;
    Some(below("Cost while nothing happens: percent of a core, idle and watching", 1.0, percent, 3))
}

fn below(figure: &str, bar: f64, measured: f64, digits: usize) -> Bar {
    Bar {
        figure: figure.to_owned(),
        bar: format!("at most {bar}"),
        measured: format!("{measured:.digits$}"),
        with_tls: String::new(),
        is_met: measured <= bar,
    }
}
