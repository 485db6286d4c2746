//! Connections to a real PostgreSQL: TLS, passwords, and the server of several that takes writes.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use deltapush::config::Config;
use deltapush::store::{
    ConnectError, PasswordSource, PostgresConnector, PostgresSettings, StoreSettings,
};
use tokio_postgres::Client;

use super::support::forward::forward;
use super::support::postgres::{PASSWORD, Postgres, USER};

fn settings(section: &str) -> PostgresSettings {
    let yaml = format!("storage: {{postgres: {section}}}\n");
    let config = Config::parse(&yaml, Path::new("/"), "test").unwrap();
    StoreSettings::new(&config.startup.storage).postgres.unwrap()
}

async fn connect(section: &str) -> Result<Client, ConnectError> {
    let (client, connection) = PostgresConnector::new(settings(section)).unwrap().connect().await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn asked(client: &Client, question: &str) -> String {
    client.query_one(question, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn connection_is_encrypted_and_the_password_bound_to_it() {
    let postgres = Postgres::start();
    let section = postgres.section(postgres.port).replace("?", "?channel_binding=require&");
    let client = connect(&section).await.unwrap();
    let question = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(asked(&client, question).await, "TLSv1.3");
    assert_eq!(asked(&client, "SELECT current_user::text").await, USER);
    assert_eq!(asked(&client, "SELECT current_database()::text").await, USER);
}

#[tokio::test]
async fn mistakes_are_named_without_the_password() {
    let postgres = Postgres::start();
    let section = postgres.section(postgres.port);
    let stranger = Postgres::start();
    let (ca, other) = (postgres.authority.ca.display(), stranger.authority.ca.display());
    let encrypted = "?sslmode=verify-full";
    let port = format!("localhost:{}", postgres.port);
    // The certificate does not have this address.
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], postgres.port));
    forward(elsewhere, postgres.port).await;
    for (section, expected) in [
        (section.replace(&ca.to_string(), &other.to_string()), "invalid peer certificate"),
        (section.replace(&port, &elsewhere.to_string()), "not valid for name"),
        (section.replace(&format!("{USER}@"), "nobody@"), "password authentication failed"),
        (section.replace(encrypted, ""), "no encryption (28000)"),
        (section.replace(&port, "127.0.0.1:9"), "Connection refused"),
        (section.replace(&port, "no-such-host.invalid"), "no-such-host.invalid"),
    ] {
        let error =
            connect(&section).await.err().unwrap_or_else(|| panic!("{section}")).to_string();
        assert!(error.contains(expected) && !error.contains(PASSWORD), "{section}: {error}");
    }
}

#[tokio::test]
async fn password_comes_from_the_password_file_of_postgresql() {
    let postgres = Postgres::start();
    let mut settings = settings(&postgres.section(postgres.port));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgpass");
    let line = format!("localhost:{}:{USER}:*:{PASSWORD}\n", postgres.port);
    fs::write(&file, format!("localhost:1:*:*:wrong\n{line}")).unwrap();
    settings.password = PasswordSource::PassFile(file.clone());
    let connector = PostgresConnector::new(settings).unwrap();
    for (mode, expected) in [(0o640, Some("chmod 0600")), (0o600, None)] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let error = connector.connect().await.err().map(|error| error.to_string());
        assert_eq!(error.is_some(), expected.is_some(), "{error:?}");
        assert!(error.unwrap_or_default().contains(expected.unwrap_or_default()));
    }
}

#[tokio::test]
async fn socket_needs_no_tls() {
    let postgres = Postgres::start();
    let url = format!(
        "postgresql://{USER}@/{USER}?host={}&port={}",
        postgres.socket().display(),
        postgres.port
    );
    let password = postgres.password_file();
    let section = format!("{{url: \"{url}\", password_file: {}}}", password.display());
    let client = connect(&section).await.unwrap();
    assert_eq!(asked(&client, "SELECT current_user::text").await, USER);
}

#[tokio::test]
async fn server_that_takes_writes_is_found_after_a_promotion() {
    let mut primary = Postgres::start();
    let standby = primary.standby(true);
    let section = primary.section_of(&[standby.port, primary.port]);
    let port = "SELECT current_setting('port')";
    let client = connect(&section).await.unwrap();
    assert_eq!(asked(&client, port).await, primary.port.to_string(), "a standby takes no writes");
    client
        .batch_execute("CREATE TABLE kept (name TEXT); INSERT INTO kept VALUES ('a')")
        .await
        .unwrap();
    primary.kill();
    let error = connect(&section).await.err().unwrap().to_string();
    assert!(error.contains("does not allow writes") && error.contains("; "), "{error}");
    standby.promote();
    let client = connect(&section).await.unwrap();
    assert_eq!(asked(&client, port).await, standby.port.to_string());
    assert_eq!(
        asked(&client, "SELECT name FROM kept").await,
        "a",
        "what was acknowledged is there"
    );
}

#[tokio::test]
async fn server_is_restarted_where_it_was() {
    let mut postgres = Postgres::start();
    let section = postgres.section(postgres.port);
    connect(&section).await.unwrap().batch_execute("CREATE TABLE kept (name TEXT)").await.unwrap();
    postgres.stop();
    assert!(connect(&section).await.is_err());
    postgres.start_again();
    postgres.kill();
    assert!(connect(&section).await.is_err());
    postgres.start_again();
    assert_eq!(postgres.sql(USER, "SELECT count(*) FROM kept"), "0");
    assert!(connect(&section).await.is_ok());
}

#[tokio::test]
async fn doctor_says_how_the_database_is() {
    let postgres = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    let port = format!(":{}/", postgres.port);
    for (port, expected) in [
        (port.as_str(), "ok    database     database deltapush at localhost"),
        (":9/", "fail  database     localhost:9: "),
    ] {
        let section =
            postgres.section(postgres.port).replace(&format!(":{}/", postgres.port), port);
        // Nothing else is asked for beyond this machine.
        let others = "push: {notify_url: \"http://127.0.0.1:9/notify\"}\n\
                      routes: [{domain: lab.test, upstream: \"imap+plain://127.0.0.1:9\"}]\n";
        fs::write(&config, format!("storage: {{postgres: {section}}}\n{others}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_deltapush"));
        let output = command.arg("--config").arg(&config).arg("doctor").output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains(expected) && !shown.contains(PASSWORD), "{shown}");
    }
}
