//! A filter as SQL over the table `attributes`. Values are always parameters.

use rusqlite::types::Value as Sql;

use crate::{Filter, Order, Scalar};

/// A key and a value as they stand in `attributes`.
pub(super) fn attribute(field: &str, scalar: Scalar) -> (String, Sql) {
    match scalar {
        Scalar::Text(text) => (format!("s{field}"), Sql::Text(text)),
        // One zero, as numbers compare.
        Scalar::Number(number) => (format!("n{field}"), Sql::Real(number + 0.0)),
        Scalar::Bool(on) => (format!("b{field}"), Sql::Integer(on.into())),
    }
}

/// A condition on `d`, a document of the collection, and its parameters; the first is the collection's number.
pub(super) fn compile(filter: &Filter, collection: i64) -> (String, Vec<Sql>) {
    // The plus keeps SQLite from walking all documents of the collection where the filter itself leads to the few.
    let own = if narrows(filter) { "+d.collection = ?1 AND " } else { "d.collection = ?1 AND " };
    let mut compiler = Compiler { sql: own.to_owned(), values: vec![Sql::Integer(collection)] };
    compiler.filter(filter);
    (compiler.sql, compiler.values)
}

/// A query for the numbers of the collection's documents that fit.
pub(super) fn documents(filter: &Filter, collection: i64) -> (String, Vec<Sql>) {
    // One comparison is one walk along the index, without a look at the documents themselves.
    let one = match filter {
        Filter::Among(field, scalars) if scalars.len() == 1 => Some((field, "=", &scalars[0])),
        Filter::Compare(field, order, scalar) => Some((field, operator(*order), scalar)),
        _ => None,
    };
    if let Some((field, operator, scalar)) = one {
        let (key, value) = attribute(field, scalar.clone());
        let sql = format!(
            "SELECT document FROM attributes WHERE collection = ?1 AND key = ?2 AND value {operator} ?3"
        );
        return (sql, vec![Sql::Integer(collection), Sql::Text(key), value]);
    }
    let (condition, values) = compile(filter, collection);
    (format!("SELECT d.id FROM documents d WHERE {condition}"), values)
}

fn operator(order: Order) -> &'static str {
    match order {
        Order::Above => ">",
        Order::AtLeast => ">=",
        Order::Below => "<",
        Order::AtMost => "<=",
    }
}

/// Whether what fits can be looked up, instead of being what is left over.
fn narrows(filter: &Filter) -> bool {
    match filter {
        Filter::All(parts) => parts.iter().any(narrows),
        Filter::Any(parts) => parts.iter().all(narrows),
        Filter::Not(_) => false,
        Filter::Among(..) | Filter::Compare(..) => true,
    }
}

struct Compiler {
    sql: String,
    values: Vec<Sql>,
}

impl Compiler {
    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::All(parts) => self.joined(parts, " AND ", "1"),
            Filter::Any(parts) => self.joined(parts, " OR ", "0"),
            Filter::Not(part) => {
                self.sql.push_str("NOT ");
                self.filter(part);
            }
            Filter::Among(field, scalars) => {
                // Values of one type share a key, and an index lookup.
                let mut by_key: Vec<(String, Vec<Sql>)> = Vec::new();
                for scalar in scalars {
                    let (key, value) = attribute(field, scalar.clone());
                    match by_key.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, values)) => values.push(value),
                        None => by_key.push((key, vec![value])),
                    }
                }
                if by_key.is_empty() {
                    self.sql.push('0');
                    return;
                }
                self.sql.push('(');
                for (index, (key, values)) in by_key.into_iter().enumerate() {
                    self.sql.push_str(if index > 0 { " OR " } else { "" });
                    let key = self.parameter(Sql::Text(key));
                    let values: Vec<_> = values.into_iter().map(|value| self.parameter(value)).collect();
                    self.lookup(&key, &format!("IN ({})", values.join(", ")));
                }
                self.sql.push(')');
            }
            Filter::Compare(field, order, scalar) => {
                let (key, value) = attribute(field, scalar.clone());
                let (key, value) = (self.parameter(Sql::Text(key)), self.parameter(value));
                self.lookup(&key, &format!("{} {value}", operator(*order)));
            }
        }
    }

    fn joined(&mut self, parts: &[Filter], word: &str, empty: &str) {
        if parts.is_empty() {
            self.sql.push_str(empty);
            return;
        }
        self.sql.push('(');
        for (index, part) in parts.iter().enumerate() {
            self.sql.push_str(if index > 0 { word } else { "" });
            self.filter(part);
        }
        self.sql.push(')');
    }

    fn lookup(&mut self, key: &str, condition: &str) {
        self.sql.push_str(&format!(
            "d.id IN (SELECT document FROM attributes WHERE collection = ?1 AND key = {key} AND value {condition})"
        ));
    }

    fn parameter(&mut self, value: Sql) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }
}
