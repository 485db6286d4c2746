//! The messages of a look that are to be pushed: where they end, and the identifiers that distinguish copies of one message in
//! several accounts from others.

/// The most messages of one announcement that are told apart.
const MAX_IDS: usize = 32;

/// Messages to push. Boxed: most of the time there is none.
#[derive(Debug, Default)]
pub(super) struct ToPush(Option<Box<Messages>>);

#[derive(Debug, Default)]
struct Messages {
    /// One above the highest UID; the highest number if some message has none.
    next: u64,
    ids: Vec<u64>,
    /// Some message has no identifier, or there are too many messages.
    is_incomplete: bool,
}

impl ToPush {
    /// Adds a message by its UID and its identifier, as far as it has them.
    pub(super) fn add(&mut self, uid: Option<u64>, id: Option<u64>) {
        let messages = self.0.get_or_insert_default();
        let next = uid.map_or(u64::MAX, |uid| uid.saturating_add(1));
        messages.next = messages.next.max(next);
        match id.filter(|_| messages.ids.len() < MAX_IDS) {
            Some(id) => messages.ids.push(id),
            None => messages.is_incomplete = true,
        }
    }

    /// Adds messages of which nothing is known.
    pub(super) fn add_unknown(&mut self) {
        self.add(None, None);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// One above the highest UID among them, in a mailbox that was looked through up to `uid_next`; that, if it is not known.
    pub(super) fn next(&self, uid_next: u64) -> u64 {
        self.0.as_ref().map_or(uid_next, |messages| messages.next.min(uid_next))
    }

    /// The identifiers of all messages, or none.
    pub(super) fn ids(self) -> Vec<u64> {
        self.0
            .filter(|messages| !messages.is_incomplete)
            .map(|messages| messages.ids)
            .unwrap_or_default()
    }
}
