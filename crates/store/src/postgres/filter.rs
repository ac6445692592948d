//! Compiles a filter to SQL over the metadata of documents. A comparison is a JSON path, which tests the elements of a
//! list one by one and compares values of the same type only, as the embedded store does with its table of attributes.
//! The index on metadata serves equality.

use serde_json::Value;
use tokio_postgres::types::ToSql;

use super::connection::Parameters;
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
        Filter::Not(part) => format!("NOT {}", compile(part, parameters, first)),
        Filter::In(_, scalars) if scalars.is_empty() => "false".into(),
        Filter::In(field, scalars) => {
            let tests: Vec<_> = scalars.iter().map(|scalar| format!("@ == {}", json(scalar))).collect();
            path(field, &tests.join(" || "), parameters, first)
        }
        Filter::Compare(field, comparison, scalar) => {
            let operator = match comparison {
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
            };
            path(field, &format!("@ {operator} {}", json(scalar)), parameters, first)
        }
    }
}

/// Returns a condition that `test` holds for the field or for an element of it.
fn path(field: &str, test: &str, parameters: &mut FilterParameters, first: usize) -> String {
    // JSON strings and numbers are valid in a path, and JSON escapes quotes, so a value cannot end its string.
    parameters.0.push(format!("$.{}[*] ? ({test})", Value::from(field)));
    format!("d.metadata @? ${}::text::jsonpath", first + parameters.0.len() - 1)
}

fn json(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Text(text) => text.as_str().into(),
        Scalar::Number(number) => (*number).into(),
        Scalar::Bool(on) => (*on).into(),
    }
}
