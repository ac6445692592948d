//! Parses the JSON form of filters.

use serde_json::Value;

use super::{Comparison, Filter, FilterError, Scalar};

/// Maximum depth of nested conditions.
const MAX_FILTER_DEPTH: usize = 32;

/// Maximum number of conditions and values in a filter.
const MAX_VALUES: usize = 1000;

/// Maximum length of the name of a field. Conditions on one field are compared with each other.
const MAX_FIELD_NAME_BYTES: usize = 1024;

/// Parses the JSON form of a filter.
pub(super) fn parse(value: &Value) -> ParseResult {
    let mut parser = Parser { remaining: MAX_VALUES };
    parser.object(value, "filter", 0)
}

struct Parser {
    /// Number of conditions and values that may follow.
    remaining: usize,
}

type ParseResult = Result<Filter, FilterError>;

fn invalid<T>(message: String) -> Result<T, FilterError> {
    Err(FilterError(message))
}

impl Parser {
    fn object(&mut self, value: &Value, name: &str, depth: usize) -> ParseResult {
        if depth > MAX_FILTER_DEPTH {
            return invalid(format!("filter is nested deeper than {MAX_FILTER_DEPTH} levels; flatten it"));
        }
        let Value::Object(fields) = value else {
            return invalid(format!(
                "{name} must be an object, for example {{\"year\": {{\"$gte\": 2020}}}}"
            ));
        };
        let mut all = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            self.count()?;
            all.push(match key.as_str() {
                "$and" => Filter::And(self.list(value, "$and", depth)?),
                "$or" => Filter::Or(self.list(value, "$or", depth)?),
                "$not" => Filter::Not(Box::new(self.object(value, "$not", depth + 1)?)),
                operator if operator.starts_with('$') => {
                    return invalid(format!(
                        "'{operator}' is not allowed in place of a field; use $and, $or or $not, or name a field"
                    ));
                }
                field => self.field(field, value)?,
            });
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Filter::And(all) })
    }

    fn list(&mut self, value: &Value, operator: &str, depth: usize) -> Result<Vec<Filter>, FilterError> {
        match value {
            Value::Array(items) if !items.is_empty() => {
                items.iter().map(|item| self.object(item, operator, depth + 1)).collect()
            }
            _ => invalid(format!("{operator} takes a list with at least one condition")),
        }
    }

    fn field(&mut self, field: &str, value: &Value) -> ParseResult {
        check_nul(field, "a field of the filter")?;
        if field.len() > MAX_FIELD_NAME_BYTES {
            let bytes = field.len();
            return invalid(format!(
                "a field of the filter has a name of {bytes} bytes; at most {MAX_FIELD_NAME_BYTES} are allowed"
            ));
        }
        let Value::Object(operators) = value else {
            return Ok(Filter::In(field.to_owned(), vec![scalar(field, value)?]));
        };
        let mut all = Vec::with_capacity(operators.len());
        for (operator, value) in operators {
            self.count()?;
            let compare = |comparison| {
                Ok(Filter::Compare(field.to_owned(), comparison, comparable(field, operator, value)?))
            };
            all.push(match operator.as_str() {
                "$eq" => Filter::In(field.to_owned(), vec![scalar(field, value)?]),
                "$ne" => {
                    Filter::Not(Box::new(Filter::In(field.to_owned(), vec![scalar(field, value)?])))
                }
                "$in" => Filter::In(field.to_owned(), self.values(field, operator, value)?),
                "$nin" => {
                    let values = self.values(field, operator, value)?;
                    Filter::Not(Box::new(Filter::In(field.to_owned(), values)))
                }
                "$gt" => compare(Comparison::Greater)?,
                "$gte" => compare(Comparison::GreaterOrEqual)?,
                "$lt" => compare(Comparison::Less)?,
                "$lte" => compare(Comparison::LessOrEqual)?,
                other => {
                    return invalid(format!(
                        "operator '{other}' of field '{field}' is unknown; known are $eq $ne $gt $gte $lt $lte $in $nin, and $and $or $not around fields"
                    ));
                }
            });
        }
        match all.len() {
            0 => invalid(format!("field '{field}' has no condition; write a value or {{\"$eq\": value}}")),
            1 => Ok(all.remove(0)),
            _ => Ok(Filter::And(all)),
        }
    }

    fn values(&mut self, field: &str, operator: &str, value: &Value) -> Result<Vec<Scalar>, FilterError> {
        let Value::Array(items) = value else {
            return invalid(format!("{operator} of field '{field}' takes a list of values"));
        };
        items
            .iter()
            .map(|item| {
                self.count()?;
                scalar(field, item)
            })
            .collect()
    }

    fn count(&mut self) -> Result<(), FilterError> {
        self.remaining = self.remaining.checked_sub(1).ok_or_else(|| {
            FilterError(format!("filter holds more than {MAX_VALUES} conditions and values; send fewer"))
        })?;
        Ok(())
    }
}

fn scalar(field: &str, value: &Value) -> Result<Scalar, FilterError> {
    match Scalar::from_json(value) {
        Some(Scalar::Text(text)) => {
            check_nul(&text, "a value of the filter")?;
            Ok(Scalar::Text(text))
        }
        Some(scalar) => Ok(scalar),
        None => invalid(format!("field '{field}' must be compared with a string, a number, true or false")),
    }
}

/// Refuses a NUL character. No document has one, see [`check_metadata`](crate::check_metadata).
fn check_nul(text: &str, subject: &str) -> Result<(), FilterError> {
    match text.contains('\0') {
        true => invalid(format!("{subject} has a NUL character (U+0000), which no document has; remove it")),
        false => Ok(()),
    }
}

fn comparable(field: &str, operator: &str, value: &Value) -> Result<Scalar, FilterError> {
    match scalar(field, value)? {
        Scalar::Bool(_) => invalid(format!("{operator} of field '{field}' takes a number or a string")),
        scalar => Ok(scalar),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error_of(value: &Value) -> String {
        Filter::parse(value).unwrap_err().0
    }

    #[test]
    fn a_bare_value_is_the_short_form_of_eq() {
        let short = Filter::parse(&json!({"lang": "en"})).unwrap();
        assert_eq!(short, Filter::parse(&json!({"lang": {"$eq": "en"}})).unwrap());
        assert_eq!(short, Filter::In("lang".into(), vec![Scalar::Text("en".into())]));
        assert_eq!(Filter::parse(&json!({})).unwrap(), Filter::And(vec![]));
    }

    #[test]
    fn several_conditions_are_joined_by_and() {
        let filter =
            Filter::parse(&json!({"year": {"$gte": 2000, "$lt": 2010}, "$not": {"a": true}})).unwrap();
        let Filter::And(parts) = filter else { panic!("{filter:?}") };
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn an_error_names_the_invalid_part() {
        assert!(error_of(&json!({"a": {"$like": "x"}})).contains("'$like' of field 'a'"));
        assert!(error_of(&json!({"$xor": []})).contains("'$xor'"));
        assert!(error_of(&json!({"a": null})).contains("field 'a'"));
        assert!(error_of(&json!({"a": {"$gt": true}})).contains("number or a string"));
        assert!(error_of(&json!({"a": {"$in": 1}})).contains("list"));
        assert!(error_of(&json!({"$and": []})).contains("at least one condition"));
        assert!(error_of(&json!(["a"])).contains("must be an object"));
    }

    #[test]
    fn a_nul_character_is_refused() {
        assert!(error_of(&json!({"a\u{0}": 1})).contains("NUL"));
        assert!(error_of(&json!({"a": {"$in": ["b", "\u{0}"]}})).contains("NUL"));
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = (0..100).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
        assert!(error_of(&nested).contains("deeper than 32"));
        let shallow = (0..30).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
        assert!(Filter::parse(&shallow).is_ok());
        let many: Vec<_> = (0..2000).collect();
        assert!(error_of(&json!({"a": {"$in": many}})).contains("more than 1000"));
        let long = "f".repeat(2000);
        assert!(error_of(&json!({ long: 1 })).contains("name of 2000 bytes"));
    }
}
