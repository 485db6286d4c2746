//! All of it, one after the other.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::candidate::{Candidate, Entrant, check_installed};
use super::figures::Driven;
use super::load::{self, Sample};
use super::machine::Meanwhile;
use super::options::{Extent, Options};
use super::page::Page;
use super::upstream::Upstream;
use super::work::{Measurement, Work};
use super::{idle, limits, machine, page, together, watching};
use crate::common::process::Process;
use crate::common::tls::{Authority, Order};

/// Measures, prints the tables, and writes them.
#[tokio::main]
pub(crate) async fn all(options: &Options) -> Result<()> {
    let entrants = options.entrants();
    check_installed(&entrants.iter().map(|entrant| entrant.kind).collect::<Vec<_>>())?;
    limits::files();
    let began = Instant::now();
    let folder = tempfile::Builder::new().prefix("deltapush-peers-").tempdir()?;
    let authority = Authority::make(folder.path())?;
    let mut outcome =
        Outcome { driven: Driven::new(), notes: Vec::new(), meanwhile: Meanwhile::default() };

    let is_full_login = |work: Work| work == Work::Login { resumed: false };
    for resumption in [true, false] {
        let wanted = Measurement::all(options.extent()).into_iter().filter(|measurement| {
            is_full_login(measurement.work) != resumption && options.wants(&measurement.name())
        });
        let wanted: Vec<Measurement> = wanted.collect();
        if !wanted.is_empty() {
            let upstream = Upstream::start(&authority, resumption)?;
            drive(options, &wanted, &authority, &upstream, &mut outcome).await?;
        }
    }
    let mut idle_sessions = None;
    if options.wants("idle sessions") {
        let upstream = Upstream::start(&authority, true)?;
        idle_sessions = Some(idle::all(options, &authority, &upstream).await?);
    }
    let mut together = None;
    if options.wants("idle and watching") {
        let upstream = Upstream::start(&authority, true)?;
        together = Some(together::measure(options, &authority, &upstream).await?);
    }
    let mut watched = None;
    if options.wants("watching") {
        watched = Some(watching::measure(options, &authority).await?);
    }
    let page = Page {
        entrants,
        machine: machine::describe(options).await?,
        driven: outcome.driven,
        idle: idle_sessions,
        together,
        watched,
        notes: outcome.notes,
        meanwhile: outcome.meanwhile,
        took: began.elapsed(),
    };
    let text = page.markdown();
    println!("\n{text}");
    if options.write {
        page::write(&page.summary(), &page.plot())?;
    }
    if options.extent() == Extent::Shortest {
        println!("this was to see that the benchmark works: these figures mean nothing");
    }
    Ok(())
}

/// The outcome of driving.
struct Outcome {
    driven: Driven,
    notes: Vec<String>,
    meanwhile: Meanwhile,
}

/// Drives all entrants in turns, round after round.
async fn drive(
    options: &Options,
    measurements: &[Measurement],
    authority: &Authority,
    upstream: &Upstream,
    outcome: &mut Outcome,
) -> Result<()> {
    let entrants = options.entrants();
    let mut candidates = Vec::new();
    for entrant in &entrants {
        candidates.push((entrant, Candidate::start(entrant, authority, upstream)?));
    }
    let ours = || -> Result<Duration> {
        let candidates = candidates.iter().map(|(_, candidate)| candidate.group.processor_time());
        let all: Duration = candidates.sum::<Result<_>>()?;
        Ok(all
            + upstream.group.processor_time()?
            + Process::of(std::process::id()).processor_time()?)
    };
    let before = Meanwhile::now(ours()?)?;
    for measurement in measurements {
        let mut samples: Vec<Option<Vec<Sample>>> = vec![Some(Vec::new()); candidates.len()];
        let began = Instant::now();
        for _ in 0..options.rounds() {
            for ((entrant, candidate), rounds) in candidates.iter().zip(&mut samples) {
                let Some(so_far) = rounds else { continue };
                match one(options, measurement, authority, candidate).await {
                    Ok(sample) => so_far.push(sample),
                    Err(error) => {
                        *rounds = None;
                        let name = format!("{}: {}", entrant.name(), measurement.name());
                        outcome.notes.push(failed(options, entrant, error.context(name))?);
                    }
                }
            }
        }
        if measurement.work == (Work::Login { resumed: true }) {
            note_resumption(&entrants, &samples, &mut outcome.notes);
        }
        println!("  {} took {:.1} s", measurement.name(), began.elapsed().as_secs_f32());
        outcome.driven.add(measurement, &samples);
    }
    outcome.meanwhile.add(&before, &Meanwhile::now(ours()?)?);
    Ok(())
}

async fn one(
    options: &Options,
    measurement: &Measurement,
    authority: &Authority,
    candidate: &Candidate,
) -> Result<Sample> {
    let tls =
        authority.connector(measurement.work == Work::Login { resumed: true }, Order::Usual)?;
    if matches!(measurement.work, Work::Login { .. }) {
        // So that each has a TLS session to resume, and what is made once is there.
        load::drive(candidate, measurement, &tls, Duration::ZERO).await?;
    }
    load::drive(candidate, measurement, &tls, options.time()).await
}

/// Other people's programs may fail, which is told. deltapush and the yardstick may not, and nobody where the benchmark itself is
/// tested.
pub(crate) fn failed(options: &Options, entrant: &Entrant, error: anyhow::Error) -> Result<String> {
    if !entrant.kind.is_peer() || options.extent() == Extent::Shortest {
        return Err(error);
    }
    Ok(format!("{error:#}"))
}

/// Tells who does not resume TLS sessions, though clients would.
fn note_resumption(entrants: &[Entrant], samples: &[Option<Vec<Sample>>], notes: &mut Vec<String>) {
    for (entrant, rounds) in entrants.iter().zip(samples) {
        let Some(rounds) = rounds else { continue };
        let (resumed, all) = rounds
            .iter()
            .fold((0, 0), |(resumed, all), round| (resumed + round.resumed, all + round.count));
        if resumed * 10 < all * 9 {
            notes.push(format!(
                "{} resumed {resumed} of {all} TLS sessions of clients",
                entrant.name()
            ));
        }
    }
}
