//! A filter as SQL over documents' metadata. A comparison is a JSON path, which takes a list's elements one by one
//! and compares values of one type only: what the embedded store does with its table of attributes.

use serde_json::{Value, json};
use tokio_postgres::types::ToSql;

use super::connection::Parameters;
use crate::{Filter, Order, Scalar};

/// The parameters of a compiled filter.
#[derive(Default)]
pub(super) struct Values {
    paths: Vec<String>,
    variables: Vec<Value>,
    /// Which of the two comes next, in the order of the numbers in the SQL.
    order: Vec<(bool, usize)>,
}

impl Values {
    /// All parameters of a statement that has others before the filter's.
    pub(super) fn after<'a>(&'a self, mut before: Parameters<'a>) -> Parameters<'a> {
        before.extend(self.order.iter().map(|&(is_path, index)| {
            let value: &(dyn ToSql + Sync) =
                if is_path { &self.paths[index] } else { &self.variables[index] };
            value
        }));
        before
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

/// A condition on `d.metadata`, whose parameters are numbered from `first`.
pub(super) fn compile(filter: &Filter, values: &mut Values, first: usize) -> String {
    let mut joined = |parts: &[Filter], word: &str, empty: &str| {
        let parts: Vec<_> = parts.iter().map(|part| compile(part, values, first)).collect();
        if parts.is_empty() { empty.to_owned() } else { format!("({})", parts.join(word)) }
    };
    match filter {
        Filter::All(parts) => joined(parts, " AND ", "true"),
        Filter::Any(parts) => joined(parts, " OR ", "false"),
        Filter::Not(part) => format!("NOT {}", compile(part, values, first)),
        Filter::Among(_, scalars) if scalars.is_empty() => "false".into(),
        Filter::Among(field, scalars) => {
            let tests: Vec<_> = (0..scalars.len()).map(|index| format!("@ == $v{index}")).collect();
            let variables =
                scalars.iter().enumerate().map(|(index, scalar)| (format!("v{index}"), json(scalar)));
            path(field, &tests.join(" || "), Value::Object(variables.collect()), (values, first))
        }
        Filter::Compare(field, order, scalar) => {
            let operator = match order {
                Order::Above => ">",
                Order::AtLeast => ">=",
                Order::Below => "<",
                Order::AtMost => "<=",
            };
            path(field, &format!("@ {operator} $v0"), json!({"v0": json(scalar)}), (values, first))
        }
    }
}

fn path(field: &str, test: &str, variables: Value, (values, first): (&mut Values, usize)) -> String {
    let number = first + values.len();
    // A JSON string is a path's string, too.
    values.paths.push(format!("$.{}[*] ? ({test})", Value::from(field)));
    values.order.push((true, values.paths.len() - 1));
    values.variables.push(variables);
    values.order.push((false, values.variables.len() - 1));
    format!("jsonb_path_exists(d.metadata, ${number}::text::jsonpath, ${}::jsonb, true)", number + 1)
}

fn json(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Text(text) => text.as_str().into(),
        Scalar::Number(number) => (*number).into(),
        Scalar::Bool(on) => (*on).into(),
    }
}
