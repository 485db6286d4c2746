//! The TLS handshake with a client, and what it is here for: IMAP, a page, or the proof of a name.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;

use super::tls::{HTTP_1, HTTP_2, ServerTls};

/// What a client came for.
pub(super) enum Accepted {
    /// IMAP: it asked for ALPN `imap`, or for nothing.
    Imap(TlsStream<TcpStream>),
    /// A page, over the protocol that was agreed on.
    Web(TlsStream<TcpStream>, Http),
    /// It was an authority; the handshake was all that it wanted (RFC 8737 section 3).
    Proof,
}

/// Which HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

/// Who is taken in, beside an authority that looks for a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guests {
    /// Nobody.
    None,
    /// Who wants IMAP. One that asks for HTTP only is refused (RFC 7301 section 3.2).
    Imap,
    /// Browsers too.
    Web,
}

/// Takes a client in, if it is one of those.
pub(super) async fn accept(tls: &ServerTls, tcp: TcpStream, guests: Guests) -> io::Result<Accepted> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
    if let Some(proof) = tls.challenges.answer(&start.client_hello()) {
        start.into_stream(proof).await?.shutdown().await?;
        return Ok(Accepted::Proof);
    }
    let config = match guests {
        Guests::None => return Err(io::Error::other("`allow` names no network that it is in")),
        Guests::Imap => &tls.imap,
        Guests::Web => &tls.web,
    };
    let stream = start.into_stream(config.clone()).await?;
    Ok(match stream.get_ref().1.alpn_protocol() {
        Some(HTTP_2) => Accepted::Web(stream, Http::Two),
        Some(HTTP_1) => Accepted::Web(stream, Http::One),
        _ => Accepted::Imap(stream),
    })
}
