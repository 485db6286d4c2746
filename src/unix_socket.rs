//! Unix sockets at a path. A socket has its mode from the moment at which its path leads to it: a program that connects just then
//! is not refused.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Listens at `path`, for those who `mode` permits. Replaces a socket at which nothing answers, left behind by a process that was
/// killed, and nothing else: a path in the configuration may be another program's.
///
/// # Errors
/// `AddrInUse` if a program answers there, `AlreadyExists` if it is no socket, and those of the operating system.
pub(crate) fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    refuse_taken(path)?;
    let new = beside(path);
    remove(&new)?;
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(mode))?;
    fs::rename(&new, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn refuse_taken(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "another file has this name"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
        Err(_) => Ok(()),
    }
}

/// The path at which a socket is made.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn socket_left_behind_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("news.sock");
        drop(listen(&path, 0o666).unwrap());
        assert!(path.exists());
        let listener = listen(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let file = folder.path().join("config.yaml");
        fs::write(&file, "news: {}").unwrap();
        assert_eq!(listen(&file, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&file).unwrap(), "news: {}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn socket_has_its_mode_whenever_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("news.sock");
        let (is_over, seen) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(found) = fs::metadata(&path) else { continue };
                    seen.store(true, Ordering::Relaxed);
                    assert_eq!(found.permissions().mode() & 0o777, 0o666);
                }
            });
            for _ in 0..2000 {
                drop(listen(&path, 0o666).unwrap());
                fs::remove_file(&path).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(seen.load(Ordering::Relaxed));
    }
}
