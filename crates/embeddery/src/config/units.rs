//! What operators write, and what it means: durations, amounts, shares. Every text with a unit is read here.

use std::{fmt, num::NonZeroUsize, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::deserialize::parse_whole_number;

/// A year and more is a typo, and must not overflow the clock.
const MAX_SECONDS: f64 = 31_536_000.0;

/// Seconds above zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds(pub(super) Duration);

/// Seconds that something unused stays; zero: for ever, and so a negative number, because the replaced service took both.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnusedSeconds(pub(super) Duration);

/// Days above zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Days(pub(super) Duration);

/// Above 0 and at most 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share(pub(super) f64);

/// A whole number above zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positive(NonZeroUsize);

/// A number of bytes, or a text with a unit: 8GB, 512 MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bytes(pub(super) u64);

/// A number of gigabytes, kept as bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gigabytes(pub(super) u64);

/// Whatever can be read from a text and says itself what is wrong with one.
#[derive(Clone, Debug)]
pub(super) struct Parsed<T>(pub(super) T);

impl Positive {
    pub(super) fn get(self) -> usize {
        self.0.get()
    }

    pub(super) fn non_zero(self) -> NonZeroUsize {
        self.0
    }

    /// As 32 bits, or the most that 32 bits hold.
    pub(super) fn get_u32(self) -> u32 {
        u32::try_from(self.get()).unwrap_or(u32::MAX)
    }
}

impl Bytes {
    /// As an amount of memory, or the most that there can be.
    pub(super) fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// An empty text sets nothing.
pub(super) fn filled<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()).map(T::from))
}

/// Reads a number within a range; anything else is the problem.
macro_rules! number {
    ($unit:ident, $range:expr, $problem:literal, $from:expr) => {
        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = f64::deserialize(deserializer).ok().filter(|number| $range.contains(number));
                number.map($from).map(Self).ok_or_else(|| de::Error::custom($problem))
            }
        }
    };
}

number!(
    Seconds,
    (0.001..=MAX_SECONDS),
    "must be a number of seconds above zero, for example 120",
    Duration::from_secs_f64
);
number!(
    UnusedSeconds,
    (f64::MIN..=MAX_SECONDS),
    "must be a number of seconds; 0 keeps unused models for ever",
    |seconds| Duration::from_secs_f64(seconds.max(0.0))
);
number!(Days, (1e-6..=36_500.0), "must be a number of days above zero, for example 7", |days| {
    Duration::from_secs_f64(days * 86_400.0)
});
number!(Share, (0.001..=1.0), "must be above 0 and at most 1, for example 0.8", |share| share);
number!(
    Gigabytes,
    (0.0..=1e6),
    "must be a number of gigabytes, for example 32; 0 is no limit",
    |gigabytes| (gigabytes * 1e9) as u64
);

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = NonZeroUsize::new(usize::deserialize(deserializer)?);
        number.map(Self).ok_or_else(|| de::Error::custom("must be above zero"))
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_bytes(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format_args!(
                "'{text}' is not a number of bytes; write for example 8GB or 512MiB"
            ))
        })
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(bytes) = parse_whole_number(text) {
        return Some(bytes);
    }
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1024.0 * 1024.0,
        "gi" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "ti" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::{super::tests_support::resolved, *};

    #[test]
    fn bytes_are_written_in_many_ways() {
        for (text, bytes) in [
            ("7", 7),
            ("8GB", 8_000_000_000),
            (" 1.5 KiB", 1536),
            ("2m", 2_000_000),
            ("33_554_432", 33_554_432),
            ("0x10", 16),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "GB", "1 parsec", "1.2.3", "-1"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
        let problem = resolved("engine: {max_memory: much}\n", &[]).err().map(|error| error.to_string());
        assert!(problem.is_some_and(|problem| problem.contains("8GB")));
    }
}
