//! Sessions that have said a little and then wait: what one costs while nothing happens.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use deltapush::proxy::relay::FOLD_TIME;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::candidate::{Candidate, Entrant, Kind};
use super::figures::{Better, Figure, Row, Series, kib, number};
use super::options::Options;
use super::upstream::Upstream;
use super::{limits, load, measure};
use crate::common::accounts::token;
use crate::common::client::Client;
use crate::common::tls::{Authority, Order};

/// Sessions that are opened before anything is measured, so that what is made once is there.
const WARM_UP: usize = 16;

/// Sessions that are opened at the same time.
const AT_ONCE: usize = 16;

/// Time for a program to put away what it needed for opening them.
const REST: Duration = Duration::from_millis(500);

/// Time for deltapush with those that compress: of silent ones it keeps less.
const LONG_REST: Duration = FOLD_TIME.saturating_mul(2);

/// Time limit of a program for a crowd.
const PATIENCE: Duration = Duration::from_secs(120);

/// The actions of a session before it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// It compresses.
    Compressed,
    /// It hands over a token, so that its account is watched. For deltapush alone.
    WithToken,
}

/// Figures of idle sessions.
#[derive(Debug)]
pub(crate) struct Idle {
    /// KiB for each, the largest crowd last.
    pub(crate) plain: Figure,
    pub(crate) compressed: Figure,
    pub(crate) sockets: Figure,
    /// Percent of a core for the largest crowd.
    pub(crate) processor: Figure,
    /// Programs that could not hold a crowd: its size, and why.
    pub(crate) notes: Vec<String>,
}

/// Resources that a program took for a crowd.
struct Crowd {
    kib_each: f64,
    sockets_each: f64,
    percent: f64,
}

/// Measures all, each in a process that has done nothing else.
pub(crate) async fn all(
    options: &Options,
    authority: &Authority,
    upstream: &Upstream,
) -> Result<Idle> {
    use Better::Less;
    let mut idle = Idle {
        plain: Figure::new("Idle sessions: KiB each", Less, 1),
        compressed: Figure::new("Idle sessions, compressed by the client: KiB each", Less, 1),
        sockets: Figure::new("Idle sessions: sockets each", Less, 1),
        processor: Figure::new("Idle sessions: percent of a core for all", Less, 3),
        notes: Vec::new(),
    };
    let entrants = options.entrants();
    for manner in [Manner::Plain, Manner::Compressed] {
        let compressed = manner == Manner::Compressed;
        let mut by_entrant = Vec::new();
        for entrant in &entrants {
            let (mut crowds, mut failure) = (Vec::new(), None);
            if !compressed || entrant.kind == Kind::Deltapush {
                failure =
                    one(options, entrant, authority, upstream, manner, &mut crowds).await.err();
            }
            if let Some(error) = failure {
                idle.notes.push(measure::failed(
                    options,
                    entrant,
                    error.context(entrant.name().to_owned()),
                )?);
            }
            by_entrant.push(crowds);
        }
        for (index, sessions) in
            options.crowds().iter().map(|crowd| limits::sessions(*crowd)).enumerate()
        {
            let row = |of: fn(&Crowd) -> f64| Row {
                name: format!("{sessions} sessions"),
                cells: by_entrant
                    .iter()
                    .map(|crowds| Some(Series(vec![of(crowds.get(index)?)])))
                    .collect(),
            };
            if compressed {
                idle.compressed.rows.push(row(|crowd| crowd.kib_each));
                continue;
            }
            idle.plain.rows.push(row(|crowd| crowd.kib_each));
            idle.sockets.rows.push(row(|crowd| crowd.sockets_each));
            idle.processor.rows.push(row(|crowd| crowd.percent));
        }
    }
    Ok(idle)
}

async fn one(
    options: &Options,
    entrant: &Entrant,
    authority: &Authority,
    upstream: &Upstream,
    manner: Manner,
    crowds: &mut Vec<Crowd>,
) -> Result<()> {
    let candidate = Candidate::start(entrant, authority, upstream)?;
    let tls = authority.connector(false, Order::Usual)?;
    let mut sessions = Vec::new();
    let compressed = manner == Manner::Compressed;
    let rest = if compressed { LONG_REST } else { REST };
    grow(&candidate, &tls, WARM_UP, manner, &mut sessions).await?;
    sleep(rest).await;
    let (memory, sockets) = (candidate.group.pss()?, candidate.group.sockets()?);
    for crowd in options.crowds().iter().map(|crowd| limits::sessions(*crowd)) {
        grow(&candidate, &tls, crowd + WARM_UP, manner, &mut sessions)
            .await
            .with_context(|| format!("it does not hold {crowd} sessions"))?;
        sleep(rest).await;
        let before = candidate.group.processor_time()?;
        sleep(options.quiet_time()).await;
        let spent = candidate.group.processor_time()?.saturating_sub(before);
        crowds.push(Crowd {
            kib_each: kib(candidate.group.pss()?.saturating_sub(memory)) / number(crowd),
            sockets_each: number(candidate.group.sockets()?.saturating_sub(sockets))
                / number(crowd),
            percent: spent.as_secs_f64() / options.quiet_time().as_secs_f64() * 100.0,
        });
        println!(
            "  {}{}, {crowd} idle sessions: {:.1} KiB each",
            entrant.name(),
            if compressed { ", compressed" } else { "" },
            crowds.last().map_or(0.0, |crowd| crowd.kib_each)
        );
    }
    Ok(())
}

/// Opens sessions until there are so many.
pub(crate) async fn grow(
    candidate: &Candidate,
    tls: &TlsConnector,
    until: usize,
    manner: Manner,
    sessions: &mut Vec<Client>,
) -> Result<()> {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for number in sessions.len()..until {
        let (slots, address, tls) = (Arc::clone(&slots), candidate.address, tls.clone());
        opening.spawn(async move {
            let _slot = slots.acquire().await?;
            open(address, &tls, number, manner).await
        });
    }
    let all = async {
        while let Some(session) = opening.join_next().await {
            sessions.push(session??);
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, all).await.context("it takes too long")?
}

/// Does what a client does before it waits.
async fn open(
    candidate: std::net::SocketAddr,
    tls: &TlsConnector,
    number: usize,
    manner: Manner,
) -> Result<Client> {
    let mut client = load::session(candidate, tls, number).await?;
    let saying = async {
        match manner {
            Manner::Plain => {}
            Manner::Compressed => client.compress().await?,
            Manner::WithToken => {
                let token = token(number);
                client
                    .command(&format!("SETMETADATA INBOX (/private/devicetoken \"{token}\")"))
                    .await?;
            }
        }
        client.command("SELECT INBOX").await?;
        client.headers().await?;
        client.idle().await
    };
    timeout(PATIENCE, saying).await.context("no answer in time")??;
    Ok(client)
}
