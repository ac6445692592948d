//! The vectors of the fake vendors. They have unit length and are a function of the text alone.

/// The vector of a text. A vector of fewer dimensions is the normalized prefix of a longer one, as in Matryoshka models.
pub fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    // FNV-1a of the text is the seed of SplitMix64.
    let mut state = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let raw: Vec<f32> = (0..dimensions)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect();
    let norm = raw.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    raw.into_iter().map(|x| (f64::from(x) / norm) as f32).collect()
}

/// The text that stands for token ids: requests are recorded with it, and it determines their vector.
pub fn token_text(ids: &[u64]) -> String {
    format!("tokens {ids:?}")
}
