//! Trace files, several for each account, rotated.
//!
//! A file is called after the login name as far as that is safe, and a hash, so that no two accounts share one and no name leads
//! out of the folder. `NAME.trace.jsonl` is written, `NAME.1.trace.jsonl` was before it, and so on.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tracing::warn;

use super::follow::Followed;
use super::record::{Record, TraceEntry};
use super::text::Renderer;
use crate::account::AccountId;
use crate::config::{TraceFiles, TraceFormat};
use crate::file_access::explain;
use crate::printable::counted;

/// Files that are open at once.
const MAX_OPEN: usize = 64;

/// Longest part of a login name in the name of a file, in bytes.
const MAX_NAME: usize = 80;

/// The ends of the file names: the folder may contain files of others, which are never removed.
const JSON: &str = ".trace.jsonl";
const TEXT: &str = ".trace.txt";

/// The file for sessions in which nobody logged in.
const STRANGERS: &str = "before-login";

/// The folder with its files.
pub(super) struct TraceFolder {
    settings: TraceFiles,
    open: HashMap<String, OpenFile>,
    /// The file of the last line: dropped lines are reported there, if nothing follows.
    last: String,
    /// Files grew since the whole was measured, in bytes.
    grown: u64,
    was_failing: bool,
}

struct OpenFile {
    out: BufWriter<File>,
    size: u64,
    renderer: Renderer,
}

impl TraceFolder {
    /// Makes the folder.
    ///
    /// # Errors
    /// If that is not possible.
    pub(super) fn new(settings: TraceFiles) -> io::Result<Self> {
        let directory = &settings.directory;
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
            let text = format!("{}: {}", directory.display(), explain(directory, &error));
            io::Error::new(error.kind(), text)
        })?;
        let mut files = Self {
            settings,
            open: HashMap::new(),
            last: STRANGERS.to_owned(),
            grown: 0,
            was_failing: false,
        };
        files.remove_oldest()?;
        Ok(files)
    }

    /// Writes what comes, until nothing more can.
    pub(super) fn write_all(mut self, mut followed: Followed) {
        let mut dropped = None;
        while let Some(record) = followed.wait() {
            let mut next = Some(record);
            while let Some(record) = next {
                match record.entry {
                    // Told in the file of what comes next.
                    TraceEntry::Dropped(_) if record.account.is_none() => dropped = Some(record),
                    _ => {
                        self.last = record.account.as_ref().map_or(STRANGERS.to_owned(), file_name);
                        self.report_dropped(&mut dropped);
                        self.write(&record);
                    }
                }
                next = followed.try_next();
            }
            self.report_dropped(&mut dropped);
            self.flush();
        }
    }

    fn report_dropped(&mut self, dropped: &mut Option<Record>) {
        if let Some(record) = dropped.take() {
            if let TraceEntry::Dropped(lines) = record.entry {
                warn!("the trace has lost {}: the disk is too slow for it", counted(lines, "line"));
            }
            self.write(&record);
        }
    }

    fn write(&mut self, record: &Record) {
        let result = self.try_write(record);
        self.outcome(result);
    }

    fn flush(&mut self) {
        let result = self.open.values_mut().try_for_each(|open| open.out.flush());
        self.outcome(result);
    }

    /// A full disk is told once, not for each line.
    fn outcome(&mut self, result: io::Result<()>) {
        let failed = result.is_err();
        if let Err(error) = result
            && !self.was_failing
        {
            warn!(
                "the trace cannot be written to {}, lines are lost: {}",
                self.settings.directory.display(),
                explain(&self.settings.directory, &error)
            );
        }
        if failed {
            self.open.clear();
        }
        self.was_failing = failed;
    }

    fn try_write(&mut self, record: &Record) -> io::Result<()> {
        let name = self.last.clone();
        if !self.open.contains_key(&name) {
            if self.open.len() >= MAX_OPEN {
                self.close_all()?;
            }
            let open = OpenFile::at(&self.path(&name, 0))?;
            self.open.insert(name.clone(), open);
        }
        let format = self.settings.format;
        let Some(open) = self.open.get_mut(&name) else { return Ok(()) };
        let line = match format {
            TraceFormat::Json => record.to_json() + "\n",
            TraceFormat::Text => open.renderer.render(record),
        };
        let len = line.len() as u64;
        if open.size > 0 && open.size.saturating_add(len) > self.settings.size.bytes() as u64 {
            self.rotate(&name)?;
            return self.try_write(record);
        }
        open.out.write_all(line.as_bytes())?;
        open.size = open.size.saturating_add(len);
        self.grown = self.grown.saturating_add(len);
        if self.grown > self.settings.total.bytes() as u64 / 16 {
            self.remove_oldest()?;
        }
        Ok(())
    }

    fn close_all(&mut self) -> io::Result<()> {
        self.open.drain().try_for_each(|(_, mut open)| open.out.flush())
    }

    /// The file that is written becomes the one before it, and so on; the last goes.
    fn rotate(&mut self, name: &str) -> io::Result<()> {
        if let Some(mut open) = self.open.remove(name) {
            open.out.flush()?;
        }
        for age in (0..self.settings.files).rev() {
            let path = self.path(name, age);
            let result = match age.saturating_add(1) {
                older if older < self.settings.files => fs::rename(path, self.path(name, older)),
                _ => fs::remove_file(path),
            };
            result.or_else(ignore_absent)?;
        }
        Ok(())
    }

    fn path(&self, name: &str, age: usize) -> PathBuf {
        let extension = match self.settings.format {
            TraceFormat::Json => JSON,
            TraceFormat::Text => TEXT,
        };
        let age = if age == 0 { String::new() } else { format!(".{age}") };
        self.settings.directory.join(format!("{name}{age}{extension}"))
    }

    /// Keeps the whole below its limit.
    fn remove_oldest(&mut self) -> io::Result<()> {
        self.flush();
        self.grown = 0;
        let mut files = measured(&self.settings.directory)?;
        files.sort();
        let mut total = files.iter().map(|(_, size, _)| *size).fold(0, u64::saturating_add);
        for (_, size, path) in files {
            if total <= self.settings.total.bytes() as u64 {
                break;
            }
            fs::remove_file(&path).or_else(ignore_absent)?;
            total = total.saturating_sub(size);
        }
        // The open files may be gone.
        self.close_all()
    }
}

impl OpenFile {
    fn at(path: &Path) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut size = file.seek(SeekFrom::End(0))?;
        let mut out = Vec::new();
        if size > 0 {
            // A process that was killed may have left half a line.
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                out.push(b'\n');
                size = size.saturating_add(1);
            }
        }
        let mut out_file = BufWriter::new(file);
        out_file.write_all(&out)?;
        Ok(Self { out: out_file, size, renderer: Renderer::new().of_one_account() })
    }
}

/// The files with traces in a folder: when they were written last, their size, where they are.
fn measured(folder: &Path) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let is_trace = name.ends_with(JSON.as_bytes()) || name.ends_with(TEXT.as_bytes());
        // It may be gone by now.
        if let (true, Ok(about)) = (is_trace, fs::symlink_metadata(&path))
            && about.is_file()
        {
            files.push((about.modified()?, about.len(), path));
        }
    }
    Ok(files)
}

fn ignore_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// The base name of an account's files, without the parts for age and format.
fn file_name(account: &AccountId) -> String {
    let mut name = String::new();
    for byte in account.user.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'@' | b'-' | b'_' => {
                name.push(char::from(byte))
            }
            // Neither `..` nor a hidden file.
            b'.' if !name.is_empty() && !name.ends_with('.') => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
        if name.len() >= MAX_NAME {
            break;
        }
    }
    let named = format!("{}\n{}", account.user, account.upstream);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, named.as_bytes());
    let hash: String = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{name}-{hash}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::testing::record;
    use super::super::{Audience, TraceSelection, Tracer};
    use super::*;
    use crate::config::Size;

    fn settings(directory: &Path) -> TraceFiles {
        TraceFiles { directory: directory.join("trace"), ..TraceFiles::default() }
    }

    /// The files in the folder after so many lines of each of these users.
    fn written(settings: &TraceFiles, users: &[&str], lines: usize) -> Vec<PathBuf> {
        let tracer = Tracer::default();
        let audience = Audience::LoggedIn(settings.accounts.clone());
        let followed = tracer
            .follow(TraceSelection { audience, side: None, literals: settings.literals })
            .unwrap();
        for (number, user) in users.iter().enumerate() {
            let mut session = tracer.client(number as u64);
            record(&mut session, "a CAPABILITY");
            session.logged_in(&AccountId::new(user, "imap.example.org:993"));
            (0..lines).for_each(|line| record(&mut session, &format!("b NOOP {line}")));
        }
        record(&mut tracer.client(99), "c STRANGE");
        drop(tracer);
        TraceFolder::new(settings.clone()).unwrap().write_all(followed);
        let mut paths: Vec<_> =
            fs::read_dir(&settings.directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    #[test]
    fn each_account_has_files_of_its_own_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "alice@example.org",
            "../../etc/passwd",
            "..",
            ".x",
            "a\nb/\0\u{e9}",
            "",
            &"long".repeat(100),
        ];
        let paths = written(&settings(folder.path()), &names, 1);
        assert_eq!(paths.len(), names.len() + 1, "{paths:?}");
        for path in &paths {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(name.len() < 120 && !name.starts_with('.') && !name.contains(".."), "{name}");
        }
        let mode = fs::metadata(folder.path().join("trace")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let read = |start: &str| {
            let path = paths.iter().find(|path| path.to_str().unwrap().contains(start)).unwrap();
            fs::read_to_string(path).unwrap()
        };
        let alice = read("/alice@example.org-");
        assert!(alice.contains("a CAPABILITY") && alice.lines().count() == 2, "{alice}");
        assert!(alice.lines().all(|line| {
            Record::from_json(line).unwrap().account.unwrap().user.starts_with("alice@")
        }));
        assert!(read("/before-login.").contains("c STRANGE"));
    }

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let settings = TraceFiles { size: Size::new(2000), files: 3, ..settings(folder.path()) };
        let paths = written(&settings, &["alice"], 200);
        let of_alice = paths.iter().filter(|path| path.to_str().unwrap().contains("alice-"));
        let sizes: Vec<_> = of_alice.map(|path| fs::metadata(path).unwrap().len()).collect();
        assert!(
            sizes.len() == 3 && sizes.iter().all(|size| (1..=2000).contains(size)),
            "{sizes:?}"
        );
        let newest = paths.iter().find(|path| {
            path.to_str().unwrap().contains("alice-")
                && !path.to_str().unwrap().contains(".1.")
                && !path.to_str().unwrap().contains(".2.")
        });
        assert!(fs::read_to_string(newest.unwrap()).unwrap().contains("NOOP 199"));

        // One goes on where the last has stopped, even if that was in the middle of a line.
        let path =
            paths.iter().find(|path| path.to_str().unwrap().contains("before-login")).unwrap();
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"{\"time\":").unwrap();
        written(&settings, &[], 0);
        let lines = fs::read_to_string(path).unwrap();
        assert_eq!(
            lines.lines().filter(|line| Record::from_json(line).is_ok()).count(),
            2,
            "{lines}"
        );

        // All of them together too.
        let settings = TraceFiles { total: Size::new(3000), ..settings };
        let total: u64 = written(&settings, &["bob", "carol"], 100)
            .iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .sum();
        assert!(total <= 3000 + 3000 / 16 + 200, "{total}");
    }

    #[test]
    fn person_may_have_text_and_of_some_accounts_only() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = vec!["bob".to_owned()];
        let settings =
            TraceFiles { format: TraceFormat::Text, accounts, ..settings(folder.path()) };
        let paths = written(&settings, &["alice", "bob"], 1);
        let [path] = paths.as_slice() else { panic!("{paths:?}") };
        let text = fs::read_to_string(path).unwrap();
        assert!(
            path.to_str().unwrap().ends_with(".trace.txt")
                && text.contains(" #1 C: b NOOP 0   [kept by deltapush]"),
            "{text}"
        );
    }
}
