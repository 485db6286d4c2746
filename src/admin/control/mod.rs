//! The Unix sockets on which a running deltapush answers commands. The control socket is in the state's folder and accessible to
//! its owner only; the socket for news is open to every user of the machine, and takes nothing else.

mod ask;
mod request;
mod socket;

pub use ask::{AskError, ask, tell};
pub use request::MAX_HEADER;
pub(super) use request::Request;
pub use socket::ControlSocket;

use std::io;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

/// The maximum length of the first line of a request, and of that of an answer, in bytes.
const MAX_LINE: u64 = 8 * 1024;

/// The usual path of the socket for news: below the folder that systemd makes for the service.
pub const NEWS_SOCKET: &str = "/run/deltapush/news.sock";

/// The path of the control socket for the state in `directory`.
#[must_use]
pub fn path(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

/// Reports if a deltapush runs on the state in `directory`, also another user's.
#[must_use]
pub fn is_served(directory: &Path) -> bool {
    match BlockingStream::connect(path(directory)) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}
