//! `--help` of every command.

use insta::assert_snapshot;

use super::Folder;

/// Every command and subcommand.
const COMMANDS: [&str; 20] = [
    "",
    "run",
    "check",
    "doctor",
    "init",
    "qr",
    "status",
    "account",
    "account NAME forget",
    "account NAME rewatch",
    "push-test",
    "news",
    "trace",
    "trace show",
    "trace export",
    "state",
    "state check",
    "state backup",
    "state move",
    "state rotate-key",
];

#[test]
fn help_is_as_reviewed() {
    let folder = Folder::new();
    for command in COMMANDS {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let name = if command.is_empty() { "deltapush" } else { command };
        assert_snapshot!(format!("help {name}").replace(' ', "-"), folder.run(&arguments));
    }
}

#[test]
fn every_command_is_in_the_list() {
    let folder = Folder::new();
    for parent in ["", "account NAME", "trace", "state"] {
        let mut arguments: Vec<&str> = parent.split_whitespace().collect();
        arguments.push("--help");
        let help = folder.run(&arguments);
        let (_, commands) = help.split_once("Commands:\n").unwrap();
        let listed = commands.lines().take_while(|line| !line.is_empty());
        // Continued lines are indented by more.
        let names = listed
            .filter(|line| !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next());
        for name in names.filter(|name| *name != "help") {
            let command = format!("{parent} {name}");
            assert!(COMMANDS.contains(&command.trim()), "{command} is not in the list");
        }
    }
}
