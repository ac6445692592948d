//! Numbers in JSON text, as they are written. A JSON parser rounds an integer of more than 64 bits to a float without an
//! error; the text tells.

use std::ops::Range;

/// Returns the positions of the numbers in valid JSON. Digits inside of strings are no numbers.
pub fn number_tokens(json: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = json.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            match bytes.get(at)? {
                b'"' => {
                    at += 1;
                    while *bytes.get(at)? != b'"' {
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                }
                b'-' | b'0'..=b'9' => {
                    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                    let start = at;
                    at += bytes[at..].iter().take_while(is_part).count();
                    return Some(start..at);
                }
                _ => at += 1,
            }
        }
    })
}

/// Returns the first number of valid JSON whose value would be lost: an integer below -2^63 or above 2^64 - 1, or a
/// float that is infinite.
pub fn unrepresentable_number(json: &str) -> Option<&str> {
    number_tokens(json).map(|token| &json[token]).find(|number| {
        if number.contains(['.', 'e', 'E']) {
            number.parse::<f64>().is_ok_and(f64::is_infinite)
        } else {
            number.parse::<i64>().is_err() && number.parse::<u64>().is_err()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_outside_of_strings() {
        let json = r#"{"a1": [-0.5e+3,2], "b\"3\\": true, "c": {"": 7}, "d\\": "8"}"#;
        let found: Vec<&str> = number_tokens(json).map(|token| &json[token]).collect();
        assert_eq!(found, ["-0.5e+3", "2", "7"]);
        assert_eq!(number_tokens("\"unfinished \\").count(), 0);
    }

    #[test]
    fn a_number_whose_value_would_be_lost_is_found() {
        for lost in
            ["18446744073709551616", "-9223372036854775809", "1e309", "-1.8e308", "100000000000000000000"]
        {
            assert_eq!(unrepresentable_number(&format!("{{\"a\": [1, {lost}]}}")), Some(lost));
        }
        for kept in [
            "18446744073709551615",
            "-9223372036854775808",
            "1.7976931348623157e308",
            "5e-324",
            "1e300",
            "-0",
        ] {
            assert_eq!(unrepresentable_number(&format!("[{kept}]")), None, "{kept}");
        }
    }
}
