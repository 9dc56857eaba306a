//! What the process itself takes, by the names that every program tells it under.

use std::fmt;
use std::fs;

use kitbag_domain::UnixMs;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::page::{Page, seconds};

/// What a process takes; only Linux tells all of it in `/proc`.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) started_at: UnixMs,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) open_files_max: Option<u64>,
}

impl Process {
    pub(super) fn read(started_at: UnixMs) -> Self {
        Self {
            started_at,
            cpu_seconds: fs::read_to_string("/proc/self/stat")
                .ok()
                .and_then(|stat| cpu_seconds(&stat)),
            resident_bytes: fs::read_to_string("/proc/self/statm")
                .ok()
                .and_then(|statm| resident_bytes(&statm)),
            // One of them is that of the directory, while it is read.
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| files.count().saturating_sub(1) as u64),
            open_files_max: getrlimit(Resource::Nofile).current,
        }
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.info("kitbag_build", "The version that runs", &version)?;
        page.gauge_f64(
            "process_start_time_seconds",
            "When the process began",
            seconds(self.started_at.saturating_mul(1_000)),
        )?;
        if let Some(value) = self.cpu_seconds {
            let help = "CPU time of the process and of the system for it";
            page.counter_f64("process_cpu_seconds", help, value)?;
        }
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory of the process that is not swapped out",
                self.resident_bytes,
            ),
            (
                "process_open_fds",
                "File descriptors that are open",
                self.open_files,
            ),
            (
                "process_max_fds",
                "File descriptors that may be open",
                self.open_files_max,
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                page.gauge(name, help, value)?;
            }
        }
        Ok(())
    }
}

/// Reads `/proc/self/stat`, whose second field is the name of the program, in parentheses.
#[expect(
    clippy::cast_precision_loss,
    reason = "ticks of a hundredth of a second"
)]
fn cpu_seconds(stat: &str) -> Option<f64> {
    // Those of proc(5) are counted from 1, and the third is the first behind the name.
    const USER: usize = 14 - 3;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(USER);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(ticks as f64 / clock_ticks_per_second() as f64)
}

/// Reads `/proc/self/statm`, whose second field is what is resident.
fn resident_bytes(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a ) b) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 100";
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(cpu_seconds(stat), Some(300.0 / ticks));
        assert_eq!(cpu_seconds("7 (a) R 1"), None);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        assert_eq!(
            resident_bytes("900 3 1 1 0 1 0\n"),
            Some(3 * page_size() as u64)
        );
        assert_eq!(resident_bytes(""), None);
    }
}
