//! The compose files that put deltapush beside other containers, as their heads say. A Debian with Dovecot and HAProxy stands in for the
//! images of mailcow, docker-mailserver and Traefik: Dovecot reads the files that those projects let people change, and HAProxy hands
//! connections on as Traefik does.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::client::MailProgram;
use super::docker;
use super::scene::Scene;
use crate::first_evening::namespace;
use crate::support::certs::Authority;
use crate::support::dovecot::{PASSWORD, SIMPLE_PASSWORD, message};
use crate::support::scene::PATIENCE;

const YOU: &str = "you@example.org";
/// Addresses of clients, as the logs have them: those of the internet.
const CLIENT: &str = "203.0.114.";

/// Dovecot in a container, with the files that `include` names.
fn dovecot(include: &str) -> String {
    format!(
        "protocols = imap lmtp
log_path = /dev/stderr
auth_verbose = yes
mail_location = maildir:~/Maildir
passdb {{
  driver = static
  args = password={SIMPLE_PASSWORD}
}}
userdb {{
  driver = static
  args = uid=1000 gid=1000 home=/srv/%u
}}
ssl = required
ssl_cert = </etc/ssl/mail/cert.pem
ssl_key = </etc/ssl/mail/key.pem
!include {include}
"
    )
}

const SERVE: &str =
    "[sh, -c, \"install -d -o 1000 -g 1000 /srv && exec dovecot -F -c /dovecot.conf\"]";

/// Changes the file of contrib as its head says, and the provider's authority and the path of Pebble's directory, which are unlike it.
fn configured(text: &str, scene: &Scene) -> String {
    let directory = &scene.internet.acme.directory;
    text.replace("    upstream: ", "    ca: system\n    upstream: ")
        .replace("    terms_agreed: ", &format!("    directory: {directory}\n    terms_agreed: "))
}

/// Stands in for authorities that everybody trusts.
const TRUST: &str = "
services:
  deltapush:
    volumes: [\"/etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro\"]
";

/// A certificate of the mail server's, as its administrator has it: root alone reads the key.
fn certify(scene: &Scene, folder: &str) {
    let path = scene.folder.join(folder);
    fs::create_dir_all(&path).unwrap();
    let authority = Authority::naming(&scene.folder, &["mail.example.org"]);
    fs::copy(&authority.leaf_cert, path.join("cert.pem")).unwrap();
    fs::copy(&authority.leaf_key, path.join("key.pem")).unwrap();
    fs::set_permissions(path.join("key.pem"), Permissions::from_mode(0o600)).unwrap();
    let mut trusted = fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap();
    trusted.extend(fs::read(&authority.ca).unwrap());
    fs::write("/etc/ssl/certs/ca-certificates.crt", trusted).unwrap();
}

async fn start(inside: &Path) -> Scene {
    let scene = Scene::with_image(inside).await;
    docker::import_servers(&scene.vps);
    scene.internet.name("mail.example.org");
    scene
}

/// A wrong password, whose client the mail server knows; then a phone that hands its token over, leaves, and is woken.
async fn phone_is_woken(scene: &mut Scene, port: u16, service: &str) {
    scene.logs(&[" is ready"]).await;
    let mut stranger = MailProgram::connect("mail.example.org", port);
    stranger.send(&format!("a LOGIN {YOU} guess"));
    stranger.expect("a NO [AUTHENTICATIONFAILED]");
    scene.logs(&["Password mismatch", YOU, CLIENT]).await;
    let mut phone = MailProgram::connect("mail.example.org", port);
    phone.log_in(YOU, SIMPLE_PASSWORD);
    phone.send("a SETMETADATA \"INBOX\" (/private/devicetoken \"openpgp:phone\")");
    phone.expect("a OK");
    drop(phone);
    scene.logs(&["watching", YOU]).await;
    scene.write("news", &message("bob@elsewhere.test", YOU, "news", ""));
    scene.vps.expect(&format!(
        "docker compose exec --no-TTY {service} doveadm -c /dovecot.conf save -u {YOU} <news"
    ));
    let posted = scene.internet.notify.wait_for(1, PATIENCE).await;
    assert_eq!(posted[0].token, "openpgp:phone");
}

const DOCKER_MAILSERVER: &str = "containers::beside::phone_is_woken_beside_docker_mailserver";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an image and Docker: scripts/test-image"]
async fn phone_is_woken_beside_docker_mailserver() {
    let Some(folder) = namespace::folder() else { return namespace::run_inside(DOCKER_MAILSERVER) };
    let mut scene = start(&folder).await;
    // Without port 993, as the head says.
    scene.write(
        "compose.yaml",
        &format!(
            "services:
  mailserver:
    image: servers
    container_name: mailserver
    hostname: mail.example.org
    command: {SERVE}
    ports: [\"25:25\", \"143:143\", \"465:465\", \"587:587\"]
    volumes:
      - ./docker-data/dms/config/:/tmp/docker-mailserver/
      - ./dovecot.conf:/dovecot.conf:ro
      - ./tls:/etc/ssl/mail:ro
"
        ),
    );
    scene.write("dovecot.conf", &dovecot("/tmp/docker-mailserver/dovecot.cf"));
    certify(&scene, "tls");
    let contrib = |name| include_contrib(&format!("docker-mailserver/{name}"));
    scene.write("compose.override.yaml", &contrib("compose.override.yaml"));
    scene.write("deltapush.yaml", &configured(&contrib("deltapush.yaml"), &scene));
    scene.write("docker-data/dms/config/dovecot.cf", &contrib("dovecot.cf"));
    scene.write("trust.yaml", TRUST);
    scene.write(".env", "COMPOSE_FILE=compose.yaml:compose.override.yaml:trust.yaml\n");
    scene.vps.expect("docker compose up --detach");
    phone_is_woken(&mut scene, 993, "mailserver").await;
    scene.logs(&["renewal due about"]).await;
}

const MAILCOW: &str = "containers::beside::phone_is_woken_beside_mailcow";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an image and Docker: scripts/test-image"]
async fn phone_is_woken_beside_mailcow() {
    let Some(folder) = namespace::folder() else { return namespace::run_inside(MAILCOW) };
    let mut scene = start(&folder).await;
    scene.write(
        "docker-compose.yml",
        &format!(
            "services:
  dovecot-mailcow:
    image: servers
    command: {SERVE}
    ports: [\"${{IMAPS_PORT:-993}}:993\"]
    volumes:
      - ./data/conf/dovecot:/etc/dovecot
      - ./dovecot.conf:/dovecot.conf:ro
      - ./data/assets/ssl:/etc/ssl/mail/:ro
    networks:
      mailcow-network:
        ipv4_address: ${{IPV4_NETWORK:-172.22.1}}.250
        aliases: [dovecot]
networks:
  mailcow-network:
    driver: bridge
    ipam: {{driver: default, config: [{{subnet: \"${{IPV4_NETWORK:-172.22.1}}.0/24\"}}]}}
"
        ),
    );
    scene.write("dovecot.conf", &dovecot("/etc/dovecot/extra.conf"));
    scene.write("data/conf/dovecot/extra.conf", "login_trusted_networks = 172.22.1.93\n");
    certify(&scene, "data/assets/ssl");
    let contrib = |name| include_contrib(&format!("mailcow/{name}"));
    scene.write("docker-compose.override.yml", &contrib("docker-compose.override.yml"));
    scene.write("deltapush.yaml", &configured(&contrib("deltapush.yaml"), &scene));
    scene.write("trust.yaml", TRUST);
    let files = "docker-compose.yml:docker-compose.override.yml:trust.yaml";
    scene.write(".env", &format!("MAILCOW_HOSTNAME=mail.example.org\nCOMPOSE_FILE={files}\n"));
    scene.vps.expect("docker compose up --detach");
    phone_is_woken(&mut scene, 1993, "dovecot-mailcow").await;
    let code = format!("docker compose exec deltapush deltapush qr --link --port 1993 {YOU}");
    let shown = scene.vps.converse(&code, &[("Password of", SIMPLE_PASSWORD)]);
    assert!(shown.contains("&ih=mail.example.org&ip=1993&is=ssl"), "{shown}");
}

const TRAEFIK: &str = "containers::beside::clients_behind_a_load_balancer_are_known";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an image and Docker: scripts/test-image"]
async fn clients_behind_a_load_balancer_are_known() {
    let Some(folder) = namespace::folder() else { return namespace::run_inside(TRAEFIK) };
    let scene = start(&folder).await;
    scene.internet.dovecot.user_of(YOU.to_owned());
    scene.write("compose.yaml", &include_contrib("traefik/compose.yaml"));
    scene.write("deltapush.yaml", &configured(&include_contrib("traefik/deltapush.yaml"), &scene));
    scene.write("compose.override.yaml", TRUST);
    scene.write(
        "haproxy.cfg",
        "defaults
  mode tcp
  timeout connect 5s
  timeout client 40m
  timeout server 40m
frontend tls
  bind :443
  tcp-request inspect-delay 5s
  tcp-request content accept if { req_ssl_hello_type 1 }
  use_backend deltapush if { req_ssl_sni -i push.example.org }
backend deltapush
  server deltapush deltapush:443 send-proxy-v2
",
    );
    scene.vps.expect("docker network create traefik");
    scene.vps.expect("docker compose up --detach");
    scene.logs(&[" is ready"]).await;
    scene.vps.expect(
        "docker run --detach --name balancer --network traefik --publish 443:443 \
         --volume ./haproxy.cfg:/haproxy.cfg:ro servers haproxy -f /haproxy.cfg",
    );
    // It asked for a certificate before the balancer was there.
    scene.vps.expect("docker compose kill --signal HUP deltapush");
    scene.logs(&["renewal due about"]).await;
    for port in [993, 443] {
        let mut stranger = MailProgram::connect("push.example.org", port);
        stranger.send(&format!("a LOGIN {YOU} guess{port}"));
        stranger.expect("a NO [AUTHENTICATIONFAILED]");
        let mut phone = MailProgram::connect("push.example.org", port);
        phone.log_in(YOU, PASSWORD);
    }
    let log = scene.vps.output_of("docker compose logs");
    let known = log.lines().filter(|line| line.contains(&format!("failed login from {CLIENT}")));
    assert_eq!(known.count(), 2, "{log}");
}

fn include_contrib(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/compose");
    fs::read_to_string(folder.join(name)).unwrap()
}
