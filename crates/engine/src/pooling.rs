//! Pooling of token vectors into a text's vector, and normalization to unit length.

use crate::Pooling;

/// Pools one text's token vectors (`[tokens × out.len()]`) into `out`. A text without tokens gives zeros.
pub(crate) fn pool(pooling: Pooling, tokens: &[f32], out: &mut [f32]) {
    match pooling {
        Pooling::Cls | Pooling::LastToken if tokens.is_empty() => out.fill(0.0),
        Pooling::Cls => out.copy_from_slice(&tokens[..out.len()]),
        Pooling::LastToken => out.copy_from_slice(&tokens[tokens.len() - out.len()..]),
        Pooling::Mean => {
            out.fill(0.0);
            let rows = tokens.chunks_exact(out.len());
            let scale = 1.0 / rows.len().max(1) as f32;
            for row in rows {
                out.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            out.iter_mut().for_each(|sum| *sum *= scale);
        }
    }
}

/// Divides a vector by its Euclidean length. A zero vector stays zero.
pub fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_selects_mean_first_or_last() {
        let tokens = [1.0, 2.0, 3.0, 6.0];
        let mut out = [0.0; 2];
        pool(Pooling::Mean, &tokens, &mut out);
        assert_eq!(out, [2.0, 4.0]);
        pool(Pooling::Cls, &tokens, &mut out);
        assert_eq!(out, [1.0, 2.0]);
        pool(Pooling::LastToken, &tokens, &mut out);
        assert_eq!(out, [3.0, 6.0]);
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::LastToken] {
            pool(pooling, &[], &mut out);
            assert_eq!(out, [0.0, 0.0]);
        }
    }

    #[test]
    fn normalize_gives_unit_length_or_zero() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zero = [0.0; 3];
        normalize(&mut zero);
        assert_eq!(zero, [0.0; 3]);
        let mut large = [f32::MAX, 0.0];
        normalize(&mut large);
        assert_eq!(large, [1.0, 0.0]);
    }
}
