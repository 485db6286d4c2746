//! Layout of reports in columns for a terminal: no word is broken, and narrow terminals get lists.

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Table, Width, presets};

/// Layout of a report.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout {
    /// All accounts in full, regardless of their number.
    pub long: bool,
    /// The width of the terminal, in columns; `None` without a terminal: lines are not wrapped then.
    pub width: Option<u16>,
}

impl Layout {
    /// The layout for standard output: the terminal's width, if it is one.
    #[must_use]
    pub fn of_terminal() -> Self {
        let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0);
        Self { long: false, width }
    }

    /// An empty table with these headings.
    pub(super) fn table(self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header);
        match self.width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width)
            }
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        table
    }

    /// The table without the blanks at the ends of its lines. No word is broken: where the words need more columns than the terminal
    /// has, the rows are lists.
    pub(super) fn render(self, mut table: Table) -> String {
        let mut needed: u16 = 0;
        for index in 0..table.column_count() {
            let cells = table.column_cells_with_header_iter(index).flatten();
            let longest = cells.map(|cell| longest_word(&cell.content())).max().unwrap_or_default();
            // With a blank on either side.
            let width = u16::try_from(longest).unwrap_or(u16::MAX).saturating_add(2);
            needed = needed.saturating_add(width);
            if let Some(column) = table.column_mut(index) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
            }
        }
        match self.width {
            Some(width) if needed > width => lists(&table, width.into()),
            _ => {
                table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

fn longest_word(text: &str) -> usize {
    text.split_whitespace().map(|word| word.chars().count()).max().unwrap_or_default()
}

/// Each row as a list: its first cell, and below it the others that say something, under their headings.
fn lists(table: &Table, width: usize) -> String {
    let headings: Vec<String> =
        table.header().into_iter().flat_map(|row| row.cell_iter().map(Cell::content)).collect();
    let mut lines = Vec::new();
    for row in table.row_iter() {
        for (index, (cell, heading)) in
            row.cell_iter().map(Cell::content).zip(&headings).enumerate()
        {
            match index {
                0 => push_wrapped(&mut lines, &cell, width),
                _ if cell == "-" || cell.is_empty() => {}
                _ => push_wrapped(
                    &mut lines,
                    &format!("  {}: {cell}", heading.to_lowercase()),
                    width,
                ),
            }
        }
    }
    lines.join("\n")
}

/// Pushes the words of `text`, as many in a line as fit; further lines are indented.
fn push_wrapped(lines: &mut Vec<String>, text: &str, width: usize) {
    let start = text.len() - text.trim_start().len();
    let mut line = text.get(..start).unwrap_or_default().to_owned();
    for word in text.split_whitespace() {
        let is_first = line.trim().is_empty();
        if !is_first && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, "    ".into()));
        } else if !is_first {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
}
