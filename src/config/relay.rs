//! Changes to the traffic between client and mail server.

pub use crate::policy::JmapAccess;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::units;

/// Changes to the traffic between a client and its server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySettings {
    /// Time of silence in IDLE after which a client gets a keepalive; `None` leaves keepalives to the server.
    #[serde(deserialize_with = "keepalive")]
    pub keepalive: Option<Duration>,
    /// Visibility of a JMAP URL, which would bypass deltapush (RFC 9698).
    #[serde(with = "JmapAccessName")]
    pub jmapaccess: JmapAccess,
}

impl Default for RelaySettings {
    fn default() -> Self {
        // Delta Chat gives an IDLE up after five minutes without a byte.
        Self { keepalive: Some(Duration::from_secs(4 * 60 + 50)), jmapaccess: JmapAccess::Strip }
    }
}

fn keepalive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "off" {
        return Ok(None);
    }
    let keepalive = units::parse_duration(&text)
        .map_err(|problem| D::Error::custom(format!("{problem}, or `off`")))?;
    let problem = if keepalive < Duration::from_secs(1) {
        "is too short, it drains batteries: 1s at least"
    } else if keepalive >= Duration::from_secs(29 * 60) {
        "is longer than a client idles (RFC 2177): less than 29m, or `off`"
    } else {
        return Ok(Some(keepalive));
    };
    Err(D::Error::custom(format!("{} {problem}", humantime::format_duration(keepalive))))
}

/// The names of [`JmapAccess`] in the file.
#[derive(Deserialize)]
#[serde(remote = "JmapAccess", rename_all = "lowercase")]
enum JmapAccessName {
    Strip,
    Pass,
}
