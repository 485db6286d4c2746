//! The configuration of each program: as it comes, but for limits, and with as many threads or processes as there are cores.

use std::path::{Display, Path};
use std::process::Command;
use std::thread;

use super::limits;
use super::upstream::Upstream;
use crate::common::tls::{Authority, HOST};
use crate::support::server::unpacked;

/// The surroundings of a program.
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) port: u16,
    /// For a program of two processes.
    pub(crate) between: u16,
    pub(crate) authority: &'a Authority,
    pub(crate) upstream: &'a Upstream,
}

/// The files of certificates, as they are written into configurations.
struct Files<'a> {
    certificate: Display<'a>,
    key: Display<'a>,
    ca: Display<'a>,
}

fn files<'a>(place: &Place<'a>) -> Files<'a> {
    let Authority { certificate, key, ca, .. } = place.authority;
    Files { certificate: certificate.display(), key: key.display(), ca: ca.display() }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// All clients come from a few addresses, all at once: the limits of deltapush that concern them are out of the way, and its
/// patience with the mail server too.
pub(crate) fn deltapush(place: &Place<'_>) -> String {
    let Files { certificate, key, ca } = files(place);
    let (port, upstream, notify) = (place.port, place.upstream.tls, place.upstream.http);
    format!(
        "hostname: {HOST}\n\
         listeners:\n  - address: {HOST}:{port}\n    tls: implicit\n\
         certificate:\n  chain: {certificate}\n  key: {key}\n\
         routes:\n  - domain: lab.test\n    upstream: imaps://{HOST}:{upstream}\n    ca: {ca}\n\
         push:\n  notify_url: http://{HOST}:{notify}/notify\n\
         pace:\n  at_once: 64\n  new_sessions: 1000/s\n\
         limits:\n  connections: 20000\n  per_address: 20000\n  before_login: 20000\n  before_login_per_address: 20000\n\
         storage:\n  directory: state\n\
         admin:\n  address: off\n\
         log:\n  level: warn\n"
    )
}

pub(crate) fn nginx_stream(place: &Place<'_>) -> String {
    let Files { certificate, key, ca } = files(place);
    let (port, upstream) = (place.port, place.upstream.tls);
    let head = nginx_head("stream");
    format!(
        "{head}
stream {{
  server {{
    listen {HOST}:{port} ssl backlog=65535;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    proxy_pass {HOST}:{upstream};
    proxy_timeout 1h;
    proxy_ssl on;
    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate {ca};
    proxy_ssl_name localhost;
  }}
}}
"
    )
}

pub(crate) fn nginx_mail(place: &Place<'_>) -> String {
    let Files { certificate, key, .. } = files(place);
    let (port, http) = (place.port, place.upstream.http);
    let head = nginx_head("mail");
    format!(
        "{head}
mail {{
  server_name localhost;
  auth_http {HOST}:{http}/auth;
  imap_capabilities IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+;
  proxy_timeout 1h;
  server {{
    listen {HOST}:{port} ssl backlog=65535;
    protocol imap;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
  }}
}}
"
    )
}

fn nginx_head(module: &str) -> String {
    let (cores, files, connections) = (cores(), limits::files(), limits::files());
    let modules = unpacked("tools").join("usr/lib/nginx/modules");
    let modules = modules.display();
    format!(
        "load_module {modules}/ngx_{module}_module.so;
daemon off;
pid nginx.pid;
error_log stderr error;
worker_processes {cores};
worker_rlimit_nofile {files};
events {{
  worker_connections {connections};
}}"
    )
}

pub(crate) fn haproxy(place: &Place<'_>) -> String {
    let (both, ca) = (place.authority.both.display(), place.authority.ca.display());
    let (port, upstream, cores, sessions) =
        (place.port, place.upstream.tls, cores(), limits::most_sessions());
    format!(
        "global
  nbthread {cores}
  maxconn {sessions}
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
frontend imaps
  bind {HOST}:{port} ssl crt {both}
  default_backend servers
backend servers
  server one {HOST}:{upstream} ssl verify required ca-file {ca} sni str(localhost) verifyhost localhost
"
    )
}

/// From TLS to plain, and from plain to TLS.
pub(crate) fn stunnel(place: &Place<'_>) -> [String; 2] {
    let Files { certificate, key, ca } = files(place);
    let (port, between, upstream) = (place.port, place.between, place.upstream.tls);
    let head = "foreground = yes\ndebug = err\npid =\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n";
    [
        format!(
            "{head}[in]\naccept = {HOST}:{port}\nconnect = {HOST}:{between}\ncert = {certificate}\nkey = {key}\n\
             TIMEOUTidle = 3600\n"
        ),
        format!(
            "{head}[out]\nclient = yes\naccept = {HOST}:{between}\nconnect = {HOST}:{upstream}\nCAfile = {ca}\n\
             verifyChain = yes\ncheckHost = localhost\nTIMEOUTidle = 3600\n"
        ),
    ]
}

/// "High-performance mode": processes that serve many logins each. The server's certificate is not verified: as a proxy, 2.3
/// finds no authority for it.
pub(crate) fn dovecot(place: &Place<'_>) -> String {
    let at = place.folder.display();
    let Files { certificate, key, .. } = files(place);
    let (port, upstream, cores, connections) =
        (place.port, place.upstream.tls, cores(), limits::files());
    let mut text = format!(
        "protocols = imap
listen = {HOST}
base_dir = {at}/run
state_dir = {at}/run
log_path = /dev/stderr
ssl = required
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_verbose = no
default_client_limit = {connections}
default_vsz_limit = 0
passdb {{
  driver = static
  args = proxy=y host={HOST} port={upstream} ssl=any-cert nopassword=y
}}
service imap-login {{
  chroot =
  service_count = 0
  process_min_avail = {cores}
  process_limit = {cores}
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"
    );
    let id = |flag: &str| {
        let output = Command::new("id").arg(flag).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    if id("-u") != "0" {
        let (user, group) = (id("-un"), id("-gn"));
        text += &format!(
            "default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group = {group}\n"
        );
    }
    text
}
