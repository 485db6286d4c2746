//! The result: a full report for standard output, and the summary in docs/performance.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::candidate::{Entrant, Kind};
use super::figures::{Better, Driven, Figure, Row};
use super::idle::Idle;
use super::machine::Meanwhile;
use super::together::Together;
use super::watching::Watched;
use super::{bars, plot};

/// The text between these lines in docs/performance.md is replaced.
const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// All that was measured.
pub(crate) struct Page {
    pub(crate) entrants: Vec<Entrant>,
    pub(crate) machine: Vec<String>,
    pub(crate) driven: Driven,
    pub(crate) idle: Option<Idle>,
    pub(crate) together: Option<Together>,
    pub(crate) watched: Option<Watched>,
    pub(crate) notes: Vec<String>,
    pub(crate) meanwhile: Meanwhile,
    pub(crate) took: Duration,
}

impl Page {
    pub(crate) fn figures(&self) -> Vec<&Figure> {
        let mut figures = self.driven.all().to_vec();
        if let Some(idle) = &self.idle {
            figures.extend([&idle.plain, &idle.compressed, &idle.sockets, &idle.processor]);
        }
        figures.retain(|figure| !figure.rows.is_empty());
        figures
    }

    /// The full report.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.machine();
        text += &format!("- measuring took {} s", self.took.as_secs());
        if let Some(others) = self.meanwhile.others() {
            text += &format!(
                "; while programs were driven, others on this machine took {others:.0} % of its processors"
            );
        }
        text += "\n";
        for figure in self.figures() {
            text += &self.table(figure);
        }
        text += &self.together();
        text += &self.watching();
        let idle_notes = self.idle.iter().flat_map(|idle| &idle.notes);
        for (index, note) in self.notes.iter().chain(idle_notes).enumerate() {
            text += &format!("{}- {note}\n", if index == 0 { "\n" } else { "" });
        }
        text += &self.bars();
        text
    }

    /// The part of the report that docs/performance.md shows: the last row of each figure, and the bars that were missed.
    pub(crate) fn summary(&self) -> String {
        let mut text = self.machine();
        text += "\n| | deltapush | bytes | best other proxy |\n| --- | ---: | ---: | ---: |\n";
        let bytes = self.entrants.iter().position(|entrant| entrant.kind == Kind::Bytes);
        for figure in self.figures() {
            let Some(row) = figure.rows.last() else { continue };
            let best = figure.best_peer(row, &self.entrants).map_or("–".to_owned(), |column| {
                format!("{} ({})", cell(figure, row, column), self.entrants[column].name())
            });
            let bytes = bytes.map_or("–".to_owned(), |column| cell(figure, row, column));
            let ours = cell(figure, row, 0);
            let _ =
                writeln!(text, "| {}: {} | {ours} | {bytes} | {best} |", figure.title, row.name);
        }
        text + &self.watching() + &self.missed_bars()
    }

    fn machine(&self) -> String {
        self.machine.iter().map(|line| format!("- {line}\n")).collect()
    }

    fn table(&self, figure: &Figure) -> String {
        let better =
            if figure.better == Better::More { "more is better" } else { "less is better" };
        let mut text = format!("\n### {}\n\n{better}\n\n|", figure.title);
        let has_ratio =
            figure.rows.iter().any(|row| figure.to_best_peer(row, &self.entrants).is_some());
        let columns: Vec<usize> = (0..self.entrants.len())
            .filter(|column| figure.rows.iter().any(|row| row.cells[*column].is_some()))
            .collect();
        for column in &columns {
            text += &format!(" | {}", self.entrants[*column].name());
        }
        let ratios = if has_ratio { " | to the best peer | to bytes" } else { "" };
        text += &format!("{ratios} |\n| ---");
        text += &" | ---:".repeat(columns.len() + if has_ratio { 2 } else { 0 });
        text += " |\n";
        for row in &figure.rows {
            text += &format!("| {}", row.name);
            for column in &columns {
                text += &format!(" | {}", cell(figure, row, *column));
            }
            if has_ratio {
                let ratios = [
                    figure.to_best_peer(row, &self.entrants),
                    Figure::to_kind(row, Kind::Bytes, &self.entrants),
                ];
                for ratio in ratios {
                    text += &ratio.map_or(" | –".to_owned(), |ratio| format!(" | {ratio:.2}"));
                }
            }
            text += " |\n";
        }
        text
    }

    fn together(&self) -> String {
        let Some(Together { sessions, percent }) = self.together else { return String::new() };
        format!(
            "\n### Idle and watching, in one process\n\n{sessions} sessions that wait, and {sessions} accounts that are watched: \
             {percent:.3} % of a core.\n"
        )
    }

    fn watching(&self) -> String {
        let Some(watched) = &self.watched else { return String::new() };
        let mut text = "\n### Watching\n\n| | deltapush |\n| --- | ---: |\n".to_owned();
        let accounts = watched.accounts;
        let mut row = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {name} | {value} |");
        };
        row("accounts", accounts.to_string());
        row("KiB each", format!("{:.1}", watched.kib_each));
        row("percent of a core for all, while nothing happens", format!("{:.3}", watched.percent));
        row("from the start until all are watched", format!("{:.2} s", watched.start));
        row("as many bare TLS handshakes at the same pace", format!("{:.2} s", watched.handshakes));
        row("from a message to its POST: median", format!("{:.2} ms", watched.percentile(50)));
        row(
            "from a message to its POST: 99th percentile",
            format!("{:.2} ms", watched.percentile(99)),
        );
        text
    }

    fn missed_bars(&self) -> String {
        let bars = bars::all(self);
        let met = bars.iter().filter(|bar| bar.is_met).count();
        let mut text = format!("\n### Bars\n\n{met} of {} bars were met. Missed:\n\n", bars.len());
        for bar in bars.iter().filter(|bar| !bar.is_met) {
            let _ = writeln!(text, "- {}: {}, {}", bar.figure, bar.bar, bar.measured);
        }
        text
    }

    fn bars(&self) -> String {
        let bars = bars::all(self);
        if bars.is_empty() {
            return String::new();
        }
        let mut text = "\n### Bars\n\n\
             The worst row of each figure: deltapush compared with the best other program.\n\n\
             | figure | bar | measured | | without nginx mail, which has no TLS to the server |\n\
             | --- | --- | --- | --- | --- |\n"
            .to_owned();
        for bar in bars {
            let met = if bar.is_met { "met" } else { "**missed**" };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {met} | {} |",
                bar.figure, bar.bar, bar.measured, bar.with_tls
            );
        }
        text
    }

    pub(crate) fn plot(&self) -> String {
        plot::svg(&self.figures(), &self.entrants)
    }
}

fn cell(figure: &Figure, row: &Row, column: usize) -> String {
    let Some(Some(series)) = row.cells.get(column) else { return "–".to_owned() };
    let (median, digits) = (series.median(), figure.digits);
    if series.0.len() < 2 {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ± {:.0} %", series.spread() * 100.0)
}

/// Replaces the summary in docs/performance.md and the plot next to it.
pub(crate) fn write(text: &str, plot: &str) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = docs.join("performance.md");
    let old = fs::read_to_string(&page)?;
    let (before, rest) =
        old.split_once(BEGIN).context("docs/performance.md has no place for what is measured")?;
    let (_, after) =
        rest.split_once(END).context("docs/performance.md has no end of what is measured")?;
    let plot_line = "![deltapush and its peers, to the best peer](performance.svg)";
    fs::write(&page, format!("{before}{BEGIN}\n{text}\n{plot_line}\n{END}{after}"))?;
    Ok(fs::write(docs.join("performance.svg"), plot)?)
}
