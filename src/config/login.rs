//! Rewriting of the login name by a route, before it is sent to the mail server.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// A template with exactly one of `{local}` and `{login}`, and perhaps `{domain}`. Default: `{login}`, the name as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LoginTemplate(Vec<TemplatePart>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum TemplatePart {
    Text(String),
    Login,
    Local,
    Domain,
}

impl Default for LoginTemplate {
    fn default() -> Self {
        Self(vec![TemplatePart::Login])
    }
}

impl LoginTemplate {
    /// The part before the `@`.
    #[must_use]
    pub fn local() -> Self {
        Self(vec![TemplatePart::Local])
    }

    /// The login name for the mail server. A login without `@` has no domain: it stays unchanged if the template
    /// needs one.
    #[must_use]
    pub fn apply(&self, login: &str) -> String {
        let (local, domain) = match login.rsplit_once('@') {
            Some((local, domain)) => (local, Some(domain)),
            None => (login, None),
        };
        if domain.is_none() && self.0.contains(&TemplatePart::Domain) {
            return login.to_owned();
        }
        let text = |part| match part {
            &TemplatePart::Login => login,
            &TemplatePart::Local => local,
            &TemplatePart::Domain => domain.unwrap_or_default(),
            TemplatePart::Text(text) => text,
        };
        self.0.iter().map(text).collect()
    }

    /// The login of which [`apply`](Self::apply) could make `applied`, had it this domain.
    #[must_use]
    pub fn solve(&self, applied: &str, domain: Option<&str>) -> Option<String> {
        let is_unknown =
            |part: &&TemplatePart| matches!(part, TemplatePart::Login | TemplatePart::Local);
        let text = |part: &TemplatePart| match part {
            TemplatePart::Text(text) => text.clone(),
            _ => domain.unwrap_or_default().to_owned(),
        };
        let before: String = self.0.iter().take_while(|part| !is_unknown(part)).map(text).collect();
        let after: String =
            self.0.iter().skip_while(|part| !is_unknown(part)).skip(1).map(text).collect();
        let found = applied.strip_prefix(&*before)?.strip_suffix(&*after)?;
        Some(match domain.filter(|_| self.0.contains(&TemplatePart::Local)) {
            Some(domain) => format!("{found}@{domain}"),
            None => found.to_owned(),
        })
    }

    /// Reports if it leaves every login unchanged.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.0 == [TemplatePart::Login]
    }
}

impl FromStr for LoginTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cure =
            "write `local`, or a template with `{local}` and `{domain}`, as \"{local}%{domain}\"";
        if text == "local" {
            return Ok(Self(vec![TemplatePart::Local]));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, from)) = rest.split_once('{') {
            let (name, after) = from
                .split_once('}')
                .ok_or_else(|| format!("{text:?} has a `{{` without `}}`: {cure}"))?;
            if !before.is_empty() {
                parts.push(TemplatePart::Text(before.to_owned()));
            }
            parts.push(match name {
                "login" => TemplatePart::Login,
                "local" => TemplatePart::Local,
                "domain" => TemplatePart::Domain,
                _ => return Err(format!("`{{{name}}}` is not a placeholder of a login: {cure}")),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(TemplatePart::Text(rest.to_owned()));
        }
        if parts
            .iter()
            .filter(|part| matches!(part, TemplatePart::Login | TemplatePart::Local))
            .count()
            != 1
        {
            return Err(format!(
                "{text:?} must contain either {{local}} or {{login}}, once: {cure}"
            ));
        }
        if text.contains(char::is_control) {
            return Err(format!("{text:?} contains a control character: {cure}"));
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for LoginTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            TemplatePart::Text(text) => f.write_str(text),
            TemplatePart::Login => f.write_str("{login}"),
            TemplatePart::Local => f.write_str("{local}"),
            TemplatePart::Domain => f.write_str("{domain}"),
        })
    }
}

impl<'de> Deserialize<'de> for LoginTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_is_rewritten_and_found_again() {
        for (template, login, applied) in [
            ("local", "alice@example.org", "alice"),
            ("{local}", "a@b@example.org", "a@b"),
            ("{local}%{domain}", "alice@example.org", "alice%example.org"),
            ("{local}@other.example", "alice@example.org", "alice@other.example"),
            ("{domain}/{local}", "alice@example.org", "example.org/alice"),
            ("x-{login}", "alice@example.org", "x-alice@example.org"),
            ("{login}", "alice@example.org", "alice@example.org"),
        ] {
            let template: LoginTemplate = template.parse().unwrap();
            assert_eq!(template.apply(login), applied);
            assert_eq!(template.solve(applied, Some("example.org")).unwrap(), login);
        }
    }

    #[test]
    fn login_without_domain_takes_what_does_not_need_one() {
        let template = |text: &str| text.parse::<LoginTemplate>().unwrap();
        assert_eq!(template("{local}@family.example").apply("bob"), "bob@family.example");
        assert_eq!(template("{local}%{domain}").apply("bob"), "bob");
        assert_eq!(template("local").apply("bob"), "bob");
    }

    #[test]
    fn value_that_is_no_template_is_refused_with_a_cure() {
        for text in ["", "{domain}", "{user}", "{local", "{local}{login}", "bob", "{local}\r\n"] {
            assert!(
                text.parse::<LoginTemplate>().unwrap_err().contains("write `local`"),
                "{text:?}"
            );
        }
    }
}
