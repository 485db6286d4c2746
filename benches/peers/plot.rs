//! The plot: for each row of each table a line, on it a dot for each program, at its ratio to the best peer. Right is better.

use std::fmt::Write as _;

use super::candidate::{Entrant, Kind};
use super::figures::{Better, Figure, Row, Series};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 270.0;
const RIGHT: f64 = 20.0;
const LINE: f64 = 18.0;
const HEAD: f64 = 50.0;

/// The ends of the scale; what lies beyond is drawn at the end.
const LEAST: f64 = 1.0 / 16.0;
const MOST: f64 = 4.0;
const TICKS: [(f64, &str); 7] = [
    (1.0 / 16.0, "1/16"),
    (0.125, "1/8"),
    (0.25, "1/4"),
    (0.5, "1/2"),
    (1.0, "best peer"),
    (2.0, "2"),
    (4.0, "4"),
];

/// Draws all figures that have a best peer.
pub(crate) fn svg(figures: &[&Figure], entrants: &[Entrant]) -> String {
    let mut body = String::new();
    let mut y = HEAD;
    for figure in figures {
        let rows: Vec<_> = figure
            .rows
            .iter()
            .filter_map(|row| {
                // With too few measurements, there is nothing to compare.
                figure.to_best_peer(row, entrants)?;
                Some((row, figure.best_peer(row, entrants)?))
            })
            .collect();
        if rows.is_empty() {
            continue;
        }
        y += LINE * 1.5;
        text(&mut body, 8.0, y, "start", figure.title, true);
        for (row, best) in rows {
            y += LINE;
            text(&mut body, LEFT - 12.0, y + 4.0, "end", &row.name, false);
            draw_row(&mut body, y, figure, row, best, entrants);
        }
    }
    let height = y + LINE * 1.5;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (value, name) in TICKS {
        let (x, colour) =
            (place(value), if (value - 1.0).abs() < f64::EPSILON { "#888" } else { "#ddd" });
        line(&mut svg, (x, HEAD), (x, height - LINE), colour);
        text(&mut svg, x, HEAD - 6.0, "middle", name, false);
    }
    legend(&mut svg, entrants);
    svg + &body + "</svg>\n"
}

fn draw_row(
    body: &mut String,
    y: f64,
    figure: &Figure,
    row: &Row,
    best: usize,
    entrants: &[Entrant],
) {
    line(body, (LEFT, y), (WIDTH - RIGHT, y), "#eee");
    let Some(Some(best)) = row.cells.get(best) else { return };
    // deltapush comes last, so that no dot lies on its own.
    for (entrant, cell) in entrants.iter().zip(&row.cells).rev() {
        let Some(ratio) = cell.as_ref().and_then(|cell: &Series| cell.ratio_to(best)) else {
            continue;
        };
        let good = if figure.better == Better::More { ratio } else { 1.0 / ratio };
        dot(body, place(good), y, entrant);
    }
}

/// The position of a ratio on the scale.
fn place(ratio: f64) -> f64 {
    let part = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    LEFT + part * (WIDTH - LEFT - RIGHT)
}

fn legend(svg: &mut String, entrants: &[Entrant]) {
    let mut x = 14.0;
    for entrant in entrants {
        dot(svg, x, 14.0, entrant);
        text(svg, x + 9.0, 18.0, "start", entrant.name(), false);
        x += 115.0;
    }
}

fn dot(svg: &mut String, x: f64, y: f64, entrant: &Entrant) {
    let (colour, radius) = match entrant.kind {
        Kind::Deltapush => ("#d62728", 5.5),
        Kind::Bytes => ("#111", 4.0),
        Kind::NginxStream => ("#2ca02c", 4.0),
        Kind::NginxMail => ("#98df8a", 4.0),
        Kind::Haproxy => ("#1f77b4", 4.0),
        Kind::Stunnel => ("#9467bd", 4.0),
        Kind::Dovecot => ("#ff7f0e", 4.0),
    };
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\"/>");
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str, bold: bool) {
    let weight = if bold { " font-weight=\"bold\"" } else { "" };
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{weight}>{text}</text>"
    );
}
