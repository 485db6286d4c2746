//! Encrypted settings in the public page, readable only with the address or domain for which they are.
//! The page must show the SMTP server of an entered address without a request to this server, and must not disclose
//! which domains are served here. Therefore each entry is sealed with a key derived from the domain or the address:
//! reading one means guessing the name, which autoconfig answers as well, at a lower cost.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Iterations of the key derivation: some milliseconds.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(20_000).unwrap();

/// Entries are padded to this length, in bytes, to hide their size.
const LENGTH: usize = 512;

/// Seals `entries`: names and their settings. An entry that is too long is omitted. `None` if the system provides no
/// random numbers.
pub(super) fn seal<'a>(entries: impl Iterator<Item = (&'a str, Value)>) -> Option<Value> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).ok()?;
    let mut sealed: Vec<(String, String)> =
        entries.filter_map(|(name, value)| one(&salt, name, &value)).collect();
    // Their order says nothing either.
    sealed.sort();
    let entries: Vec<_> =
        sealed.into_iter().map(|(id, data)| json!({"id": id, "data": data})).collect();
    Some(json!({"salt": STANDARD.encode(salt), "iterations": ITERATIONS.get(), "entries": entries}))
}

fn one(salt: &[u8], name: &str, value: &Value) -> Option<(String, String)> {
    let mut derived = [0; 48];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, name.as_bytes(), &mut derived);
    let (id, key) = derived.split_at(16);
    let mut data = value.to_string().into_bytes();
    if data.len() > LENGTH {
        return None;
    }
    data.resize(LENGTH, b' ');
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
    // The salt is new for each page, so a key seals one entry only, and needs no nonce.
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut data)
        .ok()?;
    Some((STANDARD.encode(id), STANDARD.encode(data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_be_seen_of_what_is_sealed() {
        let entries =
            [("a.example", json!({"host": "smtp.a.example"})), ("bob@b.example", json!({}))];
        let sealed = seal(entries.clone().into_iter()).unwrap();
        let text = sealed.to_string();
        assert!(!text.contains("example") && !text.contains("smtp"), "{text}");
        let length = |entry: &Value| entry["data"].as_str().unwrap().len();
        let list = sealed["entries"].as_array().unwrap();
        assert!(list.len() == 2 && length(&list[0]) == length(&list[1]));
        assert_ne!(
            seal(entries.into_iter()).unwrap()["entries"],
            sealed["entries"],
            "another salt each time"
        );
        let too_long = seal([("a.example", json!("x".repeat(LENGTH)))].into_iter()).unwrap();
        assert_eq!(too_long["entries"], json!([]));
    }
}
