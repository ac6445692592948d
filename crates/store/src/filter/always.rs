//! Whether a filter is true for every document, for example `{"$or": [{"a": 1}, {"a": {"$ne": 1}}]}`.
//!
//! A filter is a formula over tests such as "the field has a value above 5". The search tries the truth values of the
//! tests one after the other, with what follows from them: a value above 5 is also above 3. The filter is always true if
//! the formula is true at every end.

use std::mem::discriminant;

use super::{Comparison, Filter, Scalar};

/// Maximum number of partial assignments that are tried.
const MAX_STEPS: usize = 4096;

#[derive(Clone, Copy)]
enum Relation {
    Equal,
    Greater,
    Less,
}

/// A filter over tests. A test is a relation to a compared value, and its index is `3 * value + relation`.
enum Formula {
    Test(usize),
    Not(Box<Formula>),
    And(Vec<Formula>),
    Or(Vec<Formula>),
}

pub(super) fn is_always_true(filter: &Filter) -> bool {
    let mut compared = Vec::new();
    collect(filter, &mut compared);
    compared.sort_unstable();
    compared.dedup();
    let formula = formula(filter, &compared);
    Search { truths: vec![None; 3 * compared.len()], compared }.finds_no_exception(&formula)
}

/// A field and a value that the filter compares with its values.
type Compared<'f> = (&'f str, &'f Scalar);

fn collect<'f>(filter: &'f Filter, compared: &mut Vec<Compared<'f>>) {
    match filter {
        Filter::And(parts) | Filter::Or(parts) => parts.iter().for_each(|part| collect(part, compared)),
        Filter::Not(part) => collect(part, compared),
        Filter::In(field, values) => compared.extend(values.iter().map(|value| (field.as_str(), value))),
        Filter::Compare(field, _, value) => compared.push((field, value)),
    }
}

fn formula(filter: &Filter, compared: &[Compared<'_>]) -> Formula {
    let test = |field: &str, relation: Relation, value: &Scalar| {
        // Every value is among the compared ones.
        let index = compared.binary_search(&(field, value)).unwrap_or_default();
        Formula::Test(3 * index + relation as usize)
    };
    let formulas = |parts: &[Filter]| parts.iter().map(|part| formula(part, compared)).collect();
    match filter {
        Filter::And(parts) => Formula::And(formulas(parts)),
        Filter::Or(parts) => Formula::Or(formulas(parts)),
        Filter::Not(part) => Formula::Not(Box::new(formula(part, compared))),
        Filter::In(field, values) => {
            Formula::Or(values.iter().map(|value| test(field, Relation::Equal, value)).collect())
        }
        Filter::Compare(field, comparison, value) => {
            let (relation, or_equal) = match comparison {
                Comparison::Greater => (Relation::Greater, false),
                Comparison::GreaterOrEqual => (Relation::Greater, true),
                Comparison::Less => (Relation::Less, false),
                Comparison::LessOrEqual => (Relation::Less, true),
            };
            let equal = or_equal.then(|| test(field, Relation::Equal, value));
            Formula::Or([test(field, relation, value)].into_iter().chain(equal).collect())
        }
    }
}

struct Search<'f> {
    /// In ascending order, so that values are compared by their indexes.
    compared: Vec<Compared<'f>>,
    /// The truth values of the tests that are assumed.
    truths: Vec<Option<bool>>,
}

impl Search<'_> {
    /// Whether no combination of truth values makes the formula false.
    fn finds_no_exception(mut self, formula: &Formula) -> bool {
        // The tests that are assumed to be false, each with the truth values before it.
        let mut assumed: Vec<(usize, Vec<Option<bool>>)> = Vec::new();
        for _ in 0..MAX_STEPS {
            match self.evaluate(formula) {
                Evaluated::Known(false) => return false,
                Evaluated::Known(true) => {
                    let Some((test, before)) = assumed.pop() else { return true };
                    self.truths = before;
                    self.assume(test, true);
                }
                // A document without the field is tried first, because most filters do not match it.
                Evaluated::Open(test) => {
                    assumed.push((test, self.truths.clone()));
                    self.assume(test, false);
                }
            }
        }
        false
    }

    /// Assumes the truth value of a test, and what follows from it.
    fn assume(&mut self, test: usize, value: bool) {
        for other in 0..self.truths.len() {
            let follows = if value { self.implies(test, other) } else { self.implies(other, test) };
            if follows {
                self.truths[other] = Some(value);
            }
        }
    }

    /// Whether a document that passes the first test passes the second, too.
    fn implies(&self, first: usize, second: usize) -> bool {
        const EQUAL: usize = Relation::Equal as usize;
        const GREATER: usize = Relation::Greater as usize;
        const LESS: usize = Relation::Less as usize;
        let (a, b) = (first / 3, second / 3);
        let ordered = match (first % 3, second % 3) {
            (EQUAL, EQUAL) => a == b,
            (EQUAL, GREATER) => a > b,
            (EQUAL, LESS) => a < b,
            (GREATER, GREATER) => a >= b,
            (LESS, LESS) => a <= b,
            _ => false,
        };
        let ((field, value), (other_field, other_value)) = (self.compared[a], self.compared[b]);
        ordered && discriminant(value) == discriminant(other_value) && field == other_field
    }

    /// Returns the value of a formula, or a test without a value that it depends on.
    fn evaluate(&self, formula: &Formula) -> Evaluated {
        // A part with the value `decisive` decides the list.
        let list = |parts: &[Formula], decisive: bool| {
            let mut open = None;
            for part in parts {
                match self.evaluate(part) {
                    Evaluated::Known(value) if value == decisive => return Evaluated::Known(decisive),
                    Evaluated::Known(_) => {}
                    Evaluated::Open(test) => open = open.or(Some(test)),
                }
            }
            open.map_or(Evaluated::Known(!decisive), Evaluated::Open)
        };
        match formula {
            Formula::Test(test) => self.truths[*test].map_or(Evaluated::Open(*test), Evaluated::Known),
            Formula::Not(part) => match self.evaluate(part) {
                Evaluated::Known(value) => Evaluated::Known(!value),
                open @ Evaluated::Open(_) => open,
            },
            Formula::And(parts) => list(parts, false),
            Formula::Or(parts) => list(parts, true),
        }
    }
}

enum Evaluated {
    Known(bool),
    /// This test has no value yet.
    Open(usize),
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn is_always_true(value: &Value) -> bool {
        Filter::parse(value).unwrap().matches_every_document()
    }

    #[test]
    fn a_filter_that_every_document_matches_is_found() {
        for always in [
            json!({}),
            json!({"$or": [{"a": 1}, {"$not": {"a": 1}}]}),
            json!({"$or": [{"a": 1}, {"a": {"$ne": 1}}]}),
            json!({"$or": [{"a": {"$in": [1, 2]}}, {"a": {"$nin": [2]}}]}),
            json!({"$or": [{"a": 1}, {"a": 2}, {"a": {"$nin": [1, 2.0]}}]}),
            json!({"$or": [{"a": {"$gt": 3}}, {"$not": {"a": {"$gt": 5}}}]}),
            json!({"$or": [{"a": {"$gte": 5}}, {"$not": {"a": {"$gt": 5}}}]}),
            json!({"$or": [{"a": {"$lte": "x"}}, {"$not": {"a": "w"}}]}),
            json!({"$not": {"$and": [{"a": {"$gt": 3}}, {"$not": {"a": {"$gte": 3}}}]}}),
            json!({"$not": {"a": 1, "$not": {"a": 1}}}),
            json!({"$or": [{"a": 1, "b": 2}, {"a": {"$ne": 1}}, {"b": {"$ne": 2}}]}),
            json!({"$and": [{"$or": [{"a": 1}, {"a": {"$ne": 1}}]}, {"b": {"$nin": []}}]}),
        ] {
            assert!(is_always_true(&always), "{always}");
        }
    }

    #[test]
    fn a_filter_that_some_document_does_not_match_is_not_taken_for_one() {
        for sometimes in [
            json!({"a": 1}),
            json!({"a": {"$ne": 1}}),
            json!({"a": {"$in": []}}),
            // A list may have both values, and a document may have neither.
            json!({"$or": [{"a": {"$lt": 5}}, {"a": {"$gte": 5}}]}),
            json!({"$or": [{"a": true}, {"a": false}]}),
            json!({"$or": [{"a": {"$gt": 5}}, {"$not": {"a": {"$gt": 3}}}]}),
            json!({"$or": [{"a": 1}, {"a": {"$ne": "1"}}, {"b": 2}]}),
            json!({"$or": [{"a": {"$in": [1, 2]}}, {"a": {"$nin": [2, 3]}}]}),
            json!({"$and": (0..490).map(|i| json!({"a": {"$ne": i}})).collect::<Vec<_>>()}),
            json!({"a": {"$nin": (0..990).collect::<Vec<_>>()}}),
            json!({"$or": [{"a": {"$in": (0..490).collect::<Vec<_>>()}}, {"b": {"$nin": (0..490).collect::<Vec<_>>()}}]}),
        ] {
            assert!(!is_always_true(&sometimes), "{sometimes}");
        }
    }
}
