//! The folder of certificates as all nodes have it: keys, certificates and the account at the authority, which deltapush makes
//! and which each node must show or use.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Digest, SHA256, digest};

use crate::secret::Secret;
use crate::tls::certs::identity::CertificateError;
use crate::tls::certs::private_file::write_atomically;

/// Files that deltapush makes end with these. Others in the folder are the operator's and stay on their machine.
const KEY: &str = ".key.pem";
const ACCOUNT: &str = ".account.json";
const CERTIFICATES: [&str; 2] = [".cert.pem", ".acme.pem"];

/// Longer files are none of deltapush's.
const MAX_LEN: u64 = 64 * 1024;
/// Most files of the folder.
const MAX_FILES: usize = 64;

/// The folder of this node, and what it has in common with the others.
pub(super) struct Folder {
    path: PathBuf,
    /// By the file's name: the version that the others have, too, and the hash of its content.
    common: HashMap<String, (i64, Digest)>,
}

/// A file of the folder that the others are to have.
pub(super) struct NewFile {
    pub(super) name: String,
    pub(super) content: Secret,
    /// The version that it replaces; none if it is new.
    pub(super) replaces: Option<i64>,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), common: HashMap::new() }
    }

    /// Takes over the file that the others have. Returns whether it was another one here. A key that it replaces stays beside
    /// it: people may know it.
    pub(super) fn take(
        &mut self,
        name: &str,
        content: &Secret,
        version: i64,
    ) -> Result<bool, CertificateError> {
        if !is_shared(name) {
            return Ok(false);
        }
        let path = self.path.join(name);
        let hash = digest(&SHA256, content.expose());
        let here = read(&path).ok().flatten();
        let differs = here.as_ref() != Some(content);
        if differs {
            let failed = |source| CertificateError::Write { path: path.clone(), source };
            fs::create_dir_all(&self.path).map_err(failed)?;
            if let (Some(old), true) = (here, name.ends_with(KEY)) {
                write_atomically(&self.path.join(format!("{name}.replaced")), 0o600, old.expose())?;
            }
            write_atomically(&path, mode(name), content.expose())?;
        }
        self.common.insert(name.to_owned(), (version, hash));
        Ok(differs)
    }

    /// The others have this version of a file now, too.
    pub(super) fn given(&mut self, file: &NewFile, version: i64) {
        let hash = digest(&SHA256, file.content.expose());
        self.common.insert(file.name.clone(), (version, hash));
    }

    /// The files that the others do not have yet.
    pub(super) fn news(&self) -> io::Result<Vec<NewFile>> {
        let mut news = Vec::new();
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            // With files of the operator's, deltapush makes none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(news),
            Err(error) => return Err(error),
        };
        for entry in entries.take(MAX_FILES) {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !is_shared(&name) {
                continue;
            }
            let Some(content) = read(&entry.path())? else { continue };
            let common = self.common.get(&name);
            let hash = digest(&SHA256, content.expose());
            if common.is_none_or(|(_, known)| known.as_ref() != hash.as_ref()) {
                news.push(NewFile { name, content, replaces: common.map(|(version, _)| *version) });
            }
        }
        Ok(news)
    }
}

fn is_shared(name: &str) -> bool {
    let is_plain = !name.starts_with('.') && !name.contains('/');
    let is_made = |end: &&str| name.ends_with(*end);
    is_plain && [KEY, ACCOUNT].iter().chain(&CERTIFICATES).any(is_made)
}

fn mode(name: &str) -> u32 {
    if CERTIFICATES.iter().any(|end| name.ends_with(end)) { 0o644 } else { 0o600 }
}

/// The file's content; none if it is not there, or no file of deltapush's.
fn read(path: &Path) -> io::Result<Option<Secret>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MAX_LEN {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut content)?;
    Ok(Some(Secret::new(content)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn names(folder: &Folder) -> Vec<String> {
        let mut names: Vec<_> = folder.news().unwrap().into_iter().map(|file| file.name).collect();
        names.sort();
        names
    }

    #[test]
    fn files_that_deltapush_makes_are_given_once_and_taken() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shared = ["a.example.key.pem", "a.example.acme.pem", "ca.account.json"];
        for name in shared.iter().chain(&["chain.pem", ".x.key.pem", "a.key.pem.tmp"]) {
            fs::write(one.path().join(name), name).unwrap();
        }
        let (mut here, mut there) =
            (Folder::new(one.path()), Folder::new(&other.path().join("new")));
        assert!(there.news().unwrap().is_empty(), "no folder yet");
        assert_eq!(names(&here), ["a.example.acme.pem", "a.example.key.pem", "ca.account.json"]);
        for file in here.news().unwrap() {
            assert_eq!(file.replaces, None);
            here.given(&file, 1);
            assert!(there.take(&file.name, &file.content, 1).unwrap());
            assert!(!there.take(&file.name, &file.content, 1).unwrap());
        }
        assert!(here.news().unwrap().is_empty() && there.news().unwrap().is_empty());
        let mode = |name: &str| {
            let path = other.path().join("new").join(name);
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(shared.map(mode), [0o600, 0o644, 0o600]);
        fs::write(one.path().join("a.example.acme.pem"), "renewed").unwrap();
        let news = here.news().unwrap();
        assert_eq!((news.len(), news[0].replaces), (1, Some(1)));
    }

    #[test]
    fn key_that_is_replaced_stays_beside_it_and_nothing_leaves_the_folder() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("a.key.pem"), "mine").unwrap();
        let mut folder = Folder::new(place.path());
        assert!(folder.take("a.key.pem", &secret("ours"), 4).unwrap());
        let read = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
        assert_eq!([read("a.key.pem"), read("a.key.pem.replaced")], ["ours", "mine"]);
        for name in ["../a.key.pem", "/tmp/a.key.pem", "other", ".key.pem"] {
            assert!(!folder.take(name, &secret("x"), 1).unwrap(), "{name}");
        }
        fs::write(place.path().join("b.cert.pem"), vec![0; 70_000]).unwrap();
        fs::create_dir(place.path().join("c.cert.pem")).unwrap();
        assert!(folder.news().unwrap().is_empty());
    }
}
