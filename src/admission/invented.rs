//! Logins with invented names: Delta Chat tries to make an account at the mail server of each person who invites it, as
//! if that server were a chatmail relay, which makes an account at the first login (chatmail/core from 2.61 on).

use crate::credentials::{CredentialKind, Credentials};

/// Characters of an invented name before the `@`.
const NAME: usize = 9;

/// Characters of an invented password.
const PASSWORD: [usize; 2] = [22, 23];

/// Tells whether these credentials have the form of those that the core invents: nine of `a-z0-9` before the `@`, and a password of 22
/// or 23 letters and digits.
#[must_use]
pub fn is_invented(credentials: &Credentials) -> bool {
    let Some((local, domain)) = credentials.user.split_once('@') else { return false };
    let password = credentials.password.expose();
    credentials.kind == CredentialKind::Password
        && credentials.authorization.is_none()
        && local.len() == NAME
        && local.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && !domain.is_empty()
        && PASSWORD.contains(&password.len())
        && password.iter().all(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_of_the_core_is_recognized_and_nothing_else() {
        let is = |user: &str, password: &str| is_invented(&Credentials::new(user, password));
        let (short, long) = ("x".repeat(22), format!("{}x1", "Aa0".repeat(7)));
        assert!(is("ci7x0a9bq@example.org", &short) && is("123456789@example.org", &long));
        for user in [
            "ci7x0a9b@example.org",
            "ci7x0a9bqq@example.org",
            "Ci7x0a9bq@example.org",
            "ci7x0a9bq",
            "ci7.0a9bq@x",
        ] {
            assert!(!is(user, &short), "{user}");
        }
        for password in
            ["x".repeat(21), "x".repeat(24), format!("{}-", "x".repeat(21)), String::new()]
        {
            assert!(!is("ci7x0a9bq@example.org", &password), "{password}");
        }
        let other =
            Credentials::new("ci7x0a9bq@example.org", short.as_str()).on_behalf_of("bob".into());
        assert!(!is_invented(&other));
        assert!(!is_invented(&Credentials::bearer("ci7x0a9bq@example.org", short.as_str())));
    }
}
