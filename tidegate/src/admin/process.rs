//! What the kernel says of this process, under the names that every Prometheus client uses.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts};
use rustix::process::{Resource, getrlimit};

/// The families `process_*`.
pub struct ProcessCollector {
    cpu_seconds: Counter,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    open_files: Gauge,
    files_limit: Gauge,
    threads: Gauge,
    start_seconds: Gauge,
}

/// What `/proc/self/stat` says of us.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl ProcessCollector {
    /// Makes the families.
    ///
    /// # Errors
    /// Never, as long as the names below are valid.
    pub fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| Gauge::with_opts(Opts::new(name, help));
        let collector = Self {
            cpu_seconds: Counter::new(
                "process_cpu_seconds_total",
                "Processor time of this process, in seconds.",
            )?,
            resident_bytes: gauge("process_resident_memory_bytes", "Memory of this process that is in RAM.")?,
            virtual_bytes: gauge("process_virtual_memory_bytes", "Address space of this process.")?,
            open_files: gauge("process_open_fds", "Open file descriptors.")?,
            files_limit: gauge("process_max_fds", "The limit of open file descriptors.")?,
            threads: gauge("process_threads", "Threads of this process.")?,
            start_seconds: gauge(
                "process_start_time_seconds",
                "When this process began, in seconds since the epoch.",
            )?,
        };
        collector.update();
        Ok(collector)
    }

    fn gauges(&self) -> [&Gauge; 6] {
        [
            &self.resident_bytes,
            &self.virtual_bytes,
            &self.open_files,
            &self.files_limit,
            &self.threads,
            &self.start_seconds,
        ]
    }

    fn update(&self) {
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| parse_stat(&text));
        if let Some(stat) = stat {
            let cpu_seconds = stat.cpu_ticks as f64 / ticks_per_second;
            self.cpu_seconds.inc_by((cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.resident_bytes.set(stat.resident_pages as f64 * rustix::param::page_size() as f64);
            self.virtual_bytes.set(stat.virtual_bytes as f64);
            self.threads.set(stat.threads as f64);
            let uptime = fs::read_to_string("/proc/uptime").ok();
            let uptime = uptime.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
            if let Some(uptime_seconds) = uptime.filter(|_| self.start_seconds.get() == 0.0) {
                let age_seconds = uptime_seconds - stat.start_ticks as f64 / ticks_per_second;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.start_seconds.set(now.as_secs_f64() - age_seconds);
            }
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            self.open_files.set(entries.count().saturating_sub(1) as f64);
        }
        let limit = getrlimit(Resource::Nofile).current;
        self.files_limit.set(limit.map_or(f64::INFINITY, |limit| limit as f64));
    }
}

/// Fields by proc_pid_stat(5); the second is a name in parentheses that may have blanks and parentheses itself.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Field 3 of the manual is the first one here.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: number(14)? + number(15)?,
        threads: number(20)?,
        start_ticks: number(22)?,
        virtual_bytes: number(23)?,
        resident_pages: number(24)?,
    })
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).chain(self.cpu_seconds.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.update();
        self.gauges().into_iter().flat_map(Collector::collect).chain(self.cpu_seconds.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_line_is_read_whatever_the_name() {
        let line =
            "42 (a) b (c) S 1 2 3 0 -1 4194304 5 6 7 8 100 50 0 0 20 0 9 0 1234 8192 77 18446744073709551615";
        let expected =
            Stat { cpu_ticks: 150, threads: 9, start_ticks: 1234, virtual_bytes: 8192, resident_pages: 77 };
        assert_eq!(parse_stat(line), Some(expected));
        for bad in ["", "42", "42 (a)", "42 (a) S 1 2 x"] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_process_has_files_and_memory() {
        let collector = ProcessCollector::new().expect("valid names");
        let families = collector.collect();
        assert_eq!(families.len(), 7);
        assert!(collector.resident_bytes.get() > 0.0 && collector.open_files.get() > 2.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        assert!((now - 3600.0..=now + 1.0).contains(&collector.start_seconds.get()));
    }
}
