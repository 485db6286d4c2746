//! The start of deltapush with a new configuration: as a service, or by hand.

use std::path::Path;

use super::super::findings::systemd::{self, SERVICE};
use super::write::data_folder;
use crate::file_access;
use crate::pem_file::quoted;

/// The ways in which this machine can start deltapush.
pub(super) struct HostSystem {
    /// systemd is at work.
    has_systemd: bool,
    /// The service unit is installed.
    has_unit: bool,
    /// The user to run as where there is no service: the owner of the data, or the present user.
    user: String,
    /// The present user.
    own_user: String,
}

impl HostSystem {
    /// Looks at this machine. `file` is the new configuration.
    pub(super) fn look(file: &Path) -> Self {
        let own_user = file_access::own_user();
        let owner = data_folder(file).and_then(|data| file_access::owner(&data));
        Self {
            has_systemd: systemd::is_booted(),
            has_unit: systemd::has_unit(SERVICE),
            user: owner.unwrap_or_else(|| own_user.clone()),
            own_user,
        }
    }
}

/// Names the command that starts deltapush with `file`, and the user. `replaces` is true if an older configuration was there, so
/// that deltapush may be running.
pub(super) fn advice(file: &Path, machine: &HostSystem, replaces: bool) -> String {
    if systemd::is_of_service(file) && machine.has_systemd {
        let install = if machine.has_unit {
            ""
        } else {
            "Install the service unit (docs/operation.md, \"As a service\"). "
        };
        let sudo = if machine.own_user == "root" { "" } else { "sudo " };
        let restart = if replaces {
            format!("; if it is running already: {sudo}systemctl restart deltapush")
        } else {
            String::new()
        };
        return format!(
            "{install}Start deltapush: {sudo}systemctl enable --now deltapush{restart}"
        );
    }
    let HostSystem { user, own_user, .. } = machine;
    let user = if user == own_user && data_folder(file).is_none() {
        String::new()
    } else {
        format!(" as {user}")
    };
    let service = if machine.has_systemd && data_folder(file).is_some() {
        format!(" (the service unit reads {} only)", systemd::SERVICE_CONFIG)
    } else {
        String::new()
    };
    format!("Start deltapush{user}{service}: deltapush --config {}", quoted(file))
}

/// Warns of a certificate that root, who runs `init`, can read and the service cannot.
pub(super) fn certificate_warning(file: &Path, key: Option<&Path>) -> Option<&'static str> {
    let is_closed = data_folder(file).is_some() && key.is_some_and(file_access::is_certbots);
    is_closed.then_some(
        "Only root can read certbot's files, and the service runs as another user: let certbot copy them, see \
         \"From certbot\" in docs/certificates.md.",
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::findings::systemd::SERVICE_CONFIG;
    use super::*;

    fn machine(has_systemd: bool, has_unit: bool, user: &str) -> HostSystem {
        HostSystem { has_systemd, has_unit, user: user.to_owned(), own_user: "root".to_owned() }
    }

    #[test]
    fn service_is_started_by_systemd() {
        let file = Path::new(SERVICE_CONFIG);
        let text = advice(file, &machine(true, true, "root"), false);
        assert_eq!(text, "Start deltapush: systemctl enable --now deltapush");
        let text = advice(file, &machine(true, true, "deltapush"), true);
        assert!(text.ends_with("deltapush; if it is running already: systemctl restart deltapush"));
        let text = advice(file, &machine(true, false, "root"), false);
        assert!(
            text.starts_with("Install the service unit")
                && text.ends_with(" systemctl enable --now deltapush")
        );
    }

    #[test]
    fn other_configurations_are_started_by_hand() {
        let text = advice(Path::new(SERVICE_CONFIG), &machine(false, false, "deltapush"), false);
        assert_eq!(
            text,
            "Start deltapush as deltapush: deltapush --config /etc/deltapush/config.yaml"
        );
        let text = advice(Path::new("/etc/deltapush.yaml"), &machine(true, true, "root"), false);
        assert_eq!(
            text,
            "Start deltapush as root (the service unit reads /etc/deltapush/config.yaml only): \
             deltapush --config /etc/deltapush.yaml"
        );
        let text = advice(Path::new("config.yaml"), &machine(true, true, "root"), false);
        assert_eq!(text, "Start deltapush: deltapush --config config.yaml");
    }

    #[test]
    fn service_cannot_read_certbots_files() {
        let key = Some(Path::new("/etc/letsencrypt/live/push.example.org/privkey.pem"));
        assert!(certificate_warning(Path::new(SERVICE_CONFIG), key).is_some());
        assert!(certificate_warning(Path::new("/root/config.yaml"), key).is_none());
        let copy = Some(Path::new("/etc/deltapush/tls/push.example.org/privkey.pem"));
        assert!(certificate_warning(Path::new(SERVICE_CONFIG), copy).is_none());
        assert!(certificate_warning(Path::new(SERVICE_CONFIG), None).is_none());
    }

    #[test]
    fn service_unit_fits_the_configuration() {
        let unit = include_str!("../../../contrib/systemd/deltapush.service");
        let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let data = Path::new("/var/lib").join(value("StateDirectory="));
        assert_eq!(data_folder(Path::new(SERVICE_CONFIG)), Some(data));
        let news = Path::new("/run").join(value("RuntimeDirectory=")).join("news.sock");
        assert_eq!(news, Path::new(crate::admin::control::NEWS_SOCKET));
        assert_eq!(
            value("RuntimeDirectoryMode="),
            "0755",
            "users of the mail server go through it"
        );
        let users = include_str!("../../../contrib/systemd/deltapush.sysusers");
        assert!(users.contains(&format!("\nu {} ", value("User="))), "{users}");
    }
}
