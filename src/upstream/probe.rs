//! Probe of a server without a login: reachability, certificate and capabilities.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Upstreams;
use super::capabilities::Capabilities;
use super::connect::ConnectError;
use super::happy_eyeballs;
use super::login_machine::LoginError;
use super::route::{Endpoint, Target};
use crate::config::{Security, Submission, Trust};
use crate::dns::Reach;
use crate::parser::response::{self, Condition};
use crate::tls::stream::TlsStream;

/// Time limit of the whole probe: longer than DNS may take, so that a silent DNS server is not mistaken for a silent mail server.
const TIME: Duration = crate::dns::LOOKUP.saturating_add(Duration::from_secs(2));
/// The longest line of a server, and how many are read before the one that is waited for.
const MAX_LINE: usize = 16 * 1024;
const MAX_LINES: usize = 100;

/// The capabilities of an IMAP server before a login; many servers name more after it.
///
/// # Errors
/// [`ConnectError`] if it is not there, has no TLS with a certificate for its identity, or speaks no IMAP.
pub async fn capabilities(
    upstreams: &Upstreams,
    server: &Endpoint,
    trust: &Trust,
    reach: Reach,
) -> Result<Capabilities, ConnectError> {
    bounded(async {
        let look = ProbeSession { upstreams, server, trust };
        let mut tcp = look.connect(reach).await?;
        if server.security == Security::Tls {
            return ask(&mut look.secure(tcp).await?, true).await;
        }
        let mut said = ask(&mut tcp, true).await?;
        if server.security == Security::StartTls {
            tcp.write_all(b"dp2 STARTTLS\r\n").await.map_err(ConnectError::Broken)?;
            if !line(&mut tcp, "dp2 ").await?.to_ascii_uppercase().starts_with("DP2 OK") {
                return Err(LoginError::NoStartTls.into());
            }
            // Plaintext after that answer is no TLS: the handshake fails.
            said = ask(&mut look.secure(tcp).await?, false).await?;
        }
        Ok(said)
    })
    .await
}

/// The first of `candidates` at which a submission server with the right certificate is; all are tried at once.
pub async fn first_submission(
    upstreams: &Upstreams,
    target: &Target,
    candidates: &[Submission],
) -> Option<Submission> {
    let looks = candidates.iter().cloned().map(|candidate| async move {
        let server = Endpoint::of_host(candidate.host.as_str(), candidate.port, candidate.security);
        is_submission(
            ProbeSession { upstreams, server: &server, trust: &target.terms.trust },
            target.reach,
        )
        .await
    });
    let there = join_all(looks).await;
    candidates
        .iter()
        .zip(there)
        .find_map(|(candidate, is_there)| is_there.then(|| candidate.clone()))
}

async fn is_submission(look: ProbeSession<'_>, reach: Reach) -> bool {
    let there = bounded(async {
        let mut tcp = look.connect(reach).await?;
        if look.server.security == Security::Tls {
            return line(&mut look.secure(tcp).await?, "220").await.map(drop);
        }
        line(&mut tcp, "220").await?;
        tcp.write_all(b"EHLO deltapush.invalid\r\n").await.map_err(ConnectError::Broken)?;
        line(&mut tcp, "250 ").await?;
        tcp.write_all(b"STARTTLS\r\n").await.map_err(ConnectError::Broken)?;
        line(&mut tcp, "220").await?;
        look.secure(tcp).await.map(drop)
    });
    there.await.is_ok()
}

async fn bounded<T>(
    look: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(TIME, Box::pin(look)).await.unwrap_or(Err(ConnectError::TimedOut(TIME)))
}

struct ProbeSession<'a> {
    upstreams: &'a Upstreams,
    server: &'a Endpoint,
    trust: &'a Trust,
}

impl ProbeSession<'_> {
    async fn connect(&self, reach: Reach) -> Result<TcpStream, ConnectError> {
        let addresses = self.upstreams.dns.addresses(&self.server.host, reach).await;
        let addresses = addresses.map_err(|error| ConnectError::Unreachable(error.into()))?;
        let mut candidates = happy_eyeballs::interleaved(&addresses, self.server.port);
        happy_eyeballs::race(&mut candidates).await.map_err(ConnectError::Unreachable)
    }

    async fn secure(&self, tcp: TcpStream) -> Result<TlsStream, ConnectError> {
        let name = self
            .server
            .server_name()
            .map_err(|error| ConnectError::Tls(io::Error::other(error)))?;
        TlsStream::connect(Arc::clone(self.upstreams.tls.get(self.trust)), name, tcp)
            .await
            .map_err(ConnectError::Tls)
    }
}

/// Reads the greeting, if there is one to come, and asks for the list.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    greets: bool,
) -> Result<Capabilities, ConnectError> {
    if greets {
        line(stream, "* ").await?;
    }
    stream.write_all(b"dp1 CAPABILITY\r\n").await.map_err(ConnectError::Broken)?;
    stream.flush().await.map_err(ConnectError::Broken)?;
    let mut found = None;
    for _ in 0..MAX_LINES {
        let text = line(stream, "").await?;
        if let Some(names) = response::capabilities(text.as_bytes()) {
            found = Some(Capabilities::from_names(names));
        }
        if text.starts_with("dp1 ") {
            return found.ok_or(LoginError::Protocol("it does not list its capabilities").into());
        }
    }
    Err(ConnectError::TooMuch)
}

/// The first line that begins so. Lines before it are passed over.
async fn line(stream: &mut (impl AsyncRead + Unpin), start: &str) -> Result<String, ConnectError> {
    for _ in 0..MAX_LINES {
        let mut line = Vec::new();
        // One byte at a time: nothing that follows is taken, and a few hundred bytes are all that there is.
        while !line.ends_with(b"\n") {
            if line.len() > MAX_LINE {
                return Err(ConnectError::TooMuch);
            }
            line.push(stream.read_u8().await.map_err(ConnectError::Broken)?);
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        if let Some(status) =
            response::status(&line).filter(|status| status.condition == Condition::Bye)
        {
            return Err(LoginError::Bye(status.human_text()).into());
        }
        if text.starts_with(start) {
            return Ok(text);
        }
    }
    Err(ConnectError::TooMuch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn list_is_asked_for_and_a_goodbye_is_told() {
        for (said, expected) in [
            ("* OK hi\r\n* CAPABILITY IMAP4rev1 IDLE\r\ndp1 OK done\r\n", "IDLE"),
            ("* OK hi\r\n* 1 EXISTS\r\n* CAPABILITY IMAP4rev1\r\ndp1 OK done\r\n", "none"),
            ("* BYE too busy\r\n", "too busy"),
            ("* OK hi\r\ndp1 BAD what\r\n", "does not list its capabilities"),
            ("220 mail.example.org ESMTP\r\n", "closed the connection"),
        ] {
            let (mut here, mut there) = tokio::io::duplex(64 * 1024);
            there.write_all(said.as_bytes()).await.unwrap();
            there.shutdown().await.unwrap();
            let told = match ask(&mut here, true).await {
                Ok(found) => if found.has("IDLE") { "IDLE" } else { "none" }.to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(told.contains(expected), "{said}: {told}");
        }
        let (mut here, mut there) = tokio::io::duplex(64 * 1024);
        there.write_all(&[b'a'; 32 * 1024]).await.unwrap();
        assert!(matches!(ask(&mut here, true).await, Err(ConnectError::TooMuch)));
    }
}
