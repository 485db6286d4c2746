//! The folders that deltapush writes: rights, room, and the state in them.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};

use super::super::Fault;
use super::Finding;
use crate::config::Config;
use crate::file_access;
use crate::store::{self, OpenError, StoreSettings};

const SUBJECT: &str = "state";

/// Room on the disk below which a warning is due, in bytes: SQLite's log and a certificate need some megabytes.
const LITTLE_ROOM: u64 = 100 << 20;

/// The folders that could not be written.
pub(in super::super) fn closed_folders(config: &Config) -> Vec<Finding> {
    let problem = |(key, folder): (&'static str, PathBuf)| {
        folder_problem(&folder).map(|(words, remedy)| {
            Finding::fail(Fault::System, SUBJECT, format!("{key}: {words}"), remedy)
        })
    };
    folders(config).into_iter().filter_map(problem).collect()
}

/// The folders that deltapush writes, with their use.
fn folders(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let mut folders = vec![("storage.directory", config.startup.storage.directory.clone())];
    let certificate = &config.live.certificate;
    if certificate.chain.is_none() {
        folders.push(("certificate.directory", certificate.directory.clone()));
    }
    if let Some(files) = &config.live.trace.files {
        folders.push(("trace.directory", files.directory.clone()));
    }
    folders
}

/// Why deltapush could not write to the folder, or not create it; and the remedy.
fn folder_problem(folder: &Path) -> Option<(String, String)> {
    let folder = std::path::absolute(folder).ok()?;
    let existing = folder.ancestors().find(|folder| folder.exists())?;
    if !existing.is_dir() {
        let remedy = "name another folder, or move that file".to_owned();
        return Some((format!("{} is not a folder", existing.display()), remedy));
    }
    // With the rights that count when a file is opened: those of the effective user.
    let refused = accessat(CWD, existing, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    let error = io::Error::from(refused.err()?);
    let action = if existing == folder { "cannot write to" } else { "cannot create a folder in" };
    let explained = file_access::explain(existing, &error);
    // The explanation ends with its remedy.
    let (why, remedy) =
        explained.rsplit_once("; ").unwrap_or((&explained, "give deltapush access"));
    Some((format!("{action} {}: {why}", existing.display()), remedy.to_owned()))
}

/// Facts about the state.
#[derive(Debug)]
pub(in super::super) struct StateFacts {
    pub(in super::super) directory: PathBuf,
    /// The result of `deltapush state check`.
    pub(in super::super) check: Result<String, OpenError>,
    /// Bytes that are free for deltapush.
    pub(in super::super) room: Option<u64>,
    /// The owner of the folder, and a file in it of another owner.
    pub(in super::super) strange: Option<(String, PathBuf, String)>,
}

/// Looks at the state. Blocks, and changes nothing.
pub(in super::super) fn look(config: &Config) -> StateFacts {
    let storage = &config.startup.storage;
    let room = statvfs(&storage.directory).ok();
    StateFacts {
        directory: storage.directory.clone(),
        check: store::check(&StoreSettings::new(storage)).map(|found| found.to_string()),
        room: room.map(|system| system.f_bavail.saturating_mul(system.f_frsize)),
        strange: strange_file(&storage.directory),
    }
}

fn strange_file(folder: &Path) -> Option<(String, PathBuf, String)> {
    let owner = file_access::owner(folder)?;
    let entries = std::fs::read_dir(folder).ok()?;
    entries.flatten().map(|entry| entry.path()).find_map(|path| {
        let other = file_access::owner(&path).filter(|other| *other != owner)?;
        Some((owner.clone(), path, other))
    })
}

/// Judges the state.
pub(in super::super) fn judge(facts: &StateFacts) -> Finding {
    let directory = facts.directory.display();
    match &facts.check {
        Err(OpenError::Absent { .. }) => {
            return Finding::ok(SUBJECT, format!("{directory}, created at the first start"));
        }
        Err(error) => {
            return Finding::fail(
                Fault::System,
                SUBJECT,
                error.to_string(),
                "docs/state.md, \"If it does not work\"",
            );
        }
        Ok(_) => {}
    }
    if let Some((owner, path, other)) = &facts.strange {
        return Finding::warn(
            SUBJECT,
            format!("{} belongs to {other}, and the folder to {owner}", path.display()),
            format!("chown -R {owner}: {directory}"),
        );
    }
    match facts.room {
        Some(room) if room < LITTLE_ROOM => Finding::warn(
            SUBJECT,
            format!("{directory} has {} MiB of free space left", room >> 20),
            "make room on the disk: without it no token and no new message is stored",
        ),
        _ => Finding::ok(SUBJECT, format!("{directory} can be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::findings::Verdict;

    #[test]
    fn file_in_place_of_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let text = format!(
            "storage:\n  directory: {}\ncertificate:\n  directory: {}\n",
            file.join("state").display(),
            folder.path().join("a/b").display(),
        );
        let config = Config::parse(&text, Path::new(""), "here").unwrap();
        let found = closed_folders(&config);
        let [state] = found.as_slice() else { panic!("{found:?}") };
        assert!(
            state.words.starts_with("storage.directory: ")
                && state.words.ends_with("is not a folder"),
            "{state:?}"
        );
    }

    fn facts(check: Result<String, OpenError>, room: u64) -> StateFacts {
        StateFacts { directory: "state".into(), check, room: Some(room), strange: None }
    }

    #[test]
    fn damage_strange_owners_and_a_full_disk_are_told() {
        let sound = || Ok("sound".to_owned());
        assert_eq!(judge(&facts(sound(), 1 << 30)), Finding::ok("state", "state can be read"));
        let full = judge(&facts(sound(), 5 << 20));
        assert!(full.verdict == Verdict::Warn && full.words.contains("5 MiB"));
        let strange = Some(("deltapush".into(), "state/state.sqlite".into(), "root".into()));
        let owned = judge(&StateFacts { strange, ..facts(sound(), 1 << 30) });
        assert_eq!(owned.remedy.as_deref(), Some("chown -R deltapush: state"));
        assert!(judge(&facts(Err(OpenError::DiskFull), 1 << 30)).is_failure());
        let absent = OpenError::Absent { path: "state".into() };
        assert_eq!(judge(&facts(Err(absent), 1 << 30)).verdict, Verdict::Ok);
    }
}
