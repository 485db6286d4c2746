//! `dict`: any lines lead to answers in order, one for each command that has one, and each answer is one line; a user is read as
//! written.

use deltapush::dict::commands::DictCommand;
use deltapush::dict::transactions::{DictTurn, Transactions, committed};

/// The longest user, in src/dict/commands.rs.
const MAX_USER: usize = 1024;

pub(crate) fn check(data: &[u8]) {
    let mut transactions = Transactions::default();
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(command) = DictCommand::parse(line) else { break };
        let is_question = matches!(
            command,
            DictCommand::Lookup | DictCommand::Iterate | DictCommand::Commit { .. }
        );
        let Ok(turn) = transactions.handle(command) else { break };
        let answer = match turn {
            DictTurn::Quiet => String::new(),
            DictTurn::Reply(reply) => reply,
            DictTurn::News { id, .. } => committed(id, None),
        };
        assert_eq!(answer.matches('\n').count(), usize::from(is_question));
        assert!(answer.is_empty() || answer.ends_with('\n'));
    }
    if let Some(user) = std::str::from_utf8(data).ok().filter(|user| user.len() <= MAX_USER) {
        user_is_told_as_written(user);
    }
}

fn user_is_told_as_written(user: &str) {
    let mut escaped = String::new();
    for char in user.chars() {
        match char {
            '\0' => escaped.push_str("\x010"),
            '\x01' => escaped.push_str("\x011"),
            '\t' => escaped.push_str("\x01t"),
            '\r' => escaped.push_str("\x01r"),
            '\n' => escaped.push_str("\x01n"),
            _ => escaped.push(char),
        }
    }
    let mut transactions = Transactions::default();
    let begin = DictCommand::parse(format!("B1\t{escaped}").as_bytes()).expect("well-formed");
    assert!(transactions.handle(begin) == Ok(DictTurn::Quiet));
    let line = format!("S1\tpriv/1/messagenew\t{escaped}");
    let change = DictCommand::parse(line.as_bytes()).expect("well-formed");
    assert!(transactions.handle(change) == Ok(DictTurn::Quiet));
    let news = DictTurn::News { id: 1, user: user.to_owned(), value: user.to_owned() };
    assert!(transactions.handle(DictCommand::Commit { id: 1 }) == Ok(news));
}
