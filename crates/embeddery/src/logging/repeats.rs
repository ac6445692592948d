//! Warnings and errors of one place in the code are written ten times a minute at most: a Redis that is away must not
//! fill the disk. How many were left out is told with the next one. Lines about requests are not touched.

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

const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// A format that leaves repeats out.
pub(super) struct Seldom<F> {
    format: F,
    json: bool,
    places: Mutex<HashMap<Identifier, Place>>,
}

/// One place in the code, in its present window.
#[derive(Debug, PartialEq)]
struct Place {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq)]
enum Fate {
    Written,
    /// And it is said that so many before it were not.
    WrittenAfter(u64),
    LeftOut,
}

impl Place {
    fn new(now: Instant) -> Self {
        Self { since: now, written: 0, left_out: 0 }
    }

    fn decide(&mut self, now: Instant) -> Fate {
        let mut left_out = 0;
        if now.duration_since(self.since) >= WINDOW {
            left_out = std::mem::replace(self, Self::new(now)).left_out;
        }
        if self.written == MOST {
            self.left_out += 1;
            return Fate::LeftOut;
        }
        self.written += 1;
        if left_out > 0 { Fate::WrittenAfter(left_out) } else { Fate::Written }
    }
}

impl<F> Seldom<F> {
    pub(super) fn new(format: F, json: bool) -> Self {
        Self { format, json, places: Mutex::default() }
    }

    fn decide(&self, event: &Event<'_>) -> Fate {
        if *event.metadata().level() > Level::WARN {
            return Fate::Written;
        }
        let now = Instant::now();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(event.metadata().callsite()).or_insert_with(|| Place::new(now)).decide(now)
    }
}

impl<S, N, F> FormatEvent<S, N> for Seldom<F>
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
            Fate::LeftOut => return Ok(()),
            Fate::Written => {}
            Fate::WrittenAfter(left_out) if self.json => {
                writeln!(
                    writer,
                    r#"{{"level":"WARN","message":"lines like the next one were left out","left_out":{left_out}}}"#
                )?;
            }
            Fate::WrittenAfter(left_out) => {
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
    fn ten_a_minute_are_written_and_the_others_counted() {
        let start = Instant::now();
        let mut place = Place::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..10 {
            assert_eq!(place.decide(at(second)), Fate::Written);
        }
        for second in 10..60 {
            assert_eq!(place.decide(at(second)), Fate::LeftOut);
        }
        assert_eq!(place.decide(at(60)), Fate::WrittenAfter(50));
        assert_eq!(place.decide(at(61)), Fate::Written);
        assert_eq!(place.decide(at(600)), Fate::Written, "none was left out before");
    }
}
