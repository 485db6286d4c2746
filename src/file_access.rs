//! Refused access to a file or a port, explained: owner and mode of the file, the user of this process, and the remedy. For errors
//! that an operator reads.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat, statvfs};

/// The number of symbolic links that are followed.
const MAX_LINKS: u8 = 8;

/// Bits of a mode that are permissions.
const PERMISSIONS: u32 = 0o7777;

/// The remedy for a service that is to make a file elsewhere.
const SERVICE_FOLDER: &str = "the service can write below /var/lib/deltapush and /run/deltapush only; name a folder there in the configuration";

/// The remedy for files that only root can read, and that certbot makes again and again.
const COPY_OF_CERTBOT: &str = "let certbot copy it: \"From certbot\" in docs/certificates.md";

/// The folder of certbot.
const CERTBOT: &str = "/etc/letsencrypt";

/// The remedy for an address that cannot be opened.
pub(crate) fn listen_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there (`ss -ltnp` names it), or systemd does, for a socket unit of deltapush"
        }
        io::ErrorKind::PermissionDenied => {
            "only root and programs with CAP_NET_BIND_SERVICE may open a port below 1024; deltapush.service has it"
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address",
        _ => "see the error",
    }
}

/// The text of an I/O error at `path`, with the cause and the remedy where the operating system refused access. Blocks on the
/// file's metadata.
pub(crate) fn explain(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => match Refusal::of(path) {
            Some(refusal) => format!("{error}: {refusal}"),
            None => error.to_string(),
        },
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("{error}: {SERVICE_FOLDER}")
        }
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::AlreadyExists => "it exists already: choose another name".to_owned(),
        _ => error.to_string(),
    }
}

/// True if the operating system refused access, so that [`explain`] names the remedy.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// The first of `paths` that exists and that this process cannot read and write. For libraries whose errors do not name the
/// file.
pub(crate) fn first_refused(paths: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let is_refused = |path: &PathBuf| match fs::symlink_metadata(path) {
        Ok(_) => !may(path, Access::READ_OK | Access::WRITE_OK),
        Err(error) => is_refused(&error),
    };
    paths.into_iter().find(is_refused)
}

/// The name of the user of this process, or its number.
pub(crate) fn own_user() -> String {
    user_name(rustix::process::geteuid().as_raw())
}

/// The name of the owner of a file that exists, or its number.
pub(crate) fn owner(path: &Path) -> Option<String> {
    Some(user_name(fs::metadata(path).ok()?.uid()))
}

/// True for a file of certbot's, which only root can read.
pub(crate) fn is_certbots(path: &Path) -> bool {
    path.starts_with(CERTBOT)
}

/// The reason of a refused access.
#[derive(Debug)]
struct Refusal {
    /// The folder that refuses it, if it is not the file itself.
    folder: Option<PathBuf>,
    owner: String,
    group: String,
    mode: u32,
    /// The user of this process.
    user: String,
    /// True if systemd started this process, so that it cannot be run as another user.
    is_service: bool,
    /// True if the file is to be made in a folder that is read-only for this process.
    is_read_only: bool,
    /// True if the file is one of certbot's.
    is_certbots: bool,
}

impl Refusal {
    fn of(path: &Path) -> Option<Self> {
        let whole = std::path::absolute(path).ok()?;
        let (found, metadata) = last_reachable(&whole, MAX_LINKS)?;
        // If the file itself is open, its folder takes no new name.
        let (found, metadata) = match found.parent() {
            Some(folder)
                if !metadata.is_dir() && may(&found, Access::READ_OK | Access::WRITE_OK) =>
            {
                (folder.to_owned(), fs::metadata(folder).ok()?)
            }
            _ => (found, metadata),
        };
        let is_folder = found != whole && metadata.is_dir();
        let is_missing = is_folder && may(&found, Access::EXEC_OK);
        Some(Self {
            is_read_only: is_missing && is_read_only(&found),
            folder: is_folder.then(|| found.canonicalize().unwrap_or(found)),
            owner: user_name(metadata.uid()),
            group: name_of("/etc/group", metadata.gid()),
            mode: metadata.mode() & PERMISSIONS,
            user: own_user(),
            is_service: is_started_by_systemd(),
            is_certbots: is_certbots(path),
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, group, mode, user, .. } = self;
        match &self.folder {
            Some(folder) => write!(f, "the folder {} belongs", folder.display())?,
            None => write!(f, "it belongs")?,
        }
        write!(f, " to {owner} (group {group}, mode {mode:04o}), and deltapush runs as {user}; ")?;
        match (self.is_service, owner.as_str()) {
            _ if self.is_service && self.is_read_only => write!(f, "{SERVICE_FOLDER}")?,
            (_, own) if own == user => write!(f, "change its mode (chmod)")?,
            (true, _) if self.is_certbots => write!(f, "{COPY_OF_CERTBOT}")?,
            (false, _) if self.is_certbots => write!(f, "run it as root, or {COPY_OF_CERTBOT}")?,
            (true, _) => write!(f, "give {user} access to it (chown, chmod)")?,
            (false, "root") => write!(f, "run it as root, or give {user} access (chown, chmod)")?,
            (false, _) => {
                write!(f, "run it as {owner} (`sudo -u {owner} deltapush …`) or as root")?
            }
        }
        Ok(())
    }
}

/// The file, or the last folder on the way to it, whose metadata can be read: behind it, or in it, the way ends. Links are
/// followed.
fn last_reachable(path: &Path, links: u8) -> Option<(PathBuf, Metadata)> {
    for candidate in path.ancestors() {
        if let Ok(metadata) = fs::metadata(candidate) {
            return Some((candidate.to_owned(), metadata));
        }
        // A link that can be read while its target cannot.
        if let (Ok(target), Some(folder)) = (fs::read_link(candidate), candidate.parent())
            && let Some(fewer) = links.checked_sub(1)
        {
            let rest = path.strip_prefix(candidate).ok()?;
            return last_reachable(&folder.join(target).join(rest), fewer);
        }
    }
    None
}

fn may(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// systemd.exec(5), `$SYSTEMD_EXEC_PID`: children of the service inherit the variable.
fn is_started_by_systemd() -> bool {
    std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| pid == std::process::id().to_string())
}

fn user_name(id: u32) -> String {
    name_of("/etc/passwd", id)
}

/// The name of a user or group in passwd(5) or group(5), or the number.
fn name_of(file: &str, id: u32) -> String {
    let lines = fs::read(file).unwrap_or_default();
    name_in(&String::from_utf8_lossy(&lines), id).unwrap_or_else(|| id.to_string())
}

fn name_in(lines: &str, id: u32) -> Option<String> {
    lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let is_it = fields.nth(1)?.parse() == Ok(id);
        is_it.then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(owner: &str, folder: Option<&str>) -> Refusal {
        Refusal {
            folder: folder.map(PathBuf::from),
            owner: owner.to_owned(),
            group: owner.to_owned(),
            mode: 0o600,
            user: "nobody".to_owned(),
            is_service: false,
            is_read_only: false,
            is_certbots: false,
        }
    }

    #[test]
    fn refusal_names_owner_mode_user_and_remedy() {
        assert_eq!(
            refusal("root", None).to_string(),
            "it belongs to root (group root, mode 0600), and deltapush runs as nobody; run it as root, or give nobody \
             access (chown, chmod)"
        );
        assert_eq!(
            refusal("deltapush", Some("/var/lib/deltapush")).to_string(),
            "the folder /var/lib/deltapush belongs to deltapush (group deltapush, mode 0600), and deltapush runs as \
             nobody; run it as deltapush (`sudo -u deltapush deltapush …`) or as root"
        );
        let own = refusal("nobody", None).to_string();
        assert!(own.ends_with("; change its mode (chmod)"), "{own}");
        let outside = Refusal {
            is_service: true,
            is_read_only: true,
            ..refusal("root", Some("/etc/deltapush"))
        };
        let outside = outside.to_string();
        assert!(outside.contains("; the service can write below /var/lib/deltapush"), "{outside}");
        let service = Refusal { is_service: true, is_certbots: true, ..refusal("root", None) };
        let service = service.to_string();
        assert!(
            service.ends_with("; let certbot copy it: \"From certbot\" in docs/certificates.md"),
            "{service}"
        );
        let service = Refusal { is_service: true, ..refusal("root", None) }.to_string();
        assert!(service.ends_with("; give nobody access to it (chown, chmod)"), "{service}");
    }

    #[test]
    fn the_way_ends_at_the_last_folder_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("live")).unwrap();
        std::os::unix::fs::symlink("../archive/key.pem", path("live/key.pem")).unwrap();
        let end = |name: &str| last_reachable(&path(name), MAX_LINKS).unwrap().0;
        assert_eq!(end("live/none/key.pem"), path("live"));
        assert_eq!(end("live/key.pem").canonicalize().unwrap(), folder.path());
        fs::create_dir(path("archive")).unwrap();
        assert_eq!(end("live/key.pem").canonicalize().unwrap(), path("archive"));
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        assert_eq!(end("loop"), folder.path());
    }

    #[test]
    fn other_errors_name_no_owner() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(explain(Path::new("/nonexistent"), &missing), "there is no such file or folder");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(explain(Path::new("/nonexistent"), &full), full.to_string());
        assert!(!is_refused(&missing) && first_refused(["/nonexistent".into()]).is_none());
        let read_only = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        assert!(explain(Path::new("/etc/x"), &read_only).contains("and /run/deltapush only"));
    }

    #[test]
    fn names_are_those_of_the_numbers() {
        let lines = "root:x:0:0::/root:/bin/sh\n\nmalformed\nalice:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_in(lines, 1000).as_deref(), Some("alice"));
        assert_eq!(name_in(lines, 1), None);
        assert_eq!(user_name(4_000_000_000), "4000000000");
    }
}
