//! Simplification of filters: conditions that always or never match are folded into the conditions around them. A
//! simplified filter has no empty list of conditions inside, and no negation of a negation.

use super::{Comparison, Filter, Scalar};

impl Filter {
    /// Returns an equal filter without conditions that always or never match. If the whole filter is such a condition,
    /// returns [`Filter::always`] or [`Filter::never`].
    pub(crate) fn simplify(self) -> Self {
        match self {
            Self::And(parts) => match join(parts, &Self::never(), &Self::always()) {
                Joined::Other(parts) => Self::And(parts),
                Joined::One(part) => part,
            },
            Self::Or(parts) => match join(parts, &Self::always(), &Self::never()) {
                Joined::Other(parts) => Self::Or(parts),
                Joined::One(part) => part,
            },
            Self::Not(part) => match part.simplify() {
                part if part == Self::always() => Self::never(),
                part if part == Self::never() => Self::always(),
                Self::Not(part) => *part,
                part => Self::Not(Box::new(part)),
            },
            Self::In(_, values) if values.is_empty() => Self::never(),
            Self::Compare(_, comparison, bound) if is_unsatisfiable(comparison, &bound) => Self::never(),
            condition => condition,
        }
    }
}

enum Joined {
    One(Filter),
    Other(Vec<Filter>),
}

/// Simplifies the conditions of a list. `decisive` decides the whole list; `neutral` is dropped.
fn join(parts: Vec<Filter>, decisive: &Filter, neutral: &Filter) -> Joined {
    let mut joined = Vec::with_capacity(parts.len());
    for part in parts.into_iter().map(Filter::simplify) {
        if part == *decisive {
            return Joined::One(part);
        }
        if part != *neutral {
            joined.push(part);
        }
    }
    if joined.len() == 1 { Joined::One(joined.remove(0)) } else { Joined::Other(joined) }
}

/// Whether no value compares so with the bound: nothing is less than the least value or greater than the greatest.
fn is_unsatisfiable(comparison: Comparison, bound: &Scalar) -> bool {
    match (comparison, bound) {
        (Comparison::Less, Scalar::Text(text)) => text.is_empty(),
        (Comparison::Less, Scalar::Number(number)) => number.to_f64() == f64::MIN,
        (Comparison::Greater, Scalar::Number(number)) => number.to_f64() == f64::MAX,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn conditions_that_always_or_never_match_are_folded() {
        let parse = |value: &Value| Filter::parse(value).unwrap();
        let a = parse(&json!({"a": 1}));
        for (value, expected) in [
            (json!({}), Filter::always()),
            (json!({"$and": [{}]}), Filter::always()),
            (json!({"$and": [{}, {"$and": [{}]}]}), Filter::always()),
            (json!({"a": {"$nin": []}}), Filter::always()),
            (json!({"$not": {"a": {"$in": []}}}), Filter::always()),
            (json!({"$or": [{"a": 1}, {}]}), Filter::always()),
            (json!({"$not": {"$not": {}}}), Filter::always()),
            (json!({"$not": {"a": {"$lt": ""}}}), Filter::always()),
            (json!({"$not": {"a": {"$gt": f64::MAX}}}), Filter::always()),
            (json!({"$not": {}}), Filter::never()),
            (json!({"a": {"$in": []}}), Filter::never()),
            (json!({"$and": [{"a": 1}, {"b": {"$in": []}}]}), Filter::never()),
            (json!({"$or": [{"a": {"$in": []}}, {"$not": {}}]}), Filter::never()),
            (json!({"$or": [{"a": {"$in": []}}, {"$not": {"$not": {"a": 1}}}]}), a.clone()),
            (json!({"a": 1, "$and": [{}], "b": {"$nin": []}}), a),
        ] {
            assert_eq!(parse(&value), expected, "{value}");
        }
    }
}
