//! The capabilities of a mail server.

/// A server's capabilities, in its own spelling: some clients compare names with respect to case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities(Vec<String>);

impl Capabilities {
    /// A list of these.
    pub fn from_names<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        Self(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    /// Reports if `name` is among them, in any case.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// The SASL mechanisms among them, in upper case: the part of `AUTH=…` behind the equals sign.
    pub fn mechanisms(&self) -> impl Iterator<Item = String> {
        let names = self.0.iter().map(|name| name.to_ascii_uppercase());
        names.filter_map(|name| name.strip_prefix("AUTH=").map(str::to_owned))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}
