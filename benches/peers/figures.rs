//! Figures: what was measured, by row and column, and what is to be said of it.

use super::candidate::{Entrant, Kind};
use super::load::Sample;
use super::work::{Measurement, Work};

/// The better direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// Measured values of all rounds, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series(pub(crate) Vec<f64>);

impl Series {
    pub(crate) fn median(&self) -> f64 {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Half of what lies between the extremes, as a part of the median.
    pub(crate) fn spread(&self) -> f64 {
        let (least, most) =
            (self.0.iter().copied().reduce(f64::min), self.0.iter().copied().reduce(f64::max));
        (most.unwrap_or_default() - least.unwrap_or_default()) / 2.0 / self.median()
    }

    /// The median of what comes out in each round: noise meets both alike.
    /// None where it was too little to be measured.
    pub(crate) fn ratio_to(&self, other: &Self) -> Option<f64> {
        let ratio = Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
            .median();
        (ratio.is_finite() && ratio > 0.0).then_some(ratio)
    }
}

/// One line of a table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// The values of each entrant, if it was measured.
    pub(crate) cells: Vec<Option<Series>>,
}

/// One table.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) title: &'static str,
    pub(crate) better: Better,
    pub(crate) digits: usize,
    pub(crate) rows: Vec<Row>,
}

impl Figure {
    pub(crate) fn new(title: &'static str, better: Better, digits: usize) -> Self {
        Self { title, better, digits, rows: Vec::new() }
    }

    /// The best of other people's programs in a row: its column.
    pub(crate) fn best_peer(&self, row: &Row, entrants: &[Entrant]) -> Option<usize> {
        self.best(row, entrants, Kind::is_peer)
    }

    /// The best of those that count.
    pub(crate) fn best(
        &self,
        row: &Row,
        entrants: &[Entrant],
        counts: impl Fn(Kind) -> bool,
    ) -> Option<usize> {
        let cost = |(column, entrant): (usize, &Entrant)| {
            let median = row.cells.get(column)?.as_ref()?.median();
            counts(entrant.kind)
                .then_some((column, if self.better == Better::Less { median } else { -median }))
        };
        let costs = entrants.iter().enumerate().filter_map(cost);
        costs.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(column, _)| column)
    }

    /// The ratio of deltapush to the best of other people's programs.
    pub(crate) fn to_best_peer(&self, row: &Row, entrants: &[Entrant]) -> Option<f64> {
        let best = self.best_peer(row, entrants)?;
        row.cells.first()?.as_ref()?.ratio_to(row.cells.get(best)?.as_ref()?)
    }

    /// The ratio of deltapush to a kind of program.
    pub(crate) fn to_kind(row: &Row, kind: Kind, entrants: &[Entrant]) -> Option<f64> {
        let column = entrants.iter().position(|entrant| entrant.kind == kind)?;
        row.cells.first()?.as_ref()?.ratio_to(row.cells.get(column)?.as_ref()?)
    }
}

/// The figures that come from driving candidates.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) throughput: Figure,
    pub(crate) per_gib: Figure,
    pub(crate) commands: Figure,
    pub(crate) median: Figure,
    pub(crate) slow: Figure,
    pub(crate) per_command: Figure,
    pub(crate) logins: Figure,
    pub(crate) per_login: Figure,
}

impl Driven {
    pub(crate) fn new() -> Self {
        use Better::{Less, More};
        Self {
            throughput: Figure::new("Messages: MB per second", More, 0),
            per_gib: Figure::new("Messages: CPU seconds per GiB", Less, 2),
            commands: Figure::new("Small commands: per second", More, 0),
            median: Figure::new("Small commands: median time, ms", Less, 3),
            slow: Figure::new("Small commands: 99th percentile, ms", Less, 3),
            per_command: Figure::new("Small commands: CPU seconds per 100,000", Less, 2),
            logins: Figure::new("Logins: per second", More, 0),
            per_login: Figure::new("Logins: CPU milliseconds each", Less, 3),
        }
    }

    /// Takes in what was measured: of each entrant the rounds, unless it failed.
    pub(crate) fn add(&mut self, measurement: &Measurement, samples: &[Option<Vec<Sample>>]) {
        let row = |of: &dyn Fn(&Sample) -> f64| Row {
            name: measurement.name(),
            cells: samples
                .iter()
                .map(|rounds| Some(Series(rounds.as_ref()?.iter().map(of).collect())))
                .collect(),
        };
        let rate = |sample: &Sample| number(sample.count) / sample.elapsed.as_secs_f64();
        let each = |sample: &Sample| sample.processor.as_secs_f64() / number(sample.count);
        match measurement.work {
            Work::Fetch(size) | Work::Append(size) => {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a size has fewer digits than an f64"
                )]
                let size = size as f64;
                self.throughput.rows.push(row(&|sample| rate(sample) * size / 1e6));
                self.per_gib.rows.push(row(&|sample| each(sample) / size * f64::from(1 << 30)));
            }
            Work::Noop | Work::Headers => {
                self.commands.rows.push(row(&rate));
                self.median.rows.push(row(&|sample| sample.percentile(50).as_secs_f64() * 1e3));
                self.slow.rows.push(row(&|sample| sample.percentile(99).as_secs_f64() * 1e3));
                self.per_command.rows.push(row(&|sample| each(sample) * 1e5));
            }
            Work::Login { .. } => {
                self.logins.rows.push(row(&rate));
                self.per_login.rows.push(row(&|sample| each(sample) * 1e3));
            }
        }
    }

    pub(crate) fn all(&self) -> [&Figure; 8] {
        [
            &self.throughput,
            &self.per_gib,
            &self.commands,
            &self.median,
            &self.slow,
            &self.per_command,
            &self.logins,
            &self.per_login,
        ]
    }
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "a count has fewer digits than an f64")]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}

/// An amount of memory in KiB.
#[expect(clippy::cast_precision_loss, reason = "an amount of memory has fewer digits than an f64")]
pub(crate) fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
