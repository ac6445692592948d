//! The number of tokens that a vendor reports for a call. The report is only bookkeeping: whatever it is, the vectors
//! beside it are good. So it is read from any JSON, and without a clear number the tokens are estimated.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// The highest whole number that every vendor's JSON writer keeps exact.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads the number at the first of `paths` that has one. A path is a list of member names from `report` on.
pub(crate) fn read(report: Option<&RawValue>, paths: &[&[&str]]) -> Option<u64> {
    let report = report?;
    let at = |path: &&[&str]| {
        path.iter().try_fold(report, |value, name| member(value, name)).and_then(whole_number)
    };
    paths.iter().find_map(at)
}

fn member<'a>(value: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let members: HashMap<String, &RawValue> = serde_json::from_str(value.get()).ok()?;
    members.get(name).copied()
}

/// A whole number that is not negative: `5`, `5.0`, `"5"`.
fn whole_number(value: &RawValue) -> Option<u64> {
    let text = value.get().trim();
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim();
    if let Ok(number) = digits.parse::<u64>() {
        return Some(number);
    }
    let number = digits.parse::<f64>().ok()?;
    let is_whole = number.fract() == 0.0 && (0.0..=MAX_EXACT).contains(&number);
    is_whole.then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(usage: &str) -> Option<u64> {
        let raw: &RawValue = serde_json::from_str(usage).unwrap();
        read(Some(raw), &[&["total_tokens"], &["prompt_tokens"], &["a", "b"]])
    }

    #[test]
    fn clear_numbers_are_read_and_everything_else_is_ignored() {
        for (number, expected) in [
            ("5", Some(5)),
            ("5.0", Some(5)),
            ("\"5\"", Some(5)),
            ("\" 5 \"", Some(5)),
            ("5e2", Some(500)),
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("-1", None),
            ("5.5", None),
            ("1e999", None),
            ("18446744073709551616", None),
            ("\"five\"", None),
            ("\"NaN\"", None),
            ("\"inf\"", None),
            ("\"\"", None),
            ("true", None),
            ("null", None),
            ("[]", None),
            ("[5]", None),
            ("{}", None),
            ("{\"total_tokens\":5}", None),
        ] {
            assert_eq!(tokens(&format!("{{\"total_tokens\":{number}}}")), expected, "{number}");
            let next = tokens(&format!("{{\"total_tokens\":{number},\"prompt_tokens\":7}}"));
            assert_eq!(next, expected.or(Some(7)), "{number}: the next member counts");
        }
        for odd in ["5", "-1", "\"5\"", "[]", "{}", "true", "1e999", "[[[[]]]]", "{\"a\":[]}"] {
            assert_eq!(tokens(odd), None, "{odd}");
        }
        assert_eq!(tokens("{\"a\":{\"b\":\"9\"}}"), Some(9));
        assert_eq!(read(None, &[&[]]), None);
    }

    proptest! {
        #[test]
        fn every_string_is_read_without_a_panic(text in ".{0,20}") {
            let report = serde_json::json!({"total_tokens": text}).to_string();
            let _ = tokens(&report);
        }

        #[test]
        fn every_count_is_read_in_each_form(count in 0_u64..1 << 53) {
            for form in [format!("{count}"), format!("{count}.0"), format!("\"{count}\"")] {
                prop_assert_eq!(tokens(&format!("{{\"total_tokens\":{form}}}")), Some(count));
            }
        }
    }
}
