//! Compiles a filter to SQL over the table `attributes`. Values are always passed as parameters.

use rusqlite::types::Value as Sql;

use crate::{Comparison, Filter, Scalar, number::Number};

/// Returns the key and the value of `attributes` for a field. The first letter of the key is the type of the value.
pub(super) fn attribute(field: &str, scalar: Scalar) -> (String, Sql) {
    match scalar {
        Scalar::Text(text) => (format!("s{field}"), Sql::Text(text)),
        Scalar::Number(number) => (format!("n{field}"), number_value(number)),
        Scalar::Bool(on) => (format!("b{field}"), Sql::Integer(on.into())),
    }
}

/// Returns a value of SQLite that has the same order and the same equality as the number. SQLite compares integers of
/// 64 bits and floats exactly, and both come before texts. A number above these integers is therefore a text of its
/// decimal digits, with their count before them, so that a longer number is higher.
fn number_value(number: Number) -> Sql {
    let text = |digits: String| Sql::Text(format!("{:03}{digits}", digits.len()));
    match number.as_integer() {
        Some(integer) => i64::try_from(integer).map_or_else(|_| text(integer.to_string()), Sql::Integer),
        // A float of this size is whole.
        None if number.to_f64() > i64::MAX as f64 => text(format!("{:.0}", number.to_f64())),
        None => Sql::Real(number.to_f64()),
    }
}

/// Returns a condition on `d`, a document of the collection, and its parameters. The first parameter is the id of the
/// collection.
pub(super) fn compile(filter: &Filter, collection: i64) -> (String, Vec<Sql>) {
    // The plus keeps SQLite from scanning all documents of the collection when an index finds those that match.
    let in_collection =
        if is_indexable(filter) { "+d.collection = ?1 AND " } else { "d.collection = ?1 AND " };
    let mut compiler = Compiler { sql: in_collection.to_owned(), values: vec![Sql::Integer(collection)] };
    compiler.filter(filter);
    (compiler.sql, compiler.values)
}

/// Returns a query for the ids of the collection's documents that match, and its parameters.
pub(super) fn documents(filter: &Filter, collection: i64) -> (String, Vec<Sql>) {
    // A single comparison is one index scan that needs no row of `documents`.
    let single = match filter {
        Filter::In(field, scalars) if scalars.len() == 1 => Some((field, "=", &scalars[0])),
        Filter::Compare(field, comparison, scalar) => Some((field, operator(*comparison), scalar)),
        _ => None,
    };
    if let Some((field, operator, scalar)) = single {
        let (key, value) = attribute(field, scalar.clone());
        let sql = format!(
            "SELECT document FROM attributes WHERE collection = ?1 AND key = ?2 AND value {operator} ?3"
        );
        return (sql, vec![Sql::Integer(collection), Sql::Text(key), value]);
    }
    let (condition, values) = compile(filter, collection);
    (format!("SELECT d.id FROM documents d WHERE {condition}"), values)
}

fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
    }
}

/// Whether index lookups find the documents that match. A negation needs all documents of the collection.
fn is_indexable(filter: &Filter) -> bool {
    match filter {
        Filter::And(parts) => parts.iter().any(is_indexable),
        Filter::Or(parts) => parts.iter().all(is_indexable),
        Filter::Not(_) => false,
        Filter::In(..) | Filter::Compare(..) => true,
    }
}

struct Compiler {
    sql: String,
    values: Vec<Sql>,
}

impl Compiler {
    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::And(parts) => self.join(parts, " AND ", "1"),
            Filter::Or(parts) => self.join(parts, " OR ", "0"),
            Filter::Not(part) => {
                self.sql.push_str("NOT ");
                self.filter(part);
            }
            Filter::In(field, scalars) => {
                // Values of one type share a key and are found by one index lookup.
                let mut by_key: Vec<(String, Vec<Sql>)> = Vec::new();
                for scalar in scalars {
                    let (key, value) = attribute(field, scalar.clone());
                    match by_key.iter_mut().find(|(other, _)| *other == key) {
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
            Filter::Compare(field, comparison, scalar) => {
                let (key, value) = attribute(field, scalar.clone());
                let (key, value) = (self.parameter(Sql::Text(key)), self.parameter(value));
                self.lookup(&key, &format!("{} {value}", operator(*comparison)));
            }
        }
    }

    /// Joins conditions as a balanced tree, because SQLite limits the depth of an expression.
    fn join(&mut self, parts: &[Filter], separator: &str, empty: &str) {
        match parts {
            [] => self.sql.push_str(empty),
            [part] => self.filter(part),
            parts => {
                let (left, right) = parts.split_at(parts.len() / 2);
                self.sql.push('(');
                self.join(left, separator, empty);
                self.sql.push_str(separator);
                self.join(right, separator, empty);
                self.sql.push(')');
            }
        }
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
