//! Metrics that every process of the service exports: build, memory, CPU time, open files. They are read from /proc at
//! each scrape. Without /proc (macOS) only the build and the start time are exported.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::Registry,
};

/// Registers the metrics.
pub(crate) fn register(registry: &mut Registry) {
    registry.register(
        "embeddery_build",
        "Version of the program",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    registry.register_collector(Box::new(Process { started }));
}

/// Resident memory in bytes; `None` without /proc.
pub(crate) fn resident_bytes() -> Option<u64> {
    Some(ProcStat::read()?.resident_bytes as u64)
}

#[derive(Debug)]
struct Process {
    /// Unix time in seconds.
    started: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("process_start_time_seconds", "Start time of the process, Unix time in seconds", self.started)?;
        let Some(now) = ProcStat::read() else { return Ok(()) };
        gauge("process_resident_memory_bytes", "Resident memory in bytes", now.resident_bytes)?;
        gauge("process_virtual_memory_bytes", "Virtual memory in bytes", now.virtual_bytes)?;
        gauge("process_threads", "Operating system threads", now.threads)?;
        gauge("process_open_fds", "Open file descriptors", now.open_files)?;
        if let Some(max) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            gauge("process_max_fds", "Maximum open file descriptors", max as f64)?;
        }
        let cpu = ConstCounter::new(now.cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "CPU time of all threads in seconds",
            None,
            cpu.metric_type(),
        )?)
    }
}

/// The values of one scrape.
#[derive(Debug, PartialEq)]
struct ProcStat {
    cpu_seconds: f64,
    threads: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
    open_files: f64,
}

impl ProcStat {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The open directory itself is one of the descriptors.
        let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Some(Self {
            open_files: open_files as f64,
            ..Self::parse(&stat, ticks, rustix::param::page_size() as f64)?
        })
    }

    /// Parses the fields of proc_pid_stat(5). The process name in parentheses may contain any character, so the fields
    /// are counted from the last parenthesis.
    fn parse(stat: &str, ticks: f64, page: f64) -> Option<Self> {
        let (_, after) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // `fields[0]` is `state`, which is field 3 of the manual page.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page,
            open_files: 0.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_stat_is_parsed_for_any_process_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1000 8192 3 18446744073709551615 1";
        let expected = ProcStat {
            cpu_seconds: 3.0,
            threads: 7.0,
            virtual_bytes: 8192.0,
            resident_bytes: 12288.0,
            open_files: 0.0,
        };
        assert_eq!(ProcStat::parse(stat, 100.0, 4096.0), Some(expected));
        assert_eq!(ProcStat::parse("42 (a) S 1", 100.0, 4096.0), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_read() {
        let now = ProcStat::read().unwrap();
        assert!(now.resident_bytes > 1e5 && now.threads >= 1.0 && now.open_files >= 3.0, "{now:?}");
    }
}
