//! This machine among those that share one state.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The longest name.
const MAX_LEN: usize = 64;

/// A node: one deltapush of several with the same database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Its name in logs, status and metrics. Default: the host name.
    #[serde(deserialize_with = "name")]
    name: Option<String>,
}

impl Node {
    /// The name, or that of this machine.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let system = rustix::system::uname();
            let host = system.nodename().to_string_lossy();
            host.chars().filter(|letter| !letter.is_control()).take(MAX_LEN).collect()
        })
    }
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_word = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > MAX_LEN || !is_word {
        return Err(D::Error::custom(format!(
            "{text:?} is not a node's name: write up to {MAX_LEN} letters, digits and signs, without spaces, as in `push-1`"
        )));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_has_the_name_of_its_machine() {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(Node::default().name(), host.trim());
    }
}
