//! A digest of rows, the same in each database.

use aws_lc_rs::digest::{Context, SHA256};

use super::super::sql::Value;

/// Rows in their order, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowsDigest {
    pub(super) rows: u64,
    hash: [u8; 32],
}

/// A digest that takes rows.
pub(super) struct RowsDigester {
    rows: u64,
    hash: Context,
}

impl RowsDigester {
    pub(super) fn new() -> Self {
        Self { rows: 0, hash: Context::new(&SHA256) }
    }

    /// Adds a row. Each value has its kind and its length before it, so that no two lists of rows read the same.
    pub(super) fn add(&mut self, row: &[Value<'_>]) {
        self.rows = self.rows.saturating_add(1);
        self.hash.update(&(row.len() as u64).to_be_bytes());
        for value in row {
            match value {
                Value::Null => self.hash.update(b"n"),
                Value::Integer(number) => {
                    self.hash.update(b"i");
                    self.hash.update(&number.to_be_bytes());
                }
                Value::Text(text) => self.bytes(b"t", text.as_bytes()),
                Value::Blob(bytes) => self.bytes(b"b", bytes),
            }
        }
    }

    fn bytes(&mut self, kind: &[u8], bytes: &[u8]) {
        self.hash.update(kind);
        self.hash.update(&(bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }

    pub(super) fn finish(self) -> RowsDigest {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.hash.finish().as_ref());
        RowsDigest { rows: self.rows, hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(rows: &[&[Value<'_>]]) -> RowsDigest {
        let mut digester = RowsDigester::new();
        rows.iter().for_each(|row| digester.add(row));
        digester.finish()
    }

    #[test]
    fn rows_that_differ_have_other_digests() {
        use Value::{Blob, Integer, Null, Text};
        let all: [&[&[Value<'_>]]; 9] = [
            &[],
            &[&[Null]],
            &[&[Null, Null]],
            &[&[Null], &[Null]],
            &[&[Integer(0)]],
            &[&[Text("")]],
            &[&[Blob(b"")]],
            &[&[Text("ab"), Text("c")]],
            &[&[Text("a"), Text("bc")]],
        ];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(digest(one), digest(one));
            assert_eq!(digest(one).rows, one.len() as u64);
            for other in &all[index + 1..] {
                assert_ne!(digest(one), digest(other), "{one:?} {other:?}");
            }
        }
    }
}
