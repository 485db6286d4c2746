//! Commands under way in which deltapush has a part.

use super::Request;

/// A command that went upstream and of whose answer deltapush has a part.
pub(super) enum Pending {
    /// A `GETMETADATA`: values are filled in where the upstream has none.
    /// `unknown` is what was asked for and deltapush does not know.
    Get { tag: Vec<u8>, wanted: Vec<RequestedEntry>, mailbox: Vec<u8>, unknown: Vec<Vec<u8>> },
    /// The rest of a `SETMETADATA` that had a token among its entries. The token is kept when the rest was accepted.
    Set { tag: Vec<u8>, request: Request },
    /// A command that is replayed, with nothing else to it.
    Replay { tag: Vec<u8> },
}

impl Pending {
    pub(super) fn tag(&self) -> &[u8] {
        match self {
            Self::Get { tag, .. } | Self::Set { tag, .. } | Self::Replay { tag } => tag,
        }
    }

    pub(super) fn is_get(&self) -> bool {
        matches!(self, Self::Get { .. })
    }
}

/// The reply to the client once a request was done.
pub(super) struct PendingReply {
    pub(super) tag: Vec<u8>,
    /// The upstream's own `OK`, where it had a part.
    pub(super) success: Option<Vec<u8>>,
}

/// An entry that was asked for and that deltapush knows.
pub(super) struct RequestedEntry {
    pub(super) entry: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// Text behind the upstream's own value, if it has one.
    pub(super) addition: Option<Vec<u8>>,
    /// The upstream has answered for it, or deltapush has.
    pub(super) answered: bool,
}
