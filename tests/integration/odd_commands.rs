//! Commands in spellings that a server may read and a proxy may not: none of them reaches the server.

use super::support::client::Client;
use super::support::deltapush::Deltapush;
use super::support::dovecot::PASSWORD;
use super::support::server::RealServer;

/// Lists spellings of a forbidden command; some server reads each.
fn spellings(command: &str) -> Vec<String> {
    let (verb, arguments) = command
        .split_once(' ')
        .map_or((command, String::new()), |(verb, rest)| (verb, format!(" {rest}")));
    let plain = format!("a1 {verb}{arguments}");
    let smuggled = format!("{plain}\r\n");
    vec![
        format!("a+1 {verb}{arguments}\r\n"),
        format!(" {plain}\r\n"),
        format!("a1\t{verb}{arguments}\r\n"),
        format!("a1 {verb}\t{arguments}\r\n"),
        format!("a1 \"{verb}\"{arguments}\r\n"),
        format!("{} {verb}{arguments}\r\n", "x".repeat(600)),
        // Dovecot skips the line, and would read on behind it.
        format!("a1 NOOP {{{}+}}\r\n{smuggled}\r\n", smuggled.len()),
        format!("a1 XHEARD {{{}+}}\r\n{smuggled}\r\n", smuggled.len()),
        format!("a1 UID XHEARD {{{}+}}\r\n{smuggled}\r\n", smuggled.len()),
    ]
}

async fn nothing_odd_reaches(server: RealServer) {
    let user = server.user("odd-commands");
    let deltapush = Deltapush::start(&server.options());
    let mut client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
    client.log_in(&user).await;
    client.take_recorded();
    let mut commands = vec![
        "UNAUTHENTICATE".to_owned(),
        "ID (\"x-originating-ip\" \"192.0.2.1\")".to_owned(),
        "SETMETADATA INBOX (/private/devicetoken \"openpgp:sesame\")".to_owned(),
    ];
    commands.extend((0..78).map(|number| format!("LOGIN {user} guess{number}")));
    commands.push(format!("LOGIN {user} {PASSWORD}"));
    for (number, command) in commands.iter().enumerate() {
        for spelling in spellings(command).iter().take(if number < 3 { 9 } else { 2 }) {
            client.send_raw(spelling.as_bytes()).await;
        }
    }
    let reply = client.command("z NOOP").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    let said = reply.untagged.concat();
    // Each of them was refused, and none carried out.
    assert!(
        !said.contains(" OK") && !said.contains("* ID") && !said.contains("AUTHENTICATIONFAILED"),
        "{said}"
    );
    assert_eq!(reply.untagged.len(), 3 * 9 + 79 * 2, "{:?}", reply.untagged);
    // The session is still the account's own.
    assert!(
        client.command("y SELECT INBOX").await.result.starts_with("OK"),
        "{}",
        client.dialogue()
    );
}

#[tokio::test]
async fn nothing_odd_reaches_dovecot() {
    nothing_odd_reaches(RealServer::dovecot()).await;
}

#[tokio::test]
async fn nothing_odd_reaches_cyrus() {
    nothing_odd_reaches(RealServer::cyrus()).await;
}
