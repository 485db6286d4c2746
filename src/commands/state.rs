//! `deltapush state`: checks the state, copies it, moves it, seals it with a new key.

use std::path::{Path, PathBuf};

use crate::admin::format::counted;
use crate::cluster::shared;
use crate::config::{Config, Storage};
use crate::secret::Secret;
use crate::store::{
    self, CertificateFiles, CredentialStorage, OpenError, Place, SharedValue, StoreSettings,
};

/// Checks the state and changes nothing. Returns a message for the operator.
///
/// # Errors
/// [`OpenError`]: the state is not sound.
pub fn check(storage: &Storage) -> Result<String, OpenError> {
    let settings = StoreSettings::new(storage);
    let report = match settings.postgres {
        Some(_) => store::check_shared(&settings)?,
        None => store::check(&settings)?,
    };
    Ok(report.to_string())
}

/// Copies the state into a new file. Returns a message for the operator.
///
/// # Errors
/// [`OpenError`]: there is no copy.
pub fn backup(storage: &Storage, file: &Path) -> Result<String, OpenError> {
    let settings = StoreSettings::new(storage);
    store::backup(&settings, file)?;
    let done = format!("the state is copied to {}", file.display());
    Ok(match settings.credentials {
        CredentialStorage::Sealed(key) => {
            format!(
                "{done}; the copy does not contain the key that seals its passwords: keep a copy of {key} in another place"
            )
        }
        CredentialStorage::Memory | CredentialStorage::None => done,
    })
}

/// Seals the state's credentials with a new key. Returns a message for the operator.
///
/// # Errors
/// [`OpenError`]: the old key still holds.
pub fn rotate_key(storage: &Storage, new_key: Option<&Path>) -> Result<String, OpenError> {
    let settings = StoreSettings::new(storage);
    let rotated = store::rotate(&settings, new_key)?;
    let mut said = format!(
        "passwords of {} are sealed with a new key",
        counted(rotated.resealed as u64, "account")
    );
    match (&rotated.replace, &settings.credentials) {
        (Some(place), _) => {
            said.push_str(&format!(", which {place} must hold before deltapush starts again"))
        }
        (None, CredentialStorage::Sealed(place)) => {
            said.push_str(&format!(", in {place}; copies of the old one open old backups only"))
        }
        (None, CredentialStorage::Memory | CredentialStorage::None) => {}
    }
    if settings.postgres.is_some() {
        said.push_str("; each node needs the new key before it starts again");
    }
    if rotated.left > 0 {
        said.push_str(&format!(
            "; {} could not be opened with the old key and wait for a login",
            rotated.left
        ));
    }
    Ok(said)
}

/// Moves the state into the database, or back into the file. Returns a message for the operator.
///
/// # Errors
/// [`OpenError`]: the state is where it was.
pub fn move_to(config: &Config, target: Place) -> Result<String, OpenError> {
    let (settings, machine) =
        (StoreSettings::new(&config.startup.storage), config.startup.node.name());
    let certificates = CertificateFolder(config.live.certificate.directory.clone());
    let place = match (&settings.postgres, target) {
        (Some(postgres), Place::File) => postgres.url.to_string(),
        _ => settings.directory.display().to_string(),
    };
    match store::move_state(&settings, target, &machine, certificates) {
        Ok(report) => Ok(report.to_string()),
        // They say by themselves where the state is.
        Err(
            error @ (OpenError::Moved { .. }
            | OpenError::NotMarked { .. }
            | OpenError::Unconfirmed(_)),
        ) => Err(error),
        Err(error) => Err(OpenError::MoveFailed { place, source: Box::new(error) }),
    }
}

/// Uses the source of an earlier move again. Returns a message for the operator.
///
/// # Errors
/// [`OpenError`]; nothing has changed then.
pub fn undo_move(config: &Config, target: Place) -> Result<String, OpenError> {
    let settings = StoreSettings::new(&config.startup.storage);
    let place = store::undo_move(&settings, target, &config.startup.node.name())?;
    let (other, remedy) = match target {
        Place::Database => (
            "database",
            "remove `storage.postgres` from the configuration, and empty the database before another move",
        ),
        Place::File => (
            "file",
            "start the nodes with `storage.postgres`, and remove the file before another move",
        ),
    };
    Ok(format!(
        "the state in {place} is used again, as it was at its move; what the {other} has is left alone: {remedy}"
    ))
}

/// The files in the folder of certificates.
struct CertificateFolder(PathBuf);

impl CertificateFiles for CertificateFolder {
    fn read(&self) -> Result<Vec<(String, Secret)>, String> {
        shared::files_of(&self.0).map_err(|error| format!("{}: {error}", self.0.display()))
    }

    fn write(&self, values: &[SharedValue]) -> Result<usize, String> {
        shared::put_files(&self.0, values).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages to the operator, from the first start to a rotation.
    #[tokio::test]
    async fn each_command_says_what_it_did() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage { directory: directory.path().join("state"), ..Storage::default() };
        for error in [
            check(&storage).unwrap_err(),
            backup(&storage, &directory.path().join("copy")).unwrap_err(),
            rotate_key(&storage, None).unwrap_err(),
        ] {
            assert!(matches!(error, OpenError::Absent { .. }), "{error}");
        }
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "what is not there is not made"
        );

        let (store, _) = store::Store::open(&StoreSettings::new(&storage), drop).unwrap();
        assert!(check(&storage).unwrap().contains("in use by a running deltapush"));
        assert!(matches!(rotate_key(&storage, None), Err(OpenError::InUse { .. })));
        store.close().await;

        assert!(check(&storage).unwrap().contains("nothing is sealed"));
        assert!(
            backup(&storage, &directory.path().join("copy"))
                .unwrap()
                .contains("state/seal.key in another place")
        );
        let said = rotate_key(&storage, None).unwrap();
        assert!(
            said.starts_with("passwords of 0 accounts are sealed with a new key, in /"),
            "{said}"
        );
    }
}
