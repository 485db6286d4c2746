//! The reasons for the end of a watch session.

use std::convert::Infallible;
use std::io;

use crate::parser::reader::ResponseTooLong;
use crate::push::idle::IdleFailure;
use crate::store::StoreError;
use crate::upstream::connect::ConnectError;

/// The result of a watch session: it runs until a failure or a request ends it.
pub(in crate::push) type Ended = Result<Infallible, WatchEnd>;

/// The reason for the end of a watch session.
#[derive(Debug, thiserror::Error)]
pub(in crate::push) enum WatchEnd {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Failed(#[from] IdleFailure),
    #[error("the connection to the mail server broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the mail server sent a response that is too long: {0}")]
    TooLong(#[from] ResponseTooLong),
    #[error("the state cannot be written: {0}")]
    Store(#[from] StoreError),
    #[error("no route of the configuration leads to the account's mail server any more")]
    NoRoute,
    #[error("the mail server allows no more sessions, and the account's own client comes first")]
    Yielded,
    #[error("deltapush shuts down")]
    Shutdown,
    #[error("its client is back and has resumed the session")]
    Resumed,
    #[error("a bug in deltapush ended the session")]
    Panicked,
}
