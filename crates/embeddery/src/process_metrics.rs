//! What Prometheus sees of a process of ours, whichever it is: build, memory, time on the CPU, open files. Read from
//! /proc when Prometheus asks; where there is no /proc (macOS), only what is known without it.

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

/// Registers the families.
pub(crate) fn register(registry: &mut Registry) {
    registry.register("embeddery_build", "This program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    registry.register_collector(Box::new(Process { started }));
}

/// Memory in use; `None` where nobody can tell.
pub(crate) fn resident_bytes() -> Option<u64> {
    Some(Now::read()?.resident_bytes as u64)
}

#[derive(Debug)]
struct Process {
    /// Seconds since 1970.
    started: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("process_start_time_seconds", "When the process started, in seconds since 1970", self.started)?;
        let Some(now) = Now::read() else { return Ok(()) };
        gauge("process_resident_memory_bytes", "Memory in use", now.resident_bytes)?;
        gauge("process_virtual_memory_bytes", "Addresses in use", now.virtual_bytes)?;
        gauge("process_threads", "Threads of the operating system", now.threads)?;
        gauge("process_open_fds", "Open files and connections", now.open_files)?;
        if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            gauge("process_max_fds", "Files and connections that may be open", most as f64)?;
        }
        let cpu = ConstCounter::new(now.cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Time on the CPU, all threads together",
            None,
            cpu.metric_type(),
        )?)
    }
}

/// How the process stands.
#[derive(Debug, PartialEq)]
struct Now {
    cpu_seconds: f64,
    threads: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
    open_files: f64,
}

impl Now {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Reading the directory opens it.
        let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Some(Self {
            open_files: open_files as f64,
            ..Self::parse(&stat, ticks, rustix::param::page_size() as f64)?
        })
    }

    /// Fields of proc(5): the name in parentheses may hold anything, so they are counted from its end.
    fn parse(stat: &str, ticks: f64, page: f64) -> Option<Self> {
        let (_, after) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // `state`, the first here, is field 3 there.
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
    fn proc_stat_is_read_whatever_the_program_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1000 8192 3 18446744073709551615 1";
        let now = Now {
            cpu_seconds: 3.0,
            threads: 7.0,
            virtual_bytes: 8192.0,
            resident_bytes: 12288.0,
            open_files: 0.0,
        };
        assert_eq!(Now::parse(stat, 100.0, 4096.0), Some(now));
        assert_eq!(Now::parse("42 (a) S 1", 100.0, 4096.0), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        let now = Now::read().unwrap();
        assert!(now.resident_bytes > 1e5 && now.threads >= 1.0 && now.open_files >= 3.0, "{now:?}");
    }
}
