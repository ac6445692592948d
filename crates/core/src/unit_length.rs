//! The Euclidean length of vectors, scaling to length 1, and vectors without a direction. Sums are in f64, in the order of
//! the components, so that every crate gets the same bits.

/// The square of a vector's Euclidean length.
///
/// ```
/// # use embeddery_core::squared_length;
/// assert_eq!(squared_length(&[3.0, 4.0]), 25.0);
/// ```
pub fn squared_length(vector: &[f32]) -> f64 {
    vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum()
}

/// What makes a vector useless for comparisons; `None` for a usable vector. Every vector that is returned, cached, stored or
/// searched for is checked by this.
///
/// ```
/// # use embeddery_core::vector_defect;
/// assert_eq!(vector_defect(&[0.6, 0.8]), None);
/// assert_eq!(vector_defect(&[0.0, -0.0]), Some("is all zeros, which has no direction to compare"));
/// assert_eq!(vector_defect(&[1.0, f32::NAN]), Some("has a number that is not finite"));
/// ```
pub fn vector_defect(vector: &[f32]) -> Option<&'static str> {
    if !vector.iter().all(|x| x.is_finite()) {
        return Some("has a number that is not finite");
    }
    vector.iter().all(|x| *x == 0.0).then_some("is all zeros, which has no direction to compare")
}

/// Divides a vector by its Euclidean length. A zero vector stays as it is.
///
/// ```
/// # use embeddery_core::to_unit_length;
/// let mut vector = [3.0, 4.0];
/// to_unit_length(&mut vector);
/// assert_eq!(vector, [0.6, 0.8]);
/// ```
pub fn to_unit_length(vector: &mut [f32]) {
    let length = squared_length(vector).sqrt();
    if length > 0.0 {
        for x in vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
}

/// Scales a vector to length 1 if the square of its length is too small or too large for exact arithmetic in f32. Other
/// vectors keep their bits.
///
/// ```
/// # use embeddery_core::to_comparable_length;
/// let (mut tiny, mut ordinary) = ([0.0, 1e-40], [3.0, 4.0]);
/// to_comparable_length(&mut tiny);
/// to_comparable_length(&mut ordinary);
/// assert_eq!((tiny, ordinary), ([0.0, 1.0], [3.0, 4.0]));
/// ```
pub fn to_comparable_length(vector: &mut [f32]) {
    if !(1e-20..=1e30).contains(&squared_length(vector)) {
        to_unit_length(vector);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_stays_and_large_components_do_not_overflow() {
        let mut zero = [0.0; 3];
        to_unit_length(&mut zero);
        assert_eq!(zero, [0.0; 3]);
        let mut large = [f32::MAX, 0.0];
        to_unit_length(&mut large);
        assert_eq!(large, [1.0, 0.0]);
    }
}
