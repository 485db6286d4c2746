//! The database: what it counts, and what it takes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::block_in_place;

use crate::common::process::Process;
use crate::support::postgres::{Postgres, USER};

/// `pg_stat_statements`, which comes with PostgreSQL, counts statements. The memory is for the tables of 100,000 accounts.
const SETTINGS: &str =
    "shared_preload_libraries = 'pg_stat_statements'\nshared_buffers = 256MB\nmax_wal_size = 2GB";

/// A running PostgreSQL.
pub(crate) struct Database(Postgres);

/// Work of the database so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// Statements of deltapush.
    pub(crate) statements: f64,
    /// Bytes of the write-ahead log.
    pub(crate) log: f64,
    /// Processor time of the living processes.
    pub(crate) processor: Duration,
}

impl Work {
    /// The work since then.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            statements: self.statements - before.statements,
            log: self.log - before.log,
            processor: self.processor.saturating_sub(before.processor),
        }
    }

    /// A part of so many equal ones.
    pub(crate) fn per(&self, number: f64) -> Self {
        Self {
            statements: self.statements / number,
            log: self.log / number,
            processor: self.processor.div_f64(number),
        }
    }

    /// Without the work that there would have been anyway in this time; `quiet` is one second of it.
    pub(crate) fn less(&self, quiet: &Self, time: Duration) -> Self {
        let quiet = quiet.per(1.0 / time.as_secs_f64());
        self.since(&quiet)
    }

    /// Prints it for each of so many messages.
    pub(crate) fn print(&self, messages: usize) {
        let Self { statements, log, processor } = self.per(messages as f64);
        println!("| statements for a message | {statements:.1} |");
        println!("| … write-ahead log | {:.1} KiB |", log / 1024.0);
        println!("| … processor time of PostgreSQL | {:.2} ms |", processor.as_secs_f64() * 1e3);
    }
}

impl Database {
    pub(crate) fn start() -> Self {
        let postgres = block_in_place(|| Postgres::start_with(SETTINGS));
        let database = Self(postgres);
        database.sql("CREATE EXTENSION pg_stat_statements");
        database
    }

    /// The configuration of the nodes.
    pub(crate) fn section(&self) -> String {
        self.0.section(self.0.port)
    }

    /// Bytes on the disk.
    pub(crate) fn size(&self) -> Result<u64> {
        Ok(self.sql(&format!("SELECT pg_database_size('{USER}')")).parse()?)
    }

    /// Memory of all its processes, in bytes (PSS).
    pub(crate) fn memory(&self) -> u64 {
        // One that has ended meanwhile has none.
        self.processes().filter_map(|process| process.pss().ok()).sum()
    }

    pub(crate) fn work(&self) -> Result<Work> {
        let row = self.sql(&format!(
            "SELECT coalesce(sum(calls), 0), pg_current_wal_lsn() - '0/0'
             FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid WHERE rolname = '{USER}'"
        ));
        let (statements, log) = row.split_once('|').context("not two columns")?;
        let processor = self.processes().filter_map(|process| process.processor_time().ok()).sum();
        Ok(Work { statements: statements.parse()?, log: log.parse()?, processor })
    }

    /// The number of watched accounts of each node, by their names, as it told the others last.
    pub(crate) fn watched(&self) -> Result<Vec<usize>> {
        self.numbers(
            "SELECT coalesce(facts::json -> 'counts' ->> 'watched', '0') FROM nodes ORDER BY name",
        )
    }

    /// The number of accounts that each node owns, by their names.
    pub(crate) fn owned(&self) -> Result<Vec<usize>> {
        self.numbers(
            "SELECT count(a.id) FROM nodes n LEFT JOIN slots s ON s.owner = n.id LEFT JOIN accounts a USING (slot)
             GROUP BY n.name ORDER BY n.name",
        )
    }

    fn numbers(&self, query: &str) -> Result<Vec<usize>> {
        let rows = block_in_place(|| self.0.sql(USER, query));
        rows.lines().map(|row| Ok(row.parse()?)).collect()
    }

    /// Reports if each slot has an owner and stays there, and all nodes have as many.
    pub(crate) fn is_even(&self) -> bool {
        let even = "SELECT count(*) FILTER (WHERE moving) = 0 AND max(number) - min(number) < 2
             FROM (SELECT n.id, count(*) AS number, bool_or(s.heir IS NOT NULL) AS moving
                   FROM nodes n FULL JOIN slots s ON s.owner = n.id GROUP BY n.id) shares";
        block_in_place(|| self.0.sql(USER, even)) == "t"
    }

    fn processes(&self) -> impl Iterator<Item = Process> {
        self.0.processes().into_iter().map(Process::of)
    }

    fn sql(&self, statement: &str) -> String {
        block_in_place(|| self.0.sql("postgres", statement))
    }
}
