//! Query parameters of a page: `?q=alice&page=2`.

use reqwest::Url;

/// The longest value that is looked at, in bytes.
const MAX_LEN: usize = 1000;

/// The value of a key; empty if it is not there.
pub(super) fn value(query: &str, key: &str) -> String {
    let Ok(mut url) = Url::parse("http://localhost/") else { return String::new() };
    url.set_query(Some(query));
    let found =
        url.query_pairs().find(|(name, _)| name == key).map(|(_, value)| value.into_owned());
    found.filter(|value| value.len() <= MAX_LEN).unwrap_or_default()
}

/// An address with these keys.
pub(super) fn address(path: &str, pairs: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse("http://localhost/") else { return path.to_owned() };
    url.query_pairs_mut().extend_pairs(pairs);
    format!("{path}?{}", url.query().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_name_comes_back() {
        let name = "a&b=ü+ \"<>#%/?\n@example.org";
        let address = address("/account", &[("name", name), ("server", "[::1]:993")]);
        let (path, query) = address.split_once('?').unwrap();
        assert_eq!(path, "/account");
        assert!(query.is_ascii() && !query.contains(['"', '<', '#', ' ']), "{query}");
        assert_eq!(value(query, "name"), name);
        assert_eq!(value(query, "server"), "[::1]:993");
        assert_eq!(value(query, "other"), "");
        assert_eq!(value(&format!("q={}", "x".repeat(2000)), "q"), "");
    }
}
