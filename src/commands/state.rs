//! `deltapush state`: checks the state, copies it, seals it with a new key.

use std::path::Path;

use crate::admin::format::counted;
use crate::config::Storage;
use crate::store::{self, CredentialStorage, OpenError, StoreSettings};

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
    if rotated.left > 0 {
        said.push_str(&format!(
            "; {} could not be opened with the old key and wait for a login",
            rotated.left
        ));
    }
    Ok(said)
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
