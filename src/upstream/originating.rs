//! The client's address in an ID command before the login: Dovecot takes it from the networks in its
//! `login_trusted_networks`, and logs and limits by it.

use std::net::SocketAddr;

use crate::parser::id::Field;

/// A client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOrigin {
    /// The client's real address and port.
    pub client: SocketAddr,
    /// The address to which it connected.
    pub connected: SocketAddr,
}

impl ClientOrigin {
    /// The fields of ID (RFC 2971) in Dovecot's words.
    #[must_use]
    pub fn id_fields(&self) -> [Field; 4] {
        [
            ("x-originating-ip", self.client.ip().to_canonical().to_string()),
            ("x-originating-port", self.client.port().to_string()),
            ("x-connected-ip", self.connected.ip().to_canonical().to_string()),
            ("x-connected-port", self.connected.port().to_string()),
        ]
        .map(|(name, value)| (name.as_bytes().to_vec(), Some(value.into_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_told_as_ipv4() {
        let origin = ClientOrigin {
            client: "[::ffff:192.0.2.1]:5000".parse().unwrap(),
            connected: "[2001:db8::1]:993".parse().unwrap(),
        };
        let values =
            origin.id_fields().map(|(_, value)| String::from_utf8(value.unwrap()).unwrap());
        assert_eq!(values, ["192.0.2.1", "5000", "2001:db8::1", "993"]);
    }
}
