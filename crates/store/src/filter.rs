//! Filters over documents' metadata: parsed once into a tree, compiled by each store into its own SQL. A value is
//! compared with values of its own type only; a list in the metadata fits when one of its elements does; a field
//! that is not there fits nothing but a negation.

use std::fmt;

use serde_json::Value;

/// A condition on a document's metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Every one fits.
    All(Vec<Filter>),
    /// One fits at least.
    Any(Vec<Filter>),
    /// It does not fit.
    Not(Box<Filter>),
    /// The field has one of these values.
    Among(String, Vec<Scalar>),
    /// The field compares with a value: text with text by code points, numbers with numbers.
    Compare(String, Order, Scalar),
}

/// How a field compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `$gt`
    Above,
    /// `$gte`
    AtLeast,
    /// `$lt`
    Below,
    /// `$lte`
    AtMost,
}

/// A value that filters compare with.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// A number; whole numbers are exact up to 2^53.
    Number(f64),
    /// True or false.
    Bool(bool),
}

/// A filter that cannot be understood: where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(pub String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How deep conditions may be nested.
pub const MAX_DEPTH: usize = 32;

/// How many conditions and values a filter may hold.
const MAX_VALUES: usize = 1000;

impl Filter {
    /// Reads a filter as callers write it.
    pub fn parse(value: &Value) -> Result<Self, FilterError> {
        let mut reader = Reader { left: MAX_VALUES };
        reader.object(value, "filter", 0)
    }
}

struct Reader {
    /// Conditions and values that may still come.
    left: usize,
}

type Parsed = Result<Filter, FilterError>;

fn wrong<T>(message: String) -> Result<T, FilterError> {
    Err(FilterError(message))
}

impl Reader {
    fn object(&mut self, value: &Value, place: &str, depth: usize) -> Parsed {
        if depth > MAX_DEPTH {
            return wrong(format!("filter is nested deeper than {MAX_DEPTH} levels; flatten it"));
        }
        let Value::Object(fields) = value else {
            return wrong(format!("{place} must be an object, for example {{\"year\": {{\"$gte\": 2020}}}}"));
        };
        let mut all = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            self.spend()?;
            all.push(match key.as_str() {
                "$and" => Filter::All(self.list(value, "$and", depth)?),
                "$or" => Filter::Any(self.list(value, "$or", depth)?),
                "$not" => Filter::Not(Box::new(self.object(value, "$not", depth + 1)?)),
                operator if operator.starts_with('$') => {
                    return wrong(format!(
                        "'{operator}' stands where a field is due; only $and, $or and $not may stand there"
                    ));
                }
                field => self.field(field, value)?,
            });
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Filter::All(all) })
    }

    fn list(&mut self, value: &Value, operator: &str, depth: usize) -> Result<Vec<Filter>, FilterError> {
        match value {
            Value::Array(items) if !items.is_empty() => {
                items.iter().map(|item| self.object(item, operator, depth + 1)).collect()
            }
            _ => wrong(format!("{operator} takes a list of one condition or more")),
        }
    }

    fn field(&mut self, field: &str, value: &Value) -> Parsed {
        let Value::Object(operators) = value else {
            return Ok(Filter::Among(field.to_owned(), vec![scalar(field, value)?]));
        };
        let mut all = Vec::with_capacity(operators.len());
        for (operator, value) in operators {
            self.spend()?;
            let compare =
                |order| Ok(Filter::Compare(field.to_owned(), order, ordered(field, operator, value)?));
            all.push(match operator.as_str() {
                "$eq" => Filter::Among(field.to_owned(), vec![scalar(field, value)?]),
                "$ne" => {
                    Filter::Not(Box::new(Filter::Among(field.to_owned(), vec![scalar(field, value)?])))
                }
                "$in" => Filter::Among(field.to_owned(), self.values(field, operator, value)?),
                "$nin" => {
                    let values = self.values(field, operator, value)?;
                    Filter::Not(Box::new(Filter::Among(field.to_owned(), values)))
                }
                "$gt" => compare(Order::Above)?,
                "$gte" => compare(Order::AtLeast)?,
                "$lt" => compare(Order::Below)?,
                "$lte" => compare(Order::AtMost)?,
                other => {
                    return wrong(format!(
                        "'{other}' of field '{field}' is unknown; known are $eq $ne $gt $gte $lt $lte $in $nin, and $and $or $not around fields"
                    ));
                }
            });
        }
        match all.len() {
            0 => wrong(format!("field '{field}' has no condition; write a value or {{\"$eq\": value}}")),
            1 => Ok(all.remove(0)),
            _ => Ok(Filter::All(all)),
        }
    }

    fn values(&mut self, field: &str, operator: &str, value: &Value) -> Result<Vec<Scalar>, FilterError> {
        let Value::Array(items) = value else {
            return wrong(format!("{operator} of field '{field}' takes a list of values"));
        };
        items
            .iter()
            .map(|item| {
                self.spend()?;
                scalar(field, item)
            })
            .collect()
    }

    fn spend(&mut self) -> Result<(), FilterError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            FilterError(format!("filter holds more than {MAX_VALUES} conditions and values; send fewer"))
        })?;
        Ok(())
    }
}

fn scalar(field: &str, value: &Value) -> Result<Scalar, FilterError> {
    Scalar::of(value).ok_or_else(|| {
        FilterError(format!(
            "field '{field}' is compared with a value that is no string, number, true or false"
        ))
    })
}

fn ordered(field: &str, operator: &str, value: &Value) -> Result<Scalar, FilterError> {
    match scalar(field, value)? {
        Scalar::Bool(_) => wrong(format!("{operator} of field '{field}' takes a number or a string")),
        scalar => Ok(scalar),
    }
}

impl Scalar {
    /// A JSON value as filters see it; `None` for null, lists and objects.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) => number.as_f64().map(Self::Number),
            Value::Bool(on) => Some(Self::Bool(*on)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(value: &Value) -> String {
        Filter::parse(value).unwrap_err().0
    }

    #[test]
    fn the_short_form_and_the_long_form_are_one() {
        let short = Filter::parse(&json!({"lang": "en"})).unwrap();
        assert_eq!(short, Filter::parse(&json!({"lang": {"$eq": "en"}})).unwrap());
        assert_eq!(short, Filter::Among("lang".into(), vec![Scalar::Text("en".into())]));
        assert_eq!(Filter::parse(&json!({})).unwrap(), Filter::All(vec![]));
    }

    #[test]
    fn several_conditions_must_all_fit() {
        let filter =
            Filter::parse(&json!({"year": {"$gte": 2000, "$lt": 2010}, "$not": {"a": true}})).unwrap();
        let Filter::All(parts) = filter else { panic!("{filter:?}") };
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        assert!(problem(&json!({"a": {"$like": "x"}})).contains("'$like' of field 'a'"));
        assert!(problem(&json!({"$xor": []})).contains("'$xor'"));
        assert!(problem(&json!({"a": null})).contains("field 'a'"));
        assert!(problem(&json!({"a": {"$gt": true}})).contains("number or a string"));
        assert!(problem(&json!({"a": {"$in": 1}})).contains("list"));
        assert!(problem(&json!({"$and": []})).contains("one condition or more"));
        assert!(problem(&json!(["a"])).contains("must be an object"));
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = (0..100).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
        assert!(problem(&nested).contains("deeper than 32"));
        let fits = (0..30).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
        assert!(Filter::parse(&fits).is_ok());
        let many: Vec<_> = (0..2000).collect();
        assert!(problem(&json!({"a": {"$in": many}})).contains("more than 1000"));
    }
}
