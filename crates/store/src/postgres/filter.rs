//! A filter as SQL over documents' metadata. A comparison is a JSON path, which takes a list's elements one by one
//! and compares values of one type only: what the embedded store does with its table of attributes. Equality is
//! answered by the index on metadata.

use serde_json::Value;
use tokio_postgres::types::ToSql;

use super::connection::Parameters;
use crate::{Filter, Order, Scalar};

/// The parameters of a compiled filter: JSON paths.
#[derive(Default)]
pub(super) struct Values(Vec<String>);

impl Values {
    /// All parameters of a statement that has others before the filter's.
    pub(super) fn after<'a>(&'a self, mut before: Parameters<'a>) -> Parameters<'a> {
        before.extend(self.0.iter().map(|path| -> &(dyn ToSql + Sync) { path }));
        before
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
            let tests: Vec<_> = scalars.iter().map(|scalar| format!("@ == {}", json(scalar))).collect();
            path(field, &tests.join(" || "), (values, first))
        }
        Filter::Compare(field, order, scalar) => {
            let operator = match order {
                Order::Above => ">",
                Order::AtLeast => ">=",
                Order::Below => "<",
                Order::AtMost => "<=",
            };
            path(field, &format!("@ {operator} {}", json(scalar)), (values, first))
        }
    }
}

fn path(field: &str, test: &str, (values, first): (&mut Values, usize)) -> String {
    // A JSON string is a path's string, too, and so are numbers; nothing in them can end the quotes.
    values.0.push(format!("$.{}[*] ? ({test})", Value::from(field)));
    format!("d.metadata @? ${}::text::jsonpath", first + values.0.len() - 1)
}

fn json(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Text(text) => text.as_str().into(),
        Scalar::Number(number) => (*number).into(),
        Scalar::Bool(on) => (*on).into(),
    }
}
