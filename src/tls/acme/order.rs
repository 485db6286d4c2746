//! One ACME order (RFC 8555 section 7.4): from the request for a certificate to its file.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, Error as ProtocolError, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName};
use tokio::task::spawn_blocking;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::error::{AcmeError, Way, in_words, printable};
use super::{OrderServices, account};
use crate::config::{Acme, Hostname};
use crate::tls::acme::challenges::{ChallengeProof, ProofContent};
use crate::tls::certs::CertificateSettings;
use crate::tls::certs::private_file::write_atomically;
use crate::tls::certs::self_signed::{issued_path, kept_key};
use crate::tls::certs::x509::Leaf;

/// Pauses between requests for the state of an order: short at first, then growing.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// The profile of certificates that are valid for about six days (draft-ietf-acme-profiles; the name is Let's Encrypt's).
const SHORT_LIVED: &str = "shortlived";

/// Asks for a certificate, proves the names, and keeps what comes.
pub(super) async fn obtain(
    wanted: &Arc<CertificateSettings>,
    acme: &Acme,
    services: &OrderServices,
) -> Result<(), AcmeError> {
    let folder = &wanted.certificate.directory;
    let (names, way) = (acme.names_or(&wanted.hostname), Way::of(acme));
    let read = Arc::clone(wanted);
    let key = spawn_blocking(move || kept_key(&read.hostname, &read.certificate)).await;
    let key = key.map_err(|_| AcmeError::Panicked)??;
    let mut account = account::open(folder, acme, &services.resolver).await?;
    let mut order = match new_order(&account, &names).await {
        Err(error) if is_unknown_account(&error) => {
            account::forget(folder, acme)?;
            account = account::open(folder, acme, &services.resolver).await?;
            new_order(&account, &names).await?
        }
        order => order?,
    };
    let proved = prove(&mut order, services, way).await;
    services.publish(&[]).await;
    proved?;
    // Those that are IP addresses go into it as such.
    let text: Vec<String> = names.iter().map(Hostname::to_string).collect();
    let mut request = CertificateParams::new(text)?;
    // The names are what counts; authorities ignore or refuse the rest.
    request.distinguished_name = DistinguishedName::new();
    order.finalize_csr(request.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&POLLING).await?;
    check(&chain, &key, &names)?;
    write_atomically(&issued_path(&wanted.hostname, &wanted.certificate), 0o644, chain.as_bytes())?;
    Ok(())
}

async fn new_order(account: &Account, names: &[Hostname]) -> Result<Order, ProtocolError> {
    let identifiers: Vec<_> = names.iter().map(identifier).collect();
    let mut order = NewOrder::new(&identifiers);
    // Let's Encrypt issues certificates for addresses under no other profile; an authority without profiles ignores none.
    let is_for_address = names.iter().any(|name| name.address().is_some());
    if is_for_address && account.profiles().any(|profile| profile.name == SHORT_LIVED) {
        order = order.profile(SHORT_LIVED);
    }
    account.new_order(&order).await
}

fn identifier(name: &Hostname) -> Identifier {
    match name.address() {
        Some(address) => Identifier::Ip(address),
        None => Identifier::Dns(name.to_string()),
    }
}

fn is_unknown_account(error: &ProtocolError) -> bool {
    let ProtocolError::Api(problem) = error else { return false };
    problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist")
}

/// Shows the authority that all names lead here.
async fn prove(order: &mut Order, services: &OrderServices, way: Way) -> Result<(), AcmeError> {
    let offers = begin(order, services, way).await?;
    let ready = order.poll_ready(&POLLING).await;
    let was_seen = offers.iter().any(ChallengeProof::was_seen);
    drop(offers);
    match ready {
        Ok(OrderStatus::Ready) => Ok(()),
        ended => Err(match (refusal(order).await, ended) {
            (Some(reason), _) => AcmeError::NotProved { reason, was_seen, way },
            (None, Err(error)) => error.into(),
            (None, Ok(_)) => {
                AcmeError::NotProved { reason: "it gave no reason".to_owned(), was_seen, way }
            }
        }),
    }
}

/// Lets the authority look for each name that it does not know to be ours yet.
async fn begin(
    order: &mut Order,
    services: &OrderServices,
    way: Way,
) -> Result<Vec<ChallengeProof>, AcmeError> {
    let mut offers = Vec::new();
    let mut contents = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = printable(&authorization.identifier().to_string());
        let Some(mut challenge) = authorization.challenge(way.into()) else {
            return Err(AcmeError::NoChallenge { name, way });
        };
        let content = content(&challenge, &name, way)?;
        offers.push(services.challenges.offer(&content)?);
        contents.push(content);
        // Before the authority looks: it may come to any node.
        services.publish(&contents).await;
        challenge.set_ready().await?;
    }
    Ok(offers)
}

fn content(
    challenge: &ChallengeHandle<'_>,
    name: &str,
    way: Way,
) -> Result<ProofContent, AcmeError> {
    let authorization = challenge.key_authorization();
    Ok(match way {
        Way::Http01 => ProofContent::Http {
            token: challenge.token.clone(),
            authorization: authorization.as_str().to_owned(),
        },
        Way::TlsAlpn01 => {
            let digest = authorization.digest().as_ref().try_into();
            let digest =
                digest.map_err(|_| AcmeError::NoChallenge { name: name.to_owned(), way })?;
            ProofContent::Tls { name: name.to_owned(), digest }
        }
    })
}

/// The problem that the authority found.
async fn refusal(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let state = authorization.refresh().await.ok()?;
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.clone())
        {
            let name = printable(&state.identifier().to_string());
            return Some(format!("{name}: {}", in_words(&ProtocolError::Api(problem))));
        }
    }
    None
}

fn check(chain: &str, key: &rcgen::KeyPair, names: &[Hostname]) -> Result<(), AcmeError> {
    let unusable = |problem: &str| AcmeError::Unusable(problem.to_owned());
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(|_| unusable("it is not PEM"))?;
    let leaf = Leaf::of(&chain).map_err(AcmeError::Unusable)?;
    if !leaf.has_key(key) {
        return Err(unusable("it is for another key"));
    }
    if !names.iter().all(|name| leaf.names(name)) {
        return Err(unusable("it is for other names"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_for_others_is_not_kept() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let (pem, key, other) =
            (made.cert.pem(), made.signing_key, rcgen::KeyPair::generate().unwrap());
        let names = |name: &str| vec![Hostname::new(name).unwrap()];
        check(&pem, &key, &names("a.example")).unwrap();
        assert!(
            check(&pem, &key, &names("b.example")).unwrap_err().to_string().contains("other names")
        );
        assert!(
            check(&pem, &other, &names("a.example"))
                .unwrap_err()
                .to_string()
                .contains("another key")
        );
        assert!(check("", &key, &names("a.example")).is_err());
    }

    #[test]
    fn words_of_an_authority_stay_on_their_line() {
        let problem = r#"{"type": "t", "detail": "no\nway"}"#;
        let error = ProtocolError::Api(serde_json::from_str(problem).unwrap());
        assert_eq!(AcmeError::from(error).to_string(), "no way");
    }
}
