//! News of the mail server that `deltapush news` hands over.

use super::control_server::Peer;
use super::question::{AskedNews, NewsAnswer, NewsRefusal};
use crate::push::server_news::{
    NewsError, NewsHeaders, NewsOutcome, NewsReceiver, NewsScope, ServerNews,
};

/// Hands news over, and tells `peer` what came of it.
pub(super) async fn receive(
    receiver: &NewsReceiver,
    told: AskedNews,
    header: Vec<u8>,
    peer: Peer,
) -> NewsAnswer {
    let name = told.name.clone();
    match receiver.receive(news(told, header, peer), &NewsScope::All).await {
        // Other users of the machine learn nothing of accounts and devices.
        Ok(_) if !peer.is_trusted => NewsAnswer::Accepted("accepted".to_owned()),
        Ok(outcome) => NewsAnswer::Accepted(words(&name, outcome)),
        Err(error) => NewsAnswer::Refused { kind: kind(&error), words: error.to_string() },
    }
}

/// A UID moves the account's position past messages that the watch has not seen: it counts only from users who could do worse.
fn news(told: AskedNews, header: Vec<u8>, peer: Peer) -> ServerNews {
    let AskedNews { name, mailbox, uid, uid_validity, from, header_bytes: _ } = told;
    let headers = match from {
        Some(from) => NewsHeaders::From(from),
        None if header.is_empty() => NewsHeaders::Unknown,
        None => NewsHeaders::All(header),
    };
    ServerNews {
        name,
        mailbox,
        uid: uid.filter(|_| peer.is_trusted),
        uid_validity: uid_validity.filter(|_| peer.is_trusted),
        headers,
        ..ServerNews::default()
    }
}

fn words(name: &str, outcome: NewsOutcome) -> String {
    match outcome {
        NewsOutcome::Announced => format!("the devices of {name} are woken"),
        NewsOutcome::Skipped(reason) => format!("no push: {reason}"),
        NewsOutcome::Known => "no push: the message was known already".to_owned(),
        NewsOutcome::OtherMailbox => {
            "no push: this mailbox is not one that wakes devices".to_owned()
        }
        NewsOutcome::NoDevice => format!("no push: {name} has no device here"),
    }
}

fn kind(error: &NewsError) -> NewsRefusal {
    match error {
        NewsError::Invalid(_) | NewsError::Ambiguous => NewsRefusal::Invalid,
        NewsError::NotConfigured | NewsError::OutOfScope => NewsRefusal::NotConfigured,
        NewsError::TooMany | NewsError::Store(_) => NewsRefusal::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_counts_only_from_trusted_users() {
        let told = AskedNews { uid: Some(7), uid_validity: Some(1), ..AskedNews::of("alice") };
        let trusted = news(told.clone(), vec![], Peer { is_trusted: true });
        assert_eq!((trusted.uid, trusted.uid_validity), (Some(7), Some(1)));
        let other = news(told, vec![], Peer { is_trusted: false });
        assert_eq!((other.uid, other.uid_validity), (None, None));
    }

    #[test]
    fn filter_judges_by_what_was_told() {
        let peer = Peer { is_trusted: true };
        let headers = |from: Option<&str>, header: &[u8]| {
            let told = AskedNews { from: from.map(str::to_owned), ..AskedNews::of("alice") };
            news(told, header.to_vec(), peer).headers
        };
        assert!(headers(None, b"") == NewsHeaders::Unknown);
        assert!(headers(None, b"A: b\n") == NewsHeaders::All(b"A: b\n".to_vec()));
        assert!(headers(Some("bob@b.example"), b"") == NewsHeaders::From("bob@b.example".into()));
    }
}
