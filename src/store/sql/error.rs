//! Failures of statements.

use std::error::Error;

use tokio_postgres::error::SqlState;

use super::postgres::NulInText;

/// The result of a statement.
pub(in crate::store) type Result<T, E = SqlError> = std::result::Result<T, E>;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum SqlError {
    /// SQLite's answer.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL's answer.
    #[error("{0}")]
    Postgres(#[from] tokio_postgres::Error),
    /// PostgreSQL did not answer in time.
    #[error("no answer in time")]
    Late,
    /// PostgreSQL refused to begin a transaction, or a part of one.
    #[error("no transaction: {0}")]
    Transaction(tokio_postgres::Error),
    /// A column contains something that deltapush did not put there.
    #[error("column {column} contains a value of another kind than expected")]
    Unexpected {
        /// The column in the result, from zero.
        column: usize,
    },
    /// A statement that always has a result has none.
    #[error("a row is missing")]
    NoRow,
}

impl SqlError {
    /// Reports if it was PostgreSQL's answer to the statement, or the statement was never sent: the connection works.
    pub(in crate::store) fn is_refusal(&self) -> bool {
        matches!(self, Self::Postgres(error) if meaning(error) != Meaning::Unavailable)
    }
}

/// The meaning of an error of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Meaning {
    /// The connection or the server is of no use at the moment: it may pass.
    Unavailable,
    /// A statement ran, or waited for a lock, longer than the server allows: the connection is as good as before.
    Slow,
    /// The transaction collided with another one: it succeeds if it is tried again.
    Collision,
    /// A text has a NUL character.
    Nul,
    /// A bug, or somebody else has changed the tables.
    Refused,
}

/// Classes and codes: PostgreSQL's documentation, appendix "Error Codes".
pub(in crate::store) fn meaning(error: &tokio_postgres::Error) -> Meaning {
    let Some(code) = error.code() else {
        let is_nul = error.source().is_some_and(|source| source.is::<NulInText>());
        let is_ours = error.source().is_some() && !error.is_closed() && !is_io(error);
        return match (is_nul, is_ours) {
            (true, _) => Meaning::Nul,
            (false, true) => Meaning::Refused,
            (false, false) => Meaning::Unavailable,
        };
    };
    if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) {
        return Meaning::Collision;
    }
    if [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE].contains(code) {
        return Meaning::Slow;
    }
    let may_pass =
        [SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, SqlState::READ_ONLY_SQL_TRANSACTION];
    match code.code().get(..2) {
        Some("08" | "53" | "57" | "58") => Meaning::Unavailable,
        _ if may_pass.contains(code) => Meaning::Unavailable,
        _ => Meaning::Refused,
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|source| source.is::<std::io::Error>())
}
