//! Numbers of metadata and filters, compared by their exact value. JSON has integers and floats; a float of a whole value
//! is equal to the integer, and `-0.0` is equal to 0.

use std::cmp::Ordering;

/// A number with its exact value. Integers from -2^63 to 2^64 - 1 are exact, all others are floats of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(Repr);

/// The form of a value is unique, so that equal numbers have equal forms.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Repr {
    /// A whole number from `i64::MIN` to `u64::MAX`.
    Integer(i128),
    /// A number that is not whole, or outside of these bounds. Never NaN or infinite.
    Float(f64),
}

/// 2^64, the first float above `u64::MAX`.
const ABOVE_INTEGERS: f64 = 18_446_744_073_709_551_616.0;

/// -2^63, the value of `i64::MIN`.
const LEAST_INTEGER: f64 = -9_223_372_036_854_775_808.0;

impl Number {
    /// Converts a JSON number. Returns `None` for a number that is not finite, which JSON does not have.
    pub(crate) fn from_json(number: &serde_json::Number) -> Option<Self> {
        if let Some(integer) = number.as_i64() {
            Some(integer.into())
        } else if let Some(integer) = number.as_u64() {
            Some(integer.into())
        } else {
            number.as_f64().filter(|float| float.is_finite()).map(Self::from_finite)
        }
    }

    fn from_finite(float: f64) -> Self {
        let is_integer = float.fract() == 0.0 && (LEAST_INTEGER..ABOVE_INTEGERS).contains(&float);
        // The cast is exact, because the float is whole and within the range of the type.
        Self(if is_integer { Repr::Integer(float as i128) } else { Repr::Float(float) })
    }

    /// Returns the value if it is a whole number from `i64::MIN` to `u64::MAX`.
    pub(crate) fn as_integer(self) -> Option<i128> {
        match self.0 {
            Repr::Integer(integer) => Some(integer),
            Repr::Float(_) => None,
        }
    }

    /// Returns the nearest float.
    pub(crate) fn to_f64(self) -> f64 {
        match self.0 {
            Repr::Integer(integer) => integer as f64,
            Repr::Float(float) => float,
        }
    }
}

impl From<i64> for Number {
    fn from(integer: i64) -> Self {
        Self(Repr::Integer(integer.into()))
    }
}

impl From<u64> for Number {
    fn from(integer: u64) -> Self {
        Self(Repr::Integer(integer.into()))
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of the exact values.
impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            (Repr::Integer(a), Repr::Integer(b)) => a.cmp(&b),
            (Repr::Float(a), Repr::Float(b)) => a.total_cmp(&b),
            (Repr::Integer(a), Repr::Float(b)) => compare(a, b),
            (Repr::Float(a), Repr::Integer(b)) => compare(b, a).reverse(),
        }
    }
}

/// Compares an integer with a float that is not whole or outside of the integers, so that the two are never equal.
fn compare(integer: i128, float: f64) -> Ordering {
    // The cast drops the fraction. It saturates far outside of the integers of a `Number`.
    let whole = float as i128;
    integer.cmp(&whole).then(if float.fract() > 0.0 { Ordering::Less } else { Ordering::Greater })
}

/// Whether the shortest decimal form of a float may be another number than its value: whole numbers of 2^53 and more.
/// PostgreSQL stores the decimal form as it is.
pub(crate) fn needs_all_digits(float: f64) -> bool {
    float.fract() == 0.0 && float.abs() >= 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn number(value: &serde_json::Value) -> Number {
        Number::from_json(value.as_number().unwrap()).unwrap()
    }

    #[test]
    fn numbers_are_ordered_by_their_exact_values() {
        let ascending = [
            json!(f64::MIN),
            json!(-9.3e18),
            json!(i64::MIN),
            json!(i64::MIN + 1),
            json!(-1.5),
            json!(-1),
            json!(-5e-324),
            json!(0),
            json!(5e-324),
            json!(0.5),
            json!(1),
            json!(9_007_199_254_740_991_u64),
            json!(9_007_199_254_740_992_u64),
            json!(9_007_199_254_740_993_u64),
            json!(i64::MAX),
            json!(9_223_372_036_854_775_808_u64),
            json!(9_223_372_036_854_775_809_u64),
            json!(18_446_744_073_709_549_568.0),
            json!(18_446_744_073_709_549_900_u64),
            json!(u64::MAX),
            json!(18_446_744_073_709_551_616.0),
            json!(f64::MAX),
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(number(a).cmp(&number(b)), i.cmp(&j), "{a} and {b}");
            }
        }
        for (a, b) in [(json!(-0.0), json!(0)), (json!(3.0), json!(3)), (json!(1e18), json!(10_u64.pow(18)))]
        {
            assert_eq!(number(&a), number(&b));
        }
    }

    proptest! {
        #[test]
        fn a_float_and_an_integer_compare_as_decimals_do(float in any::<f64>(), integer in any::<i64>()) {
            prop_assume!(float.is_finite());
            // Both are scaled by 2^10, where halves are integers; the range of the float is reduced to that of i128.
            let float = (float % 1e19 * 4.0).round() / 4.0;
            let scaled = (float * 1024.0) as i128;
            let expected = (i128::from(integer) * 1024).cmp(&scaled);
            prop_assert_eq!(Number::from(integer).cmp(&Number::from_finite(float)), expected);
        }
    }
}
