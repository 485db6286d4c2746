//! The page: its DNS records, its commands in their order, and the output that it promises.

const PAGE: &str = include_str!("../../../docs/first-evening.md");

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
    assert!(commands.len() > 15, "the page has other commands: {commands:?}");
    commands
}

/// Output that the page promises in its text.
#[track_caller]
pub(crate) fn promised(output: &'static str) -> &'static str {
    assert!(PAGE.contains(&format!("`{output}`")), "the page does not promise `{output}`");
    output
}

/// The lines of all code blocks of a page in this language.
pub(crate) fn blocks(page: &'static str, language: &str) -> Vec<&'static str> {
    let mut lines = Vec::new();
    let mut block = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(_), Some(_)) => block = None,
            (Some(name), None) => block = Some(name),
            (None, Some(name)) if name == language => lines.push(line),
            (None, _) => {}
        }
    }
    lines
}
