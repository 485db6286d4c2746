//! The TLS handshake with a client, and the client's purpose: IMAP, the public page, or validation of a name by a
//! certificate authority.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http::HttpVersion;
use crate::tls::server::{HTTP_1, HTTP_2, ServerTls};
use crate::tls::stream::{Hello, TlsStream};

/// The purpose of a connection.
pub(super) enum Accepted {
    /// IMAP: it asked for ALPN `imap`, or for nothing. And for which host, in lower case.
    Imap(TlsStream, Option<String>),
    /// A page, over the protocol that was agreed on.
    Web(TlsStream, HttpVersion),
    /// It was an authority; the handshake was all that it wanted (RFC 8737 section 3).
    Proof,
}

/// The accepted protocols, besides an authority's proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guests {
    /// Nobody.
    None,
    /// Clients that want IMAP. One that asks for HTTP only is refused (RFC 7301 section 3.2).
    Imap,
    /// Browsers too.
    Web,
}

/// Takes a client in, if it is one of those. `local` is the address to which it connected.
pub(super) async fn accept(
    tls: &ServerTls,
    tcp: TcpStream,
    local: IpAddr,
    guests: Guests,
) -> io::Result<Accepted> {
    let hello = Hello::receive(tcp).await?;
    if let Some(proof) = tls.challenges.answer(&hello.client_hello()) {
        hello.answer(proof).await?.shutdown().await?;
        return Ok(Accepted::Proof);
    }
    let config = match guests {
        Guests::None => {
            return Err(io::Error::other("no network of `allow` contains the client's address"));
        }
        Guests::Imap => &tls.imap,
        Guests::Web => &tls.web,
    };
    let host = hello.client_hello().server_name().map(str::to_ascii_lowercase);
    let config = match host {
        Some(_) => Arc::clone(config),
        None => tls.for_address(config, local),
    };
    let stream = hello.answer(config).await?;
    Ok(match stream.agreed().alpn_protocol() {
        Some(HTTP_2) => Accepted::Web(stream, HttpVersion::Two),
        Some(HTTP_1) => Accepted::Web(stream, HttpVersion::One),
        _ => Accepted::Imap(stream, host),
    })
}
