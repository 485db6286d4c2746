//! The database that several nodes share: if it takes a connection, and how safe its commits are.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::super::Fault;
use super::Finding;
use crate::config::Config;
use crate::store::{PostgresConnector, PostgresSettings, StoreSettings};

const SUBJECT: &str = "database";

/// The oldest version with the functions that deltapush needs, as the server numbers it.
const OLDEST: i32 = 130_000;

/// Time limit of the questions.
const TIME: Duration = Duration::from_secs(10);

/// The remedy for a database that cannot be used.
const REMEDY: &str = "check storage.postgres, the network, and the servers' pg_hba.conf and log";

/// Facts about the database.
#[derive(Debug)]
pub(in super::super) struct DatabaseFacts {
    /// The way to it.
    pub(in super::super) url: String,
    /// Its answer, or the problem.
    pub(in super::super) answer: Result<DatabaseAnswer, String>,
}

/// The answer of a database.
#[derive(Debug)]
pub(in super::super) struct DatabaseAnswer {
    pub(in super::super) version: String,
    /// The version as a number, for comparisons.
    pub(in super::super) number: i32,
    /// The setting `synchronous_commit`.
    pub(in super::super) commit: String,
    /// Time of the connection with its questions.
    pub(in super::super) took: Duration,
}

/// Asks the database, if there is one.
pub(in super::super) async fn look(config: &Config) -> Option<DatabaseFacts> {
    let settings = StoreSettings::new(&config.startup.storage).postgres?;
    let url = settings.url.to_string();
    let late = |_| Err(format!("no answer within {} s", TIME.as_secs()));
    let answer = tokio::time::timeout(TIME, Box::pin(ask(settings))).await.unwrap_or_else(late);
    Some(DatabaseFacts { url, answer })
}

async fn ask(settings: PostgresSettings) -> Result<DatabaseAnswer, String> {
    let began = Instant::now();
    let connector = PostgresConnector::new(settings).map_err(|error| error.to_string())?;
    let (client, connection) = connector.connect().await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let answer = question(&client, began).await.map_err(|error| error.to_string());
    drop(client);
    driver.abort();
    answer
}

async fn question(
    client: &Client,
    began: Instant,
) -> Result<DatabaseAnswer, tokio_postgres::Error> {
    let question = "SELECT current_setting('server_version'), current_setting('server_version_num')::int, \
                    current_setting('synchronous_commit')";
    let row = client.query_one(question, &[]).await?;
    Ok(DatabaseAnswer {
        version: row.try_get(0)?,
        number: row.try_get(1)?,
        commit: row.try_get(2)?,
        took: began.elapsed(),
    })
}

/// Judges the database.
pub(in super::super) fn judge(facts: &DatabaseFacts) -> Finding {
    let url = &facts.url;
    let answer = match &facts.answer {
        Ok(answer) => answer,
        Err(error) => {
            return Finding::fail(Fault::Unavailable, SUBJECT, error.clone(), REMEDY);
        }
    };
    let DatabaseAnswer { version, commit, took, .. } = answer;
    if answer.number < OLDEST {
        return Finding::fail(
            Fault::Unavailable,
            SUBJECT,
            format!("{url} is PostgreSQL {version}"),
            format!("deltapush needs PostgreSQL {} or newer", OLDEST / 10_000),
        );
    }
    if commit == "off" {
        return Finding::warn(
            SUBJECT,
            format!("{url} acknowledges what is not on disk: `synchronous_commit` is off"),
            "turn it on, for deltapush's user at least: tokens that a phone was told are stored could be lost",
        );
    }
    let took = took.as_millis();
    Finding::ok(SUBJECT, format!("{url}: PostgreSQL {version}, reached in {took} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::findings::Verdict;

    fn judged(number: i32, commit: &str) -> Finding {
        let answer = DatabaseAnswer {
            version: "15.20".to_owned(),
            number,
            commit: commit.to_owned(),
            took: Duration::from_millis(7),
        };
        judge(&DatabaseFacts { url: "database state".to_owned(), answer: Ok(answer) })
    }

    #[test]
    fn database_is_judged_by_version_and_durability() {
        let good = "database state: PostgreSQL 15.20, reached in 7 ms";
        assert_eq!(judged(150_020, "on"), Finding::ok("database", good));
        assert_eq!(judged(150_020, "off").verdict, Verdict::Warn);
        assert!(judged(120_001, "on").is_failure());
        let answer = Err("db:5432: refused".to_owned());
        let away = judge(&DatabaseFacts { url: "database state".to_owned(), answer });
        assert!(away.is_failure() && away.words == "db:5432: refused", "{away:?}");
    }
}
