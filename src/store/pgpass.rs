//! PostgreSQL's password file: `host:port:database:user:password` in each line (PostgreSQL's documentation, section "The
//! Password File").

use tokio_postgres::config::Host;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The name for a socket in the folder that PostgreSQL's own programs take.
const LOCAL: &[u8] = b"localhost";

/// A connection for which a password is looked up.
pub(super) struct Target<'a> {
    pub(super) host: &'a Host,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The password of the first line that fits.
pub(super) fn find(file: &[u8], target: &Target<'_>) -> Option<Secret> {
    let host = match target.host {
        Host::Tcp(name) => name.clone().into_bytes(),
        Host::Unix(folder) => folder.as_os_str().as_encoded_bytes().to_vec(),
    };
    let is_local = matches!(target.host, Host::Unix(folder) if folder.as_os_str() == "/run/postgresql" || folder.as_os_str() == "/var/run/postgresql" || folder.as_os_str() == "/tmp");
    let port = target.port.to_string();
    let lines =
        file.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.starts_with(b"#")).find_map(|line| {
        let fields = fields(line)?;
        let [of_host, of_port, of_database, of_user, password] = fields.as_slice() else {
            return None;
        };
        let fits = |field: &Zeroizing<Vec<u8>>, value: &[u8]| {
            field.as_slice() == b"*" || field.as_slice() == value
        };
        let fits_host = fits(of_host, &host) || (is_local && fits(of_host, LOCAL));
        let fits = fits_host
            && fits(of_port, port.as_bytes())
            && fits(of_database, target.database.as_bytes())
            && fits(of_user, target.user.as_bytes());
        (fits && !password.is_empty()).then(|| Secret::new(password.to_vec()))
    })
}

/// The five fields of a line, without the backslashes that take the meaning from colons and backslashes. All after the fourth
/// colon up to the next is the password.
fn fields(line: &[u8]) -> Option<Vec<Zeroizing<Vec<u8>>>> {
    let mut fields = vec![Zeroizing::new(Vec::with_capacity(line.len()))];
    let mut bytes = line.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' if fields.len() == 5 => break,
            b':' => fields.push(Zeroizing::new(Vec::with_capacity(line.len()))),
            b'\\' => fields.last_mut()?.push(*bytes.next().unwrap_or(byte)),
            byte => fields.last_mut()?.push(*byte),
        }
    }
    (fields.len() == 5).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(file: &str, host: &str, port: u16, user: &str) -> Option<String> {
        let host = if host.starts_with('/') {
            Host::Unix(host.into())
        } else {
            Host::Tcp(host.to_owned())
        };
        let target = Target { host: &host, port, database: "state", user };
        find(file.as_bytes(), &target)
            .map(|found| String::from_utf8(found.expose().to_vec()).unwrap())
    }

    #[test]
    fn first_line_that_fits_has_the_password() {
        let file = "# db1:5432:state:push:comment\n\
            db1:5432:other:push:wrong\n\
            db1:5432:state:push:first\r\n\
            db1:*:*:push:second\n\
            ::1:5432\n\
            \\:\\:1:5432:state:push:six\n\
            localhost:5432:state:push:local\n\
            *:*:*:pull:a\\:b\\\\c:rest\n";
        for (host, port, user, expected) in [
            ("db1", 5432, "push", Some("first")),
            ("db1", 5433, "push", Some("second")),
            ("db2", 5432, "push", None),
            ("::1", 5432, "push", Some("six")),
            ("/run/postgresql", 5432, "push", Some("local")),
            ("/srv/socket", 5432, "push", None),
            ("db9", 1, "pull", Some("a:b\\c")),
        ] {
            assert_eq!(password(file, host, port, user).as_deref(), expected, "{host} {user}");
        }
    }
}
