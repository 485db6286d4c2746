//! The account at the certificate authority: made once, its key stored with the certificates.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use instant_acme::{Account, AccountBuilder, AccountCredentials, NewAccount};
use reqwest::dns::Resolve;

use super::error::AcmeError;
use super::http::Https;
use crate::config::Acme;
use crate::file_access::explain;
use crate::tls::certs::private_file::write_atomically;
use crate::tls::client::https_roots;

/// The file of the account with this authority: one for each, by its URL.
fn path(folder: &Path, acme: &Acme) -> PathBuf {
    let url = acme.directory.as_str().trim_start_matches("https://");
    let name: String =
        url.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    folder.join(format!("{name}.account.json"))
}

/// The account that is kept, or a new one.
pub(super) async fn open(
    folder: &Path,
    acme: &Acme,
    resolver: &Arc<dyn Resolve>,
) -> Result<Account, AcmeError> {
    let path = path(folder, acme);
    if let Some(kept) = read(&path)? {
        return Ok(builder(acme, resolver)?.from_credentials(kept).await?);
    }
    let contact = acme.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let wanted = NewAccount {
        contact: &contact,
        terms_of_service_agreed: acme.terms_agreed,
        only_return_existing: false,
    };
    let (account, credentials) =
        builder(acme, resolver)?.create(&wanted, acme.directory.to_string(), None).await?;
    let text = serde_json::to_string(&credentials).map_err(instant_acme::Error::from)?;
    write_atomically(&path, 0o600, text.as_bytes())?;
    Ok(account)
}

/// Forgets an account that the authority does not know any more.
pub(super) fn forget(folder: &Path, acme: &Acme) -> Result<(), AcmeError> {
    let path = path(folder, acme);
    fs::remove_file(&path).map_err(|source| {
        let problem = explain(&path, &source);
        AcmeError::Account { path, problem }
    })
}

fn read(path: &Path) -> Result<Option<AccountCredentials>, AcmeError> {
    let wrong = |problem: String| AcmeError::Account { path: path.to_owned(), problem };
    match fs::read_to_string(path) {
        // A parser's message may repeat what it read.
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|_| wrong("it contains no account".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(explain(path, &error))),
    }
}

fn builder(acme: &Acme, resolver: &Arc<dyn Resolve>) -> Result<AccountBuilder, AcmeError> {
    let https = Https::new(https_roots(acme.ca.as_ref())?, Arc::clone(resolver))?;
    Ok(Account::builder_with_http(Box::new(https)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_authority_has_a_file_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), &Acme::default());
        assert_eq!(
            path.file_name().unwrap(),
            "acme-v02.api.letsencrypt.org-directory.account.json"
        );
        assert!(read(&path).unwrap().is_none());
        fs::write(&path, "{\"key\": \"sesame\"}").unwrap();
        let error = read(&path).err().unwrap();
        let said = format!("{error}; {}", error.cure());
        assert!(
            said.starts_with(path.to_str().unwrap())
                && said.contains("remove it")
                && !said.contains("sesame")
        );
        forget(folder.path(), &Acme::default()).unwrap();
        assert!(forget(folder.path(), &Acme::default()).is_err());
    }
}
