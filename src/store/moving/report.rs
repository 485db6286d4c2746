//! The result of a move, in words and figures.

use std::fmt;

use super::super::mark::Place;
use crate::printable::counted;

/// The result of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveReport {
    /// The new place.
    pub target: Place,
    /// The file, in words.
    pub file: String,
    /// The database, in words.
    pub database: String,
    /// The place of the key.
    pub key: String,
    /// The rows of each table, which are the same at both places.
    pub rows: Vec<(&'static str, u64)>,
    /// Accounts whose credentials the key opens at the new place.
    pub opened: u64,
    /// Accounts whose credentials it does not open, as before.
    pub damaged: u64,
    /// Number of files of certificates that moved along.
    pub certificates: usize,
    /// The rows were there already, because an earlier move was cut off.
    pub was_there: bool,
}

impl Default for MoveReport {
    fn default() -> Self {
        Self {
            target: Place::File,
            file: String::new(),
            database: String::new(),
            key: String::new(),
            rows: Vec::new(),
            opened: 0,
            damaged: 0,
            certificates: 0,
            was_there: false,
        }
    }
}

impl fmt::Display for MoveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = match self.target {
            Place::File => (&self.database, &self.file),
            Place::Database => (&self.file, &self.database),
        };
        if self.was_there {
            writeln!(f, "The state was in {to} already, from a move that was cut off.")?;
        }
        writeln!(f, "moved         from {from}")?;
        writeln!(f, "              to {to}")?;
        writeln!(f, "compared      row by row, by SHA-256 of each table: all are the same")?;
        for (label, rows) in &self.rows {
            writeln!(f, "  {rows:>9}  {label}")?;
        }
        let opened = counted(self.opened, "account");
        writeln!(f, "key           {} opens the passwords of {opened}", self.key)?;
        if self.damaged > 0 {
            writeln!(
                f,
                "              {} were damaged before: those accounts wait for a login",
                self.damaged
            )?;
        }
        writeln!(f, "certificates  {} files", self.certificates)?;
        writeln!(f, "left          {from} is a copy now, with which deltapush does not start")?;
        match self.target {
            Place::Database => write!(
                f,
                "next          start deltapush; copy the key and the configuration to the other machines, and start it there"
            ),
            Place::File => write!(
                f,
                "next          remove `storage.postgres` from this machine's configuration and start deltapush here only"
            ),
        }
    }
}
