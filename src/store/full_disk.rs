//! A full disk for tests: SQLite's own answer, whatever is written.

use super::Store;
use crate::store::operations::Operation;

/// From now on nothing can be written: each change wants more pages than the file may have.
pub(crate) async fn fill(store: &Store) {
    let tables = ["accounts", "tokens", "mailboxes", "idled", "served"];
    let prepare = move |state: &mut Operation<'_>| {
        let connection = state.sql.sqlite();
        connection.execute_batch("CREATE TABLE IF NOT EXISTS ballast (data)")?;
        for (table, change) in
            tables.into_iter().flat_map(|table| [(table, "INSERT"), (table, "UPDATE")])
        {
            connection.execute_batch(&format!(
                "CREATE TEMP TRIGGER IF NOT EXISTS {change}_{table} BEFORE {change} ON main.{table}
                 BEGIN INSERT INTO ballast VALUES (zeroblob(100000)); END"
            ))?;
        }
        Ok(())
    };
    store.commit(prepare).await.unwrap();
    limit_pages(store, 1).await;
}

/// There is room again.
pub(crate) async fn make_room(store: &Store) {
    limit_pages(store, 1_000_000).await;
}

/// No file is made smaller than it is.
pub(super) async fn limit_pages(store: &Store, pages: i64) {
    let limit = move |state: &mut Operation<'_>| {
        Ok(state.sql.sqlite().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?)
    };
    store.commit(limit).await.unwrap();
}
