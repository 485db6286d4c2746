//! Resources of other processes: memory, processor time, sockets, from Linux's procfs (proc(5)).

use std::fs::{self, DirEntry};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of processor time in proc(5): USER_HZ is 100 wherever we run.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    folder: PathBuf,
}

impl Process {
    pub(crate) fn of(pid: u32) -> Self {
        Self { folder: format!("/proc/{pid}").into() }
    }

    /// Forgets the peak, and returns the memory that is resident now, in bytes.
    pub(crate) fn reset_peak(&self) -> Result<u64> {
        fs::write(self.folder.join("clear_refs"), "5")
            .context("cannot reset the peak of memory")?;
        self.resident()
    }

    /// The memory that is resident now, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.field("status", "VmRSS:")
    }

    /// The most that was resident since the peak was forgotten, in bytes.
    pub(crate) fn peak(&self) -> Result<u64> {
        self.field("status", "VmHWM:")
    }

    /// Its share of what is resident, where pages are shared with others, in bytes.
    pub(crate) fn pss(&self) -> Result<u64> {
        self.field("smaps_rollup", "Pss:")
    }

    /// The part of it that is no file, so that other processes of the same program change nothing, in bytes.
    pub(crate) fn anonymous(&self) -> Result<u64> {
        self.field("smaps_rollup", "Pss_Anon:")
    }

    /// The number of its open sockets.
    pub(crate) fn sockets(&self) -> Result<usize> {
        let is_socket = |file: &PathBuf| {
            fs::read_link(file).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        };
        let files = fs::read_dir(self.folder.join("fd"))?;
        Ok(files.filter_map(|entry| Some(entry.ok()?.path())).filter(is_socket).count())
    }

    /// The time that processors have spent with it.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let (living, all) = (self.living_threads()?, self.all_threads()?);
        // The time of all threads is exact to some ticks only, that of the living ones is exact.
        let ended = all.saturating_sub(living);
        Ok(living + if ended > TICK * 2 { ended } else { Duration::ZERO })
    }

    fn living_threads(&self) -> Result<Duration> {
        let time = |thread: io::Result<DirEntry>| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
        };
        // One that ends just now is no error.
        Ok(fs::read_dir(self.folder.join("task"))?.filter_map(time).sum())
    }

    fn all_threads(&self) -> Result<Duration> {
        let stat = fs::read_to_string(self.folder.join("stat"))?;
        // The name before the last bracket may have anything in it. Field 14 is the time in user mode, 15 in the kernel.
        let fields = stat.rsplit_once(')').context("no name")?.1.split_ascii_whitespace();
        let ticks =
            fields.skip(11).take(2).map(|field| Ok(field.parse::<u32>()?)).sum::<Result<u32>>()?;
        Ok(TICK * ticks)
    }

    fn field(&self, file: &str, name: &str) -> Result<u64> {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok());
        let kib: u64 = value.with_context(|| format!("no {name} in {}", path.display()))?;
        Ok(kib.saturating_mul(1024))
    }
}

/// All processes of one program: those of one session in the sense of setsid(2).
pub(crate) struct Group {
    pub(crate) leader: u32,
}

impl Group {
    pub(crate) fn processes(&self) -> Result<Vec<Process>> {
        let of_session = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name before the last bracket may have anything in it. Then come state, parent, group, session.
            let session: u32 =
                stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(3)?.parse().ok()?;
            (session == self.leader).then(|| Process::of(pid))
        };
        let pids = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(of_session).collect())
    }

    pub(crate) fn pss(&self) -> Result<u64> {
        self.processes()?.iter().map(Process::pss).sum()
    }

    pub(crate) fn sockets(&self) -> Result<usize> {
        self.processes()?.iter().map(Process::sockets).sum()
    }

    pub(crate) fn processor_time(&self) -> Result<Duration> {
        self.processes()?.iter().map(Process::processor_time).sum()
    }
}
