//! Process metrics from the operating system, with the names of Prometheus's client libraries.

use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, fs};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::expose;

/// Clock ticks per second (`USER_HZ`): the same on all machines on which deltapush runs.
const TICKS: f64 = 100.0;

/// The metrics. Values that the system does not provide are absent.
#[derive(Debug, Default)]
pub(super) struct Process {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    threads: Option<u64>,
    open_files: Option<usize>,
    max_files: Option<u64>,
}

impl Process {
    /// Reads the present values. Blocks on a few files in /proc, and one more for each open file.
    pub(super) fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            cpu_seconds: cpu_seconds(&stat),
            resident_bytes: kibibytes(&status, "VmRSS:"),
            virtual_bytes: kibibytes(&status, "VmSize:"),
            threads: field(&status, "Threads:"),
            open_files: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            max_files: rlimit::Resource::NOFILE.get_soft().ok(),
        }
    }

    pub(super) fn encode(
        &self,
        mut encoder: DescriptorEncoder<'_>,
        started: SystemTime,
    ) -> fmt::Result {
        let began = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some(seconds) = self.cpu_seconds {
            let help = "CPU time used, in seconds.";
            expose(&mut encoder, "process_cpu_seconds", help, &ConstCounter::new(seconds))?;
        }
        let open_files = self.open_files.map(|count| count as u64);
        let gauges = [
            (
                "process_start_time_seconds",
                "Start time of the process, in seconds since 1970.",
                Some(began),
            ),
            ("process_resident_memory_bytes", "Resident memory, in bytes.", self.resident_bytes),
            ("process_virtual_memory_bytes", "Virtual memory, in bytes.", self.virtual_bytes),
            ("process_threads", "Number of threads.", self.threads),
            ("process_open_fds", "Open files and connections.", open_files),
            ("process_max_fds", "Limit of open files.", self.max_files),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                expose(&mut encoder, name, help, &ConstGauge::new(value))?;
            }
        }
        Ok(())
    }
}

/// Fields 14 and 15 (proc_pid_stat(5)), counted after the name, which may have spaces in it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let ticks = |field: Option<&str>| field?.parse::<u32>().ok().map(f64::from);
    let (user, system) = (ticks(fields.next())?, ticks(fields.next())?);
    Some((user + system) / TICKS)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().trim_end_matches(" kB").parse().ok()
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    field(status, name)?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_all_of_them() {
        let process = Process::now();
        assert!(
            process.resident_bytes.unwrap() > 100_000
                && process.virtual_bytes >= process.resident_bytes,
            "{process:?}"
        );
        assert!(process.threads.unwrap() >= 1 && process.open_files.unwrap() >= 3, "{process:?}");
        assert!(process.max_files.unwrap() >= 3 && process.cpu_seconds.is_some(), "{process:?}");
    }

    #[test]
    fn name_with_spaces_hides_nothing() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }
}
