//! Trace outputs of the configuration: standard output and files. Each output is a thread, so that neither a terminal
//! nor a disk slows a session.

use std::io::{self, IsTerminal, Write};
use std::sync::PoisonError;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::warn;

use super::files::TraceFolder;
use super::follow::Followed;
use super::text::Renderer;
use super::tracer::{Audience, TraceSelection, Tracer};
use crate::config::TraceSettings;

/// How long outputs have to write what is queued when deltapush ends.
const GRACE: Duration = Duration::from_secs(2);

/// The outputs at work.
#[derive(Default)]
pub(super) struct Outputs {
    wanted: TraceSettings,
    /// Their numbers among the followers, and their threads.
    running: Vec<(u64, JoinHandle<()>)>,
}

impl Tracer {
    /// Lets the outputs be those of `wanted` from now on.
    ///
    /// # Errors
    /// If the folder for files cannot be made, or there is no thread; then all is as before.
    pub fn apply(&self, wanted: &TraceSettings) -> io::Result<()> {
        let mut outputs = self.outputs().lock().unwrap_or_else(PoisonError::into_inner);
        if outputs.wanted == *wanted && !outputs.running.is_empty() {
            return Ok(());
        }
        let files = wanted.files.clone().map(TraceFolder::new).transpose()?;
        let before = std::mem::take(&mut outputs.running);
        self.end(before);
        if wanted.print {
            let audience = Audience::Everyone;
            let shown = TraceSelection { audience, side: None, literals: false };
            outputs
                .running
                .extend(self.output(shown, |followed| print(&mut io::stdout(), followed))?);
        }
        if let (Some(files), Some(settings)) = (files, &wanted.files) {
            let audience = Audience::LoggedIn(settings.accounts.clone());
            let written = TraceSelection { audience, side: None, literals: settings.literals };
            outputs.running.extend(self.output(written, |followed| files.write_all(followed))?);
        }
        outputs.wanted = wanted.clone();
        Ok(())
    }

    /// Ends the outputs, once what is queued is written or a short time is over.
    pub fn finish(&self) {
        let mut outputs = self.outputs().lock().unwrap_or_else(PoisonError::into_inner);
        outputs.wanted = TraceSettings::default();
        let running = std::mem::take(&mut outputs.running);
        self.end(running);
    }

    fn output(
        &self,
        wanted: TraceSelection,
        write: impl FnOnce(Followed) + Send + 'static,
    ) -> io::Result<Option<(u64, JoinHandle<()>)>> {
        let Some(followed) = self.follow(wanted) else {
            warn!("the trace is not written: too many programs follow it already");
            return Ok(None);
        };
        let number = followed.number();
        let thread =
            thread::Builder::new().name("deltapush-trace".into()).spawn(move || write(followed))?;
        Ok(Some((number, thread)))
    }

    fn end(&self, running: Vec<(u64, JoinHandle<()>)>) {
        let deadline = Instant::now().checked_add(GRACE);
        for (number, _) in &running {
            self.unfollow(*number);
        }
        while running.iter().any(|(_, thread)| !thread.is_finished())
            && deadline.is_some_and(|end| Instant::now() < end)
        {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Prints until nothing more comes, or nobody reads: a closed terminal must not end a session.
fn print(out: &mut (impl Write + IsTerminal), mut followed: Followed) {
    let colours =
        out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut renderer = Renderer::new().colours(colours);
    while let Some(record) = followed.wait() {
        if out.write_all(renderer.render(&record).as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
