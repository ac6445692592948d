//! Compiles a filter to SQL over the metadata of documents. A comparison is two JSON paths, one for a value and one for the
//! elements of a list. A path compares values of the same type only, as the embedded store does with its table of
//! attributes. The index on metadata serves equality.
//!
//! The paths are strict, because a lax path also looks into lists in lists. Where a strict path does not fit the document,
//! its result is NULL, which is no match.

use serde_json::Value;
use tokio_postgres::types::ToSql;

use super::{connection::Parameters, metadata::number_text};
use crate::{Comparison, Filter, Scalar};

/// Parameters of a compiled filter: JSON paths.
#[derive(Default)]
pub(super) struct FilterParameters(Vec<String>);

impl FilterParameters {
    /// Returns all parameters of a statement: `before`, then those of the filter.
    pub(super) fn append_to<'a>(&'a self, mut before: Parameters<'a>) -> Parameters<'a> {
        before.extend(self.0.iter().map(|path| -> &(dyn ToSql + Sync) { path }));
        before
    }
}

/// Returns a condition on `d.metadata`. The parameters of the filter are numbered from `first`.
pub(super) fn compile(filter: &Filter, parameters: &mut FilterParameters, first: usize) -> String {
    let mut join = |parts: &[Filter], separator: &str, empty: &str| {
        let parts: Vec<_> = parts.iter().map(|part| compile(part, parameters, first)).collect();
        if parts.is_empty() { empty.to_owned() } else { format!("({})", parts.join(separator)) }
    };
    match filter {
        Filter::And(parts) => join(parts, " AND ", "true"),
        Filter::Or(parts) => join(parts, " OR ", "false"),
        Filter::Not(part) => format!("({}) IS NOT TRUE", compile(part, parameters, first)),
        Filter::In(_, scalars) if scalars.is_empty() => "false".into(),
        Filter::In(field, scalars) => {
            let literals = scalars.iter().flat_map(|scalar| [Some(literal(scalar)), earlier_literal(scalar)]);
            let tests: Vec<_> = literals.flatten().map(|literal| format!("@ == {literal}")).collect();
            path(field, &tests.join(" || "), parameters, first)
        }
        Filter::Compare(field, comparison, scalar) => {
            let operator = match comparison {
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
            };
            path(field, &format!("@ {operator} {}", literal(scalar)), parameters, first)
        }
    }
}

/// Returns a condition that `test` holds for the field or for an element of it.
fn path(field: &str, test: &str, parameters: &mut FilterParameters, first: usize) -> String {
    // JSON strings and numbers are valid in a path, and JSON escapes quotes, so a value cannot end its string.
    let field = Value::from(field);
    let conditions = ["", "[*]"].map(|elements| {
        parameters.0.push(format!("strict $.{field}{elements} ? ({test})"));
        format!("d.metadata @? ${}::text::jsonpath", first + parameters.0.len() - 1)
    });
    format!("({})", conditions.join(" OR "))
}

fn literal(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Text(text) => Value::from(text.as_str()).to_string(),
        Scalar::Number(number) => match number.as_integer() {
            Some(integer) => integer.to_string(),
            None => number_text(number.to_f64()),
        },
        Scalar::Bool(on) => on.to_string(),
    }
}

/// The other decimal form of a large float: earlier versions stored the shortest form. No integer of metadata is as large.
fn earlier_literal(scalar: &Scalar) -> Option<String> {
    match scalar {
        Scalar::Number(number) if number.as_integer().is_none() => {
            Some(Value::from(number.to_f64()).to_string()).filter(|shortest| *shortest != literal(scalar))
        }
        _ => None,
    }
}
