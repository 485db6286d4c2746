//! One connection of Dovecot's: its transactions, and the answers to its commands.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::collections::HashMap;

use super::commands::{DictChange, DictCommand};

/// Transactions of one connection at once. Dovecot has one for each mailbox that it changes.
const MAX_OPEN: usize = 16;

/// The answer to a look-up: there is no such key.
const NOT_FOUND: &str = "N\n";

/// The answer to an iteration: no more keys.
const NO_KEYS: &str = "\n";

/// The reason for which other attributes cannot be stored.
const STORES_NOTHING: &str = "deltapush takes /private/messagenew only, and stores no attributes";

/// The transactions of a connection.
#[derive(Default)]
pub struct Transactions {
    user: String,
    open: HashMap<u32, Transaction>,
}

#[derive(Default)]
struct Transaction {
    user: String,
    /// The value for the key of new messages.
    news: Option<String>,
    result: CommitResult,
}

/// The result of a transaction, by its changes.
#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CommitResult {
    #[default]
    Done,
    /// A number was added to a value that is not there.
    NotFound,
    /// A value was to be stored.
    Failed,
}

/// The reaction to a command.
#[derive(Clone, PartialEq, Eq)]
pub enum DictTurn {
    /// None.
    Quiet,
    /// This line.
    Reply(String),
    /// The user has a new message. Once that is stored, or fails, the answer is [`committed`].
    News {
        /// The transaction.
        id: u32,
        /// The user.
        user: String,
        /// The value of the attribute: details of the message, or none.
        value: String,
    },
}

/// The reason for which a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransactionProblem {
    /// There is no such transaction, or there is one already.
    #[error("a transaction that is not open, or that is open already")]
    Number,
    /// More at once than are allowed.
    #[error("more than {MAX_OPEN} transactions at once")]
    TooMany,
}

impl Transactions {
    /// Handles a command.
    ///
    /// # Errors
    /// [`TransactionProblem`]: the connection is of no use.
    pub fn handle(&mut self, command: DictCommand) -> Result<DictTurn, TransactionProblem> {
        match command {
            DictCommand::Hello { user } => self.user = user,
            DictCommand::Lookup => return Ok(DictTurn::Reply(NOT_FOUND.to_owned())),
            DictCommand::Iterate => return Ok(DictTurn::Reply(NO_KEYS.to_owned())),
            DictCommand::Begin { id, user } => self.begin(id, user)?,
            DictCommand::Change { id, change } => self.change(id, change)?,
            DictCommand::Property => {}
            DictCommand::Commit { id } => return self.commit(id),
            DictCommand::Rollback { id } => {
                self.open.remove(&id).ok_or(TransactionProblem::Number)?;
            }
        }
        Ok(DictTurn::Quiet)
    }

    fn begin(&mut self, id: u32, user: String) -> Result<(), TransactionProblem> {
        if self.open.len() >= MAX_OPEN {
            return Err(TransactionProblem::TooMany);
        }
        let user = if user.is_empty() { self.user.clone() } else { user };
        let before = self.open.insert(id, Transaction { user, ..Transaction::default() });
        if before.is_some() { Err(TransactionProblem::Number) } else { Ok(()) }
    }

    fn change(&mut self, id: u32, change: DictChange) -> Result<(), TransactionProblem> {
        let transaction = self.open.get_mut(&id).ok_or(TransactionProblem::Number)?;
        let result = match change {
            DictChange::NewMessage(value) => {
                transaction.news = Some(value);
                return Ok(());
            }
            DictChange::Set => CommitResult::Failed,
            // Nothing is there afterwards, as it was before.
            DictChange::Unset => CommitResult::Done,
            DictChange::Increment => CommitResult::NotFound,
        };
        transaction.result = transaction.result.max(result);
        Ok(())
    }

    fn commit(&mut self, id: u32) -> Result<DictTurn, TransactionProblem> {
        let transaction = self.open.remove(&id).ok_or(TransactionProblem::Number)?;
        Ok(match transaction.result {
            CommitResult::Done if let Some(value) = transaction.news => {
                DictTurn::News { id, user: transaction.user, value }
            }
            CommitResult::Done => DictTurn::Reply(committed(id, None)),
            CommitResult::NotFound => DictTurn::Reply(format!("N{id}\n")),
            CommitResult::Failed => DictTurn::Reply(committed(id, Some(STORES_NOTHING))),
        })
    }
}

/// The answer to a commit: done, or failed for a reason, which has no control characters.
#[must_use]
pub fn committed(id: u32, failure: Option<&str>) -> String {
    match failure {
        None => format!("O{id}\n"),
        Some(reason) => format!("F{id}\t{reason}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The turns of these lines that are not quiet: a reply without its end, or `(news VALUE of USER in TRANSACTION)`.
    fn play(lines: &[&str]) -> Result<Vec<String>, TransactionProblem> {
        let mut transactions = Transactions::default();
        let mut said = Vec::new();
        for line in lines {
            let command = DictCommand::parse(line.as_bytes()).unwrap();
            match transactions.handle(command)? {
                DictTurn::Quiet => {}
                DictTurn::Reply(reply) => said.push(reply.strip_suffix('\n').unwrap().to_owned()),
                DictTurn::News { id, user, value } => {
                    said.push(format!("(news {value} of {user} in {id})"));
                }
            }
        }
        Ok(said)
    }

    #[test]
    fn message_is_told_at_the_commit_and_nothing_is_found() {
        let said = play(&[
            "H3\t2\t0\t\tmetadata",
            "Lpriv/43f5/devicetoken\tbob",
            "I6\t0\tpriv/43f5/\tbob",
            "B1\tbob@example.org",
            "S1\tpriv/43f5/messagenew\t",
            "B2\tcarol",
            "S2\tpriv/43f5/messagenew\t",
            "C1",
            "R2",
        ]);
        assert_eq!(said.unwrap(), ["N", "", "(news  of bob@example.org in 1)"]);
        let old = ["H2\t0\t0\tbob\tmetadata", "B1", "S1\tpriv/43f5/messagenew\t", "C1"];
        assert_eq!(play(&old).unwrap(), ["(news  of bob in 1)"]);
    }

    #[test]
    fn other_attributes_are_not_stored_and_that_is_said() {
        let set = [
            "H3\t2\t0\t\tm",
            "B1\tbob",
            "S1\tpriv/43f5/comment\tx",
            "S1\tpriv/43f5/messagenew\t",
            "C1",
        ];
        assert_eq!(play(&set).unwrap(), [format!("F1\t{STORES_NOTHING}")]);
        assert_eq!(play(&["B1\tbob", "U1\tpriv/43f5/comment", "C1"]).unwrap(), ["O1"]);
        assert_eq!(play(&["B1\tbob", "A1\tpriv/43f5/count\t1", "C1"]).unwrap(), ["N1"]);
    }

    #[test]
    fn transactions_are_bounded_and_have_numbers_of_their_own() {
        let begins: Vec<String> = (0..=MAX_OPEN).map(|id| format!("B{id}\tbob")).collect();
        let begins: Vec<&str> = begins.iter().map(String::as_str).collect();
        assert_eq!(play(&begins), Err(TransactionProblem::TooMany));
        assert!(play(&begins[1..]).is_ok());
        for lines in [&["B1\ta", "B1\ta"][..], &["C1"], &["R1"], &["S1\tpriv/4/x\t"]] {
            assert_eq!(play(lines), Err(TransactionProblem::Number), "{lines:?}");
        }
    }
}
