//! Failures of statements.

/// The result of a statement.
pub(in crate::store) type Result<T, E = SqlError> = std::result::Result<T, E>;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum SqlError {
    /// SQLite's answer.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
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
