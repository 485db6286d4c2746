//! The page: its commands in their order.

use crate::first_evening::page::blocks;

const README: &str = include_str!("../../../README.md");
const PAGE: &str = include_str!("../../../docs/containers.md");

/// All commands of the page, among them those of README.md, in the order in which they are typed. One that goes on after a backslash is one.
pub(super) fn commands() -> Vec<String> {
    let text = blocks(PAGE, "sh").join("\n").replace("\\\n", " ");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let commands: Vec<String> = text.lines().map(words).collect();
    assert!(commands.len() > 10, "the page has other commands: {commands:?}");
    let in_readme: Vec<&str> = blocks(README, "sh");
    let in_readme: Vec<&&str> =
        in_readme.iter().filter(|line| line.starts_with("docker ")).collect();
    assert!(
        in_readme.len() > 2
            && in_readme.iter().all(|line| commands.iter().any(|known| known == **line))
    );
    commands
}
