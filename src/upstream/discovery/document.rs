//! The autoconfig documents of a domain, place after place: the first that serves counts, one that cannot be used is named.

use std::fmt;
use std::sync::{Arc, PoisonError};

use tracing::{debug, info};

use super::Search;
use super::autoconfig::{self, DocumentFlaw};
use super::fetch::{Fetched, fetch};
use crate::config::AutoconfigUrl;
use crate::dns::HttpDns;

/// An autoconfig document that is there and cannot be used, for the person who can correct it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnusableDocument {
    /// Its address.
    pub url: String,
    /// The line with the flaw, from 1.
    pub line: usize,
    /// The fault.
    pub problem: String,
}

impl fmt::Display for UnusableDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, line, problem } = self;
        write!(f, "the autoconfig document {url} cannot be used: line {line}: {problem}")
    }
}

/// Why no document serves, where that may be the reason that nothing was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DocumentTrouble {
    /// A document is there and cannot be used.
    Unusable(Arc<UnusableDocument>),
    /// A document could not be fetched, which may pass.
    Failed(String),
}

impl fmt::Display for DocumentTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(document) => document.fmt(f),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Returns what `read` finds in the first of the domain's documents that has it. A document that cannot be used is noted in `search`, and
/// the next place is asked.
///
/// # Errors
/// [`DocumentTrouble`] if nothing was found and a document that was not read may be the reason: one that cannot be used before one that
/// cannot be had.
pub(super) async fn documents<T>(
    search: &Search<'_>,
    read: impl Fn(&str) -> Result<Option<T>, DocumentFlaw>,
) -> Result<Option<T>, DocumentTrouble> {
    let usual = AutoconfigUrl::usual();
    let configured = search.terms.autoconfig.as_ref();
    let mut look =
        DocumentLookup { is_configured: configured.is_some(), ..DocumentLookup::default() };
    let mut found = None;
    for place in configured.map_or(usual.as_slice(), std::slice::from_ref) {
        let url = place.of(search.domain);
        let dns = HttpDns { dns: Arc::clone(search.dns), reach: search.reach };
        let fetched = fetch(&url, search.tls.get(&search.terms.trust), dns).await;
        found = look.take(&url, fetched, &read);
        if found.is_some() {
            break;
        }
    }
    for document in &look.unusable {
        info!(domain = %search.domain, "{document}");
    }
    search
        .unusable
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(look.unusable.iter().map(Arc::clone));
    match (found, look.trouble()) {
        (None, Some(trouble)) => Err(trouble),
        (found, _) => Ok(found),
    }
}

/// One look through the places of a domain.
#[derive(Default)]
struct DocumentLookup {
    /// The operator named the place.
    is_configured: bool,
    unusable: Vec<Arc<UnusableDocument>>,
    /// Why a document could not be had.
    failure: Option<String>,
}

impl DocumentLookup {
    /// Takes what came from one place. Returns what `read` finds in it.
    fn take<T>(
        &mut self,
        url: &str,
        fetched: Fetched,
        read: &impl Fn(&str) -> Result<Option<T>, DocumentFlaw>,
    ) -> Option<T> {
        let result = match fetched {
            Fetched::Document(bytes) => {
                examine(&autoconfig::decoded(&bytes), self.is_configured, read)
            }
            Fetched::TooLong(beginning) => {
                let too_long = |text: &str| Err(DocumentFlaw::too_long(text));
                examine(&autoconfig::decoded(&beginning), self.is_configured, &too_long)
            }
            Fetched::Absent => Ok(None),
            Fetched::Failed(reason) => {
                self.failure = Some(reason);
                Ok(None)
            }
        };
        result.unwrap_or_else(|DocumentFlaw { line, problem }| {
            self.unusable.push(Arc::new(UnusableDocument { url: url.to_owned(), line, problem }));
            None
        })
    }

    fn trouble(self) -> Option<DocumentTrouble> {
        let unusable = self.unusable.into_iter().next().map(DocumentTrouble::Unusable);
        unusable.or(self.failure.map(DocumentTrouble::Failed))
    }
}

/// Reads a document if it is autoconfig. Another page counts as none in the usual places, and as a flaw where the operator has named the
/// place.
fn examine<T>(
    text: &str,
    is_configured: bool,
    read: &impl Fn(&str) -> Result<Option<T>, DocumentFlaw>,
) -> Result<Option<T>, DocumentFlaw> {
    if autoconfig::is_autoconfig(text) {
        read(text)
    } else if is_configured {
        Err(DocumentFlaw::foreign(text))
    } else {
        debug!("the answer of the web server is not an autoconfig document");
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_of_another_kind_is_a_flaw_only_where_the_operator_named_it() {
        let read = |_: &str| Err::<Option<()>, _>(DocumentFlaw::too_long(""));
        for page in ["", "<!DOCTYPE html>\n<html><body><br></html>", "not found"] {
            assert_eq!(examine(page, false, &read), Ok(None), "{page}");
            assert!(
                examine(page, true, &read)
                    .unwrap_err()
                    .problem
                    .starts_with("not an autoconfig document"),
                "{page}"
            );
        }
        assert!(examine("<CLIENTCONFIG>", false, &read).unwrap_err().problem.contains("64 KiB"));
    }

    #[test]
    fn document_that_cannot_be_used_is_named_and_the_next_place_asked() {
        let read = |text: &str| {
            autoconfig::servers(text, "a.example", autoconfig::ServerKind::Imap)
                .map(|found| found.first().cloned())
        };
        let broken =
            || Fetched::Document(b"<clientConfig>\n<a>Meyer & Co</a></clientConfig>".into());
        let good = b"<incomingServer type='imap'><hostname>a.example</hostname><port>993</port></incomingServer>";
        let mut look = DocumentLookup::default();
        assert!(look.take("https://1.example/", broken(), &read).is_none());
        assert_eq!(
            &*look.take("https://2.example/", Fetched::Document(good.into()), &read).unwrap().host,
            "a.example"
        );
        assert_eq!((&*look.unusable[0].url, look.unusable[0].line), ("https://1.example/", 2));

        let mut look = DocumentLookup::default();
        look.take("https://1.example/", Fetched::Failed("timeout".into()), &read);
        assert_eq!(look.failure.as_deref(), Some("timeout"));
        look.take("https://2.example/", broken(), &read);
        look.take("https://3.example/", Fetched::Absent, &read);
        let trouble = look.trouble().unwrap().to_string();
        assert!(
            trouble
                .starts_with("the autoconfig document https://2.example/ cannot be used: line 2: "),
            "{trouble}"
        );
    }
}
