//! The resident memory of another process, from Linux's procfs (proc(5)).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

pub(crate) struct Memory {
    folder: PathBuf,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Self {
        Self { folder: format!("/proc/{pid}").into() }
    }

    /// Forgets the peak, and returns the memory that is resident now, in bytes.
    pub(crate) fn reset_peak(&self) -> Result<u64> {
        fs::write(self.folder.join("clear_refs"), "5").context("cannot reset the peak of memory")?;
        self.field("VmRSS:")
    }

    /// The memory that is resident now, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.field("VmRSS:")
    }

    /// The most that was resident since the peak was forgotten, in bytes.
    pub(crate) fn peak(&self) -> Result<u64> {
        self.field("VmHWM:")
    }

    fn field(&self, name: &str) -> Result<u64> {
        let path = self.folder.join("status");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok());
        let kib: u64 = value.with_context(|| format!("no {name} in {}", path.display()))?;
        Ok(kib.saturating_mul(1024))
    }
}
