//! Layout of reports in columns for a terminal: no word is broken, and narrow terminals get lists.

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Table, Width, presets};

/// Columns of a label, with the blanks around it.
pub(super) const LABEL: usize = 11;

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

    /// The text without lines that are longer than the terminal is wide. Further lines of a labelled one stand below its words.
    pub(super) fn wrap(self, text: &str) -> String {
        let Some(width) = self.width.map(usize::from) else { return text.to_owned() };
        let mut lines = Vec::new();
        for line in text.lines() {
            let is_label = |start: &str| start.starts_with("  ") && start.ends_with(' ');
            match line.split_at_checked(LABEL) {
                _ if line.chars().count() <= width => lines.push(line.to_owned()),
                Some((start, words)) if is_label(start) => {
                    push_words(&mut lines, start, words, LABEL, width);
                }
                _ => push_wrapped(&mut lines, line, 2, width),
            }
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// `start` and the words of `text`, as many in a line as fit; further lines are indented by so many columns.
    #[must_use]
    pub(crate) fn indented(self, start: &str, text: &str, indent: usize) -> String {
        let mut lines = Vec::new();
        push_words(&mut lines, start, text, indent, self.width.map_or(usize::MAX, usize::from));
        lines.iter().map(|line| format!("{line}\n")).collect()
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
                0 => push_wrapped(&mut lines, &cell, 4, width),
                _ if cell == "-" || cell.is_empty() => {}
                _ => push_wrapped(
                    &mut lines,
                    &format!("  {}: {cell}", heading.to_lowercase()),
                    4,
                    width,
                ),
            }
        }
    }
    lines.join("\n")
}

/// Pushes the words of `text`, as many in a line as fit; further lines are indented by so many columns.
fn push_wrapped(lines: &mut Vec<String>, text: &str, indent: usize, width: usize) {
    let start = text.len() - text.trim_start().len();
    push_words(lines, text.get(..start).unwrap_or_default(), text, indent, width);
}

/// Pushes `start` and the words behind it in the same way.
fn push_words(lines: &mut Vec<String>, start: &str, words: &str, indent: usize, width: usize) {
    let mut line = start.to_owned();
    let mut is_empty = true;
    for word in words.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        } else if !is_empty {
            line.push(' ');
        }
        is_empty = false;
        line.push_str(word);
    }
    lines.push(line);
}
