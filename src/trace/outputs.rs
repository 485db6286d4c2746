//! Trace outputs of the configuration: standard output and files. Each output is a thread, so that neither a terminal
//! nor a disk slows a session.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::warn;

use super::files::TraceFolder;
use super::follow::Followed;
use super::hub::Hub;
use super::selection::{Audience, TraceSelection};
use super::text::Renderer;
use crate::config::TraceSettings;
use crate::printable::has_colours;

/// Time for outputs to write their queues at shutdown.
const GRACE: Duration = Duration::from_secs(2);

/// The outputs at work.
#[derive(Default)]
pub(super) struct Outputs {
    wanted: TraceSettings,
    /// Their numbers among the followers, and their threads.
    running: Vec<(u64, JoinHandle<()>)>,
}

impl Outputs {
    /// Lets the outputs be those of `wanted` from now on.
    ///
    /// # Errors
    /// If the folder for files cannot be made, or there is no thread; then all is as before.
    pub(super) fn apply(&mut self, hub: &Arc<Hub>, wanted: &TraceSettings) -> io::Result<()> {
        if self.wanted == *wanted && !self.running.is_empty() {
            return Ok(());
        }
        let files = wanted.files.clone().map(TraceFolder::new).transpose()?;
        end(hub, std::mem::take(&mut self.running));
        if wanted.print {
            let audience = Audience::Everyone;
            let shown = TraceSelection { audience, side: None, literals: false };
            let running = output(hub, shown, |followed| print(&mut io::stdout(), followed))?;
            self.running.extend(running);
        }
        if let (Some(files), Some(settings)) = (files, &wanted.files) {
            let audience = Audience::LoggedIn(settings.accounts.clone());
            let written = TraceSelection { audience, side: None, literals: settings.literals };
            let running = output(hub, written, |followed| files.write_all(followed))?;
            self.running.extend(running);
        }
        self.wanted = wanted.clone();
        Ok(())
    }

    /// Ends the outputs, once what is queued is written or a short time is over.
    pub(super) fn finish(&mut self, hub: &Hub) {
        self.wanted = TraceSettings::default();
        end(hub, std::mem::take(&mut self.running));
    }
}

fn output(
    hub: &Arc<Hub>,
    wanted: TraceSelection,
    write: impl FnOnce(Followed) + Send + 'static,
) -> io::Result<Option<(u64, JoinHandle<()>)>> {
    let Some(followed) = Followed::new(hub, wanted) else {
        warn!("the trace is not written: too many programs follow it already");
        return Ok(None);
    };
    let number = followed.number();
    let thread =
        thread::Builder::new().name("deltapush-trace".into()).spawn(move || write(followed))?;
    Ok(Some((number, thread)))
}

fn end(hub: &Hub, running: Vec<(u64, JoinHandle<()>)>) {
    let deadline = Instant::now().checked_add(GRACE);
    for (number, _) in &running {
        hub.end(*number);
    }
    while running.iter().any(|(_, thread)| !thread.is_finished())
        && deadline.is_some_and(|end| Instant::now() < end)
    {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Prints until nothing more comes, or nobody reads: a closed terminal must not end a session.
fn print(out: &mut (impl Write + IsTerminal), mut followed: Followed) {
    let mut renderer = Renderer::new().colours(has_colours(out));
    while let Some(record) = followed.wait() {
        if out.write_all(renderer.render(&record).as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
