//! The secret that a request carries.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use base64::prelude::{BASE64_STANDARD, Engine};
use zeroize::Zeroizing;

/// The secret in the value of an Authorization field: the password of Basic (RFC 7617), with any user name, or a Bearer token
/// (RFC 6750).
pub(super) fn secret(authorization: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let space = authorization.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = authorization.split_at_checked(space)?;
    let value = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(value.to_vec().into());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = Zeroizing::new(BASE64_STANDARD.decode(value).ok()?);
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon.saturating_add(1)..).map(|password| password.to_vec().into())
}
