//! The state of certificate files, to see that another program has replaced them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::CertificateSettings;

/// Identifies the state of the files that were read: for each, its device, inode, size, and time of change in seconds and
/// nanoseconds. Links are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileStamp(Vec<(PathBuf, Option<[i128; 5]>)>);

impl FileStamp {
    /// The stamp of the files that `wanted` names. Blocks on their metadata.
    pub(super) fn now(wanted: &CertificateSettings) -> Self {
        let certificate = &wanted.certificate;
        let own = certificate.chain.iter().chain(&certificate.key).map(|path| &**path);
        let more = certificate.more.iter().flat_map(|files| [&files.chain, &files.key]);
        let look = |path: &PathBuf| {
            let found = fs::metadata(path).ok().map(|data| {
                [
                    data.dev().into(),
                    data.ino().into(),
                    data.size().into(),
                    data.mtime().into(),
                    data.mtime_nsec().into(),
                ]
            });
            (path.clone(), found)
        };
        Self(own.chain(more).map(look).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Hostname};

    #[test]
    fn change_is_seen_also_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::write(file("1"), "one").unwrap();
        fs::write(file("2"), "one").unwrap();
        std::os::unix::fs::symlink(file("1"), file("live")).unwrap();
        let certificate =
            config::Certificate { chain: Some(file("live").into()), ..Default::default() };
        let wanted =
            CertificateSettings { hostname: Hostname::new("a.example").unwrap(), certificate };
        let first = FileStamp::now(&wanted);
        assert_eq!(first, FileStamp::now(&wanted));
        fs::remove_file(file("live")).unwrap();
        let gone = FileStamp::now(&wanted);
        std::os::unix::fs::symlink(file("2"), file("live")).unwrap();
        let second = FileStamp::now(&wanted);
        fs::write(file("2"), "more").unwrap();
        let third = FileStamp::now(&wanted);
        assert!(first != gone && gone != second && second != first && third != second);
    }
}
