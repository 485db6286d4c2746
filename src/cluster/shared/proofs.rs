//! Proofs of another node's order, which this node shows, too: an authority may come to any of them.

use crate::secret::Secret;
use crate::tls::acme::challenges::{ChallengeProof, Challenges, ProofContent};

/// Most names of an order.
const MAX_PROOFS: usize = 100;

/// The proofs of other nodes that are on offer here.
#[derive(Debug, Default)]
pub(super) struct Proofs(Vec<(ProofContent, ChallengeProof)>);

impl Proofs {
    /// Offers the proofs in `record` and no others. What cannot be read or offered is left out: the authority says then that
    /// it found nothing.
    pub(super) fn replace(&mut self, record: &Secret, challenges: &Challenges) {
        let mut wanted: Vec<ProofContent> =
            serde_json::from_slice(record.expose()).unwrap_or_default();
        wanted.truncate(MAX_PROOFS);
        self.0.retain(|(content, _)| wanted.contains(content));
        for content in wanted {
            if self.0.iter().any(|(offered, _)| *offered == content) {
                continue;
            }
            match challenges.offer(&content) {
                Ok(proof) => self.0.push((content, proof)),
                Err(error) => {
                    tracing::warn!("cannot show a proof of another node to the authority: {error}")
                }
            }
        }
    }
}

/// The record of these proofs.
pub(super) fn record(proofs: &[ProofContent]) -> Secret {
    // A list of texts and bytes is always written.
    Secret::new(serde_json::to_vec(proofs).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_of_another_node_are_shown_until_they_are_withdrawn() {
        let (mut proofs, challenges) = (Proofs::default(), Challenges::default());
        let http = |token: &str| ProofContent::Http {
            token: token.to_owned(),
            authorization: format!("{token}.key"),
        };
        let tls = ProofContent::Tls { name: "a.example".to_owned(), digest: [7; 32] };
        proofs.replace(&record(&[http("a"), tls]), &challenges);
        assert!(challenges.are_under_way());
        assert_eq!(challenges.answer_http("a").as_deref(), Some("a.key"));
        proofs.replace(&record(&[http("a"), http("b"), http("no token")]), &challenges);
        assert!(!challenges.are_under_way());
        assert_eq!(["a", "b"].map(|token| challenges.answer_http(token).is_some()), [true; 2]);
        proofs.replace(&Secret::new(b"{".to_vec()), &challenges);
        assert_eq!(challenges.answer_http("a"), None);
    }
}
