//! Identifiers of messages to push: they distinguish copies of one message in several accounts from others.

/// The most messages of one announcement that are told apart.
const MAX_IDS: usize = 32;

/// The identifiers. Boxed: most of the time there is none.
#[derive(Debug, Default)]
pub(super) struct Ids(Option<Box<KnownIds>>);

#[derive(Debug, Default)]
struct KnownIds {
    ids: Vec<u64>,
    /// Some message has no identifier, or there are too many messages.
    is_incomplete: bool,
}

impl Ids {
    /// Adds the identifier of a message; `None` if the message has none.
    pub(super) fn add(&mut self, id: Option<u64>) {
        let known = self.0.get_or_insert_default();
        match id.filter(|_| known.ids.len() < MAX_IDS) {
            Some(id) => known.ids.push(id),
            None => known.is_incomplete = true,
        }
    }

    /// The identifiers of all messages, or none.
    pub(super) fn known(self) -> Vec<u64> {
        self.0.filter(|known| !known.is_incomplete).map(|known| known.ids).unwrap_or_default()
    }
}
