//! The page: its DNS records, its commands in their order, and the output that it promises. Blocks of commands of other pages.

const PAGE: &str = include_str!("../../../docs/first-evening.md");
pub(super) const README: &str = include_str!("../../../README.md");
pub(super) const OPERATION: &str = include_str!("../../../docs/operation.md");
pub(super) const UPGRADE: &str = include_str!("../../../docs/upgrade.md");

/// A DNS record that people create.
pub(crate) struct Record {
    pub(crate) name: &'static str,
    pub(crate) address: &'static str,
}

/// The records of section 1.
pub(crate) fn records() -> Vec<Record> {
    let lines = blocks(PAGE, "");
    lines.iter().filter_map(|line| record(line)).collect()
}

fn record(line: &'static str) -> Option<Record> {
    let mut words = line.split_whitespace();
    let name = words.next()?.strip_suffix('.')?;
    let kind = words.next()?;
    assert!(["A", "AAAA"].contains(&kind), "{line}");
    Some(Record { name, address: words.next()? })
}

/// All commands, in the order in which they are typed.
pub(crate) fn commands() -> Vec<&'static str> {
    let commands = blocks(PAGE, "sh");
    assert!(commands.len() > 7, "the page has other commands: {commands:?}");
    commands
}

/// Output that the page promises in its text.
#[track_caller]
pub(crate) fn promised(output: &'static str) -> &'static str {
    assert!(PAGE.contains(&format!("`{output}`")), "the page does not promise `{output}`");
    output
}

/// The commands of the first block of a page that has a command with this beginning.
#[track_caller]
pub(super) fn block(page: &'static str, start: &str) -> Vec<&'static str> {
    let mut blocks = blocks_of(page).into_iter();
    let found = blocks.find(|(language, lines)| {
        *language == "sh" && lines.iter().any(|line| line.starts_with(start))
    });
    found.unwrap_or_else(|| panic!("no block of commands has {start:?}")).1
}

/// The lines of all code blocks of a page in this language.
pub(crate) fn blocks(page: &'static str, language: &str) -> Vec<&'static str> {
    let blocks = blocks_of(page).into_iter();
    blocks.filter(|(name, _)| *name == language).flat_map(|(_, lines)| lines).collect()
}

/// All code blocks: language and lines.
fn blocks_of(page: &'static str) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut blocks = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(_), true) => inside = false,
            (Some(name), false) => {
                inside = true;
                blocks.push((name, Vec::new()));
            }
            (None, true) => blocks.last_mut().unwrap().1.push(line),
            (None, false) => {}
        }
    }
    blocks
}
