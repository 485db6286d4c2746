//! The tables that make up a state, with their columns: all that moves. Tables that only nodes have (slots, nodes, events, facts for
//! owners of accounts, facts about mail servers, values that they share) stay out.

use std::fmt::Write as _;

use tokio_postgres::types::Type;

/// The kind of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Text,
    Blob,
}

impl Kind {
    /// The type in PostgreSQL.
    pub(super) fn postgres(self) -> Type {
        match self {
            Self::Integer => Type::INT8,
            Self::Text => Type::TEXT,
            Self::Blob => Type::BYTEA,
        }
    }
}

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The name of its rows, for people.
    pub(super) label: &'static str,
    /// The columns by which rows are ordered, in the same way in each database.
    order: &'static str,
    /// The rows that move; empty for all.
    condition: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
}

use Kind::{Blob, Integer, Text};

/// The accounts' table, whose rows have a slot in a database.
pub(super) const ACCOUNTS: &Table = &Table {
    name: "accounts",
    label: "accounts",
    order: "id",
    condition: "",
    columns: &[
        ("id", Integer),
        ("name", Text),
        ("upstream", Text),
        ("credentials", Blob),
        ("created", Integer),
        ("called", Integer),
        ("watched", Integer),
    ],
};

/// All tables, those first to which others refer.
pub(super) const TABLES: &[&Table] = &[
    ACCOUNTS,
    &Table {
        name: "tokens",
        label: "tokens",
        order: "id",
        condition: "",
        columns: &[
            ("id", Integer),
            ("account", Integer),
            ("hash", Blob),
            ("token", Text),
            ("first_seen", Integer),
            ("last_seen", Integer),
            ("last_served", Integer),
            ("pending", Integer),
            ("pending_since", Integer),
            ("accepted", Integer),
            ("given_up", Integer),
            ("given_up_reason", Text),
            ("gone", Integer),
            ("gone_first", Integer),
            ("gone_last", Integer),
            ("gone_until", Integer),
            ("gone_served", Integer),
            ("fetched_plain", Integer),
            ("left_plain", Integer),
            ("left_senders", Blob),
        ],
    },
    &Table {
        name: "mailboxes",
        label: "mailboxes with a position",
        order: "account, name",
        condition: "",
        columns: &[
            ("account", Integer),
            ("name", Text),
            ("uid_validity", Integer),
            ("uid_next", Integer),
            ("told", Integer),
        ],
    },
    &Table {
        name: "idled",
        label: "mailboxes that clients idle in",
        order: "account, name",
        condition: "",
        columns: &[("account", Integer), ("name", Text), ("last_idled", Integer)],
    },
    &Table {
        name: "known_logins",
        label: "known logins",
        order: "key",
        condition: "",
        columns: &[
            ("key", Blob),
            ("is_place", Integer),
            ("network", Integer),
            ("upstream", Integer),
            ("is_open", Integer),
            ("seen", Integer),
        ],
    },
    &Table {
        name: "erased",
        label: "erased accounts",
        order: "id",
        condition: "",
        columns: &[
            ("id", Integer),
            ("name", Text),
            ("upstream", Text),
            ("at", Integer),
            ("reason", Text),
        ],
    },
    &Table {
        name: "served",
        label: "running time",
        order: "seconds",
        condition: "",
        columns: &[("seconds", Integer)],
    },
    &Table {
        name: "meta",
        label: "key of known logins",
        order: "name",
        condition: "WHERE name = 'login_key'",
        columns: &[("name", Text), ("value", Blob)],
    },
];

impl Table {
    /// The names of the columns, for a statement.
    pub(super) fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// The statement that reads all rows, in order.
    pub(super) fn select(&self) -> String {
        let Self { name, condition, order, .. } = self;
        format!("SELECT {} FROM {name} {condition} ORDER BY {order}", self.names())
    }

    /// The statement that adds a row to a state file.
    pub(super) fn insert(&self) -> String {
        let mut places = String::new();
        for place in 1..=self.columns.len() {
            // A text takes all that is written.
            let _ = write!(places, "{}?{place}", if place > 1 { ", " } else { "" });
        }
        format!("INSERT INTO {} ({}) VALUES ({places})", self.name, self.names())
    }

    /// The statement that removes all rows that would be replaced.
    pub(super) fn clear(&self) -> String {
        format!("DELETE FROM {} {}", self.name, self.condition)
    }
}
