//! Server metadata (RFC 5464) that deltapush answers where the mail server has no value.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The entry that a current Delta Chat core takes as the sign of a server that pushes, and as a number.
const MAX_SMTP_RECIPIENTS: &str = "/shared/vendor/deltachat/maxsmtprecipients";

/// The only key that is not a metadata entry.
const PUSH_STATUS: &str = "push_status";

/// Entries of the server as a whole, by name. Names are in lower case, since RFC 5464 section 3.2 compares them without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    entries: BTreeMap<String, MetadataValue>,
    /// Appends the push status line to `/shared/comment`.
    pub push_status: bool,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), push_status: true }
    }
}

/// An entry's value. Masked in Debug: the TURN entry holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct MetadataValue(String);

impl Metadata {
    /// The value of an entry such as `/shared/comment`, whatever the case of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&MetadataValue> {
        self.entries.get(&name.to_ascii_lowercase())
    }

    /// All entries, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetadataValue)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl MetadataValue {
    /// The longest value in bytes.
    pub const MAX_LEN: usize = 8192;

    /// The value itself, for a client that has logged in.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for MetadataValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[masked]")
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`push_status` and metadata entries, as in `/shared/comment: text`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let (mut entries, mut push_status) = (BTreeMap::new(), None);
        while let Some(MetadataKey(key)) = map.next_key()? {
            let Some(name) = key else {
                if push_status.replace(map.next_value()?).is_some() {
                    return Err(A::Error::duplicate_field(PUSH_STATUS));
                }
                continue;
            };
            let value: MetadataValue = map.next_value()?;
            if name == MAX_SMTP_RECIPIENTS
                && value.0.parse::<u32>().ok().is_none_or(|count| count == 0)
            {
                return Err(A::Error::custom(format!(
                    "`{name}` must be a number of at least 1: Delta Chat reads it as one"
                )));
            }
            if entries.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format!(
                    "`{name}` occurs twice (case is ignored): keep one"
                )));
            }
        }
        Ok(Metadata { entries, push_status: push_status.unwrap_or(true) })
    }
}

/// An entry's name (RFC 5464 section 3.2), or `None` for [`PUSH_STATUS`].
struct MetadataKey(Option<String>);

impl<'de> Deserialize<'de> for MetadataKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == PUSH_STATUS {
            return Ok(Self(None));
        }
        let name = name.to_ascii_lowercase();
        let is_allowed =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'%' | b'"' | b'\\');
        let problem = if !name.starts_with("/shared/") {
            "metadata entries must start with `/shared/`, as in `/shared/comment` (the only other key is `push_status`)"
        } else if name.ends_with('/') || name.contains("//") || !name.bytes().all(is_allowed) {
            "the parts of a metadata entry must be non-empty printable ASCII without * % \" and \\"
        } else {
            return Ok(Self(Some(name)));
        };
        Err(D::Error::custom(format!("{name:?}: {problem}")))
    }
}

impl<'de> Deserialize<'de> for MetadataValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = String::deserialize(deserializer)?;
        if value.contains('\0') {
            return Err(D::Error::custom(
                "the value has a NUL character, which IMAP cannot carry: remove it",
            ));
        }
        if value.len() > Self::MAX_LEN {
            return Err(D::Error::custom(format!(
                "the value is longer than {} bytes: shorten it",
                Self::MAX_LEN
            )));
        }
        Ok(Self(value))
    }
}
