//! Rows of the event log, in SQL: the new ones are read, the old ones removed.

use std::time::Instant;

use super::super::sql::{self, Row, Sql, SqlError, Value, values};
use super::events::StoredEvent;
use super::place::{EventKey, Found, Place, StoredRow, Told};
use super::unseen::Unseen;

/// Number of rows that are removed at once. Others follow with the next read.
const PORTION: usize = 2000;

/// Reads on from a place, or begins. Returns the next place, and the news.
pub(super) fn read_on(
    sql: Sql<'_>,
    node: i64,
    place: Option<Place>,
    told: Option<Told>,
) -> sql::Result<(Place, Vec<StoredEvent>)> {
    let now = Instant::now();
    let Some(mut place) = place else {
        let latest = rows(sql, node, LATEST, values![])?;
        return Ok((Place::after(&latest, told, now), Vec::new()));
    };
    let found = rows_from(sql, node, &place)?;
    if place.is_rewound(&found, told, now) {
        // A later state of the database than `found`, which does no harm: the new place depends on it alone.
        let whole = rows(sql, node, ALL, values![])?;
        let place = Place::after(&whole, told, now);
        let rest = whole.rows.into_iter().filter_map(|row| row.event);
        return Ok((place, [StoredEvent::Rewound].into_iter().chain(rest).collect()));
    }
    let news = place.advance(found, now);
    Ok((place, news))
}

/// Removes old rows behind `place`, the number of a row, and returns the last of these. None if there are no more for now.
///
/// Rows get their numbers in the order of time, so there is no index by time.
pub(super) fn prune(sql: Sql<'_>, place: i64) -> sql::Result<Option<i64>> {
    // Two rows that were written at the same moment may have each other's order.
    let behind = place.saturating_sub(i64::try_from(PORTION / 2).unwrap_or_default());
    sql.one(
        "WITH oldest AS (SELECT id, at FROM events WHERE id > ?1 ORDER BY id LIMIT ?2),
             removed AS (
                 DELETE FROM events WHERE id IN (
                     SELECT id FROM oldest WHERE at < now() - INTERVAL '10 minutes') RETURNING id)
         SELECT max(id) FROM removed",
        values![behind, PORTION],
        |row| row.get(0),
    )
}

/// The statement that reads rows; the first columns are of the database itself, also if there are none.
macro_rules! events {
    ($rows:expr) => {
        concat!(
            "SELECT CAST(pg_current_snapshot() AS TEXT), CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT),
                 e.id, CAST(extract(epoch FROM e.at) * 1000000 AS BIGINT), CAST(CAST(e.xid AS TEXT) AS BIGINT),
                 e.node, e.kind, e.data
             FROM (SELECT 1) one LEFT JOIN ",
            $rows,
            " ORDER BY e.id"
        )
    };
}

/// The whole log.
const ALL: &str = events!("events e ON TRUE");
/// The end of the log: enough to notice what comes later.
const LATEST: &str = events!("(SELECT * FROM events ORDER BY xid DESC LIMIT 1000) e ON TRUE");
/// The rows of transactions later than `?1`, and of `?2`, and the rows `?3`.
const FROM: &str = events!(
    "events e ON e.xid > CAST(CAST(?1 AS TEXT) AS xid8)
         OR e.xid = ANY (CAST(string_to_array(CAST(?2 AS TEXT), ',') AS xid8[]))
         OR e.id = ANY (CAST(string_to_array(CAST(?3 AS TEXT), ',') AS BIGINT[]))"
);

/// The rows to read from this place.
fn rows_from(sql: Sql<'_>, node: i64, place: &Place) -> sql::Result<Found> {
    let list = |numbers: &mut dyn Iterator<Item = i64>| {
        numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(",")
    };
    let running = list(&mut place.running().iter().copied());
    let latest = list(&mut place.latest());
    rows(sql, node, FROM, values![place.newest().to_string(), running, latest])
}

fn rows(
    sql: Sql<'_>,
    node: i64,
    statement: &'static str,
    values: &[Value<'_>],
) -> sql::Result<Found> {
    // One statement sees one state of the database.
    let mut found = Found { unseen: Unseen::default(), time: 0, rows: Vec::new() };
    sql.each(statement, values, |row| {
        let unexpected = SqlError::Unexpected { column: 0 };
        found.unseen = Unseen::parse(&row.get::<String>(0)?).ok_or(unexpected)?;
        found.time = row.get(1)?;
        if row.get::<Option<i64>>(2)?.is_some() {
            found.rows.push(row_in(row, node)?);
        }
        Ok(())
    })?;
    Ok(found)
}

fn row_in(row: &Row<'_>, node: i64) -> sql::Result<StoredRow> {
    let (kind, data): (String, Vec<u8>) = (row.get(6)?, row.get(7)?);
    let event = StoredEvent::parse(&kind, &data);
    let is_this_nodes = row.get::<i64>(5)? == node;
    Ok::<_, SqlError>(StoredRow {
        key: EventKey { id: row.get(2)?, at: row.get(3)? },
        transaction: row.get(4)?,
        is_own: is_this_nodes && event != Some(StoredEvent::Slots),
        event: event.filter(|event| !is_this_nodes || event.is_for_all()),
    })
}
