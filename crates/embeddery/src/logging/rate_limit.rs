//! Limits warnings and errors to ten a minute for each call site, so that an unreachable Redis does not fill the disk. The
//! next line of the call site says how many were left out. Other levels are not limited.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber, callsite::Identifier};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

const MAX_PER_WINDOW: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// A format that drops lines over the limit of their call site.
pub(super) struct RateLimitedFormat<F> {
    format: F,
    json: bool,
    callsites: Mutex<HashMap<Identifier, CallsiteWindow>>,
}

/// The current window of one call site.
#[derive(Debug, PartialEq)]
struct CallsiteWindow {
    start: Instant,
    written: u32,
    left_out: u64,
}

/// The decision about one line.
#[derive(Debug, PartialEq)]
enum Decision {
    Written,
    /// Written, after a line with the number of lines left out before it.
    WrittenAfter(u64),
    LeftOut,
}

impl CallsiteWindow {
    fn new(now: Instant) -> Self {
        Self { start: now, written: 0, left_out: 0 }
    }

    fn decide(&mut self, now: Instant) -> Decision {
        let mut left_out = 0;
        if now.duration_since(self.start) >= WINDOW {
            left_out = std::mem::replace(self, Self::new(now)).left_out;
        }
        if self.written == MAX_PER_WINDOW {
            self.left_out += 1;
            return Decision::LeftOut;
        }
        self.written += 1;
        if left_out > 0 { Decision::WrittenAfter(left_out) } else { Decision::Written }
    }
}

impl<F> RateLimitedFormat<F> {
    pub(super) fn new(format: F, json: bool) -> Self {
        Self { format, json, callsites: Mutex::default() }
    }

    fn decide(&self, event: &Event<'_>) -> Decision {
        if *event.metadata().level() > Level::WARN {
            return Decision::Written;
        }
        let now = Instant::now();
        let mut callsites = self.callsites.lock().unwrap_or_else(PoisonError::into_inner);
        callsites.entry(event.metadata().callsite()).or_insert_with(|| CallsiteWindow::new(now)).decide(now)
    }
}

impl<S, N, F> FormatEvent<S, N> for RateLimitedFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.decide(event) {
            Decision::LeftOut => return Ok(()),
            Decision::Written => {}
            Decision::WrittenAfter(left_out) if self.json => {
                writeln!(
                    writer,
                    r#"{{"level":"WARN","message":"lines like the next one were left out","left_out":{left_out}}}"#
                )?;
            }
            Decision::WrittenAfter(left_out) => {
                writeln!(writer, "WARN {left_out} lines like the next one were left out")?;
            }
        }
        self.format.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_minute_are_written_and_the_others_counted() {
        let start = Instant::now();
        let mut window = CallsiteWindow::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..10 {
            assert_eq!(window.decide(at(second)), Decision::Written);
        }
        for second in 10..60 {
            assert_eq!(window.decide(at(second)), Decision::LeftOut);
        }
        assert_eq!(window.decide(at(60)), Decision::WrittenAfter(50));
        assert_eq!(window.decide(at(61)), Decision::Written);
        assert_eq!(window.decide(at(600)), Decision::Written, "none was left out before");
    }
}
