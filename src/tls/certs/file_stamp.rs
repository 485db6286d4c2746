//! The state of certificate files, to see that another program has replaced them, or that another node has ordered a certificate.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::CertificateSettings;
use super::self_signed::SelfSigned;

/// Identifies the state of the files that were read: for each, its device, inode, size, and time of change in seconds and
/// nanoseconds. Links are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileStamp(Vec<(PathBuf, Option<[i128; 5]>)>);

impl FileStamp {
    /// The stamp of the files that `wanted` names, or that deltapush makes in place of them. Blocks on their metadata.
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
        let made = (certificate.chain.is_none() || certificate.key.is_none())
            .then(|| SelfSigned::new(&wanted.hostname, certificate).into_files());
        let made = made.into_iter().flatten();
        Self(own.chain(more).map(look).chain(made.map(|path| look(&path))).collect())
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

    #[test]
    fn certificate_that_another_node_has_ordered_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let acme = "{certificate: {acme: {terms_agreed: true}}, hostname: a.example}";
        let config = config::Config::parse(acme, folder.path(), "config.yaml").unwrap();
        let wanted = CertificateSettings::from(&config.live);
        let directory = &*wanted.certificate.directory;
        fs::create_dir_all(directory).unwrap();
        for file in ["a.example.key.pem", "a.example.cert.pem", "a.example.acme.pem"] {
            let before = FileStamp::now(&wanted);
            fs::write(directory.join(file), "one").unwrap();
            assert_ne!(FileStamp::now(&wanted), before, "{file}");
        }
        let before = FileStamp::now(&wanted);
        fs::write(directory.join("b.example.acme.pem"), "one").unwrap();
        assert_eq!(FileStamp::now(&wanted), before);
    }
}
