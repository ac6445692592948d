//! Kernels of the scan, chosen at run time by the features of the processor. All kernels sum integers, so their scores
//! are equal to the last bit. The tests compare each kernel with the portable one.

use super::quantised::{CacheLine, LINE_BYTES, QuantisedQuery};

/// Consecutive rows.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Codes of the rows.
    pub(super) lines: &'a [CacheLine],
    /// Scales of the rows.
    pub(super) scales: &'a [f32],
}

/// Implementation of the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Runs on any processor.
    Portable,
    /// AVX2: 32 numbers at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 VNNI: 64 numbers at a time, multiplied and added in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Kernel {
    /// Returns the fastest kernel that this processor runs.
    pub(crate) fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// Returns all kernels that this processor runs, the fastest last.
    pub(crate) fn available() -> Vec<Self> {
        let mut kernels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                kernels.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                kernels.push(Self::Avx512Vnni);
            }
        }
        kernels
    }

    /// Writes the score of each row to `scores`.
    pub(super) fn score(self, query: &QuantisedQuery, rows: Rows<'_>, scores: &mut [f32]) {
        let Rows { lines, scales } = rows;
        let width = query.coarse.len();
        // Every kernel reads `width` lines per score without bounds checks; these checks keep it inside the slices.
        assert!(lines.len() == width * scores.len() && scales.len() == scores.len());
        assert!(query.fine.len() == width);
        match self {
            Self::Portable => portable(query, lines, scales, scores),
            // SAFETY: a `Kernel` other than `Portable` comes from `available`, which has checked that the processor
            // has these features; the lengths are checked above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::avx2(query, lines, scales, scores) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => unsafe { x86::avx512_vnni(query, lines, scales, scores) },
        }
    }
}

fn portable(query: &QuantisedQuery, lines: &[CacheLine], scales: &[f32], scores: &mut [f32]) {
    let width = query.coarse.len();
    for (row, score) in scores.iter_mut().enumerate() {
        let lines = &lines[row * width..(row + 1) * width];
        *score = query.score(dot(lines, &query.coarse), dot(lines, &query.fine), scales[row]);
    }
}

fn dot(a: &[CacheLine], b: &[CacheLine]) -> i32 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (0..LINE_BYTES).map(|i| i32::from(a.0[i]) * i32::from(b.0[i])).sum::<i32>())
        .sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_shuffle_epi32, _mm256_add_epi32,
        _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_setzero_si256, _mm512_dpbusd_epi32, _mm512_load_si512,
        _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_setzero_si512, _mm512_xor_si512,
    };

    use super::{CacheLine, QuantisedQuery};

    /// Rows that are summed in parallel, to hide the latency of the additions.
    const ROWS: usize = 4;

    /// # Safety
    /// The processor has AVX-512 F, BW and VNNI; `lines` holds `scores.len()` rows of `query.coarse.len()` lines,
    /// `query.fine` is as long as `query.coarse`, `scales` as `scores`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn avx512_vnni(
        query: &QuantisedQuery,
        lines: &[CacheLine],
        scales: &[f32],
        scores: &mut [f32],
    ) {
        let width = query.coarse.len();
        // The instruction multiplies unsigned by signed bytes, so 128 is added to each code of a row. This makes each
        // sum too large by 128 times the sum of the query's codes.
        let shift = _mm512_set1_epi8(-128);
        let load = |line: &CacheLine| -> __m512i {
            // SAFETY: a line is 64 bytes, aligned to 64.
            unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
        };
        let excess = query.sums.map(|sum| sum * 128);
        let full = scores.len() / ROWS * ROWS;
        for first in (0..full).step_by(ROWS) {
            let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
            for line in 0..width {
                let (coarse, fine) = (load(&query.coarse[line]), load(&query.fine[line]));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let codes = _mm512_xor_si512(load(&lines[(first + row) * width + line]), shift);
                    sums[0] = _mm512_dpbusd_epi32(sums[0], codes, coarse);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], codes, fine);
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let coarse = _mm512_reduce_add_epi32(sums[0]) - excess[0];
                let fine = _mm512_reduce_add_epi32(sums[1]) - excess[1];
                scores[first + row] = query.score(coarse, fine, scales[first + row]);
            }
        }
        for row in full..scores.len() {
            let mut sums = [_mm512_setzero_si512(); 2];
            for line in 0..width {
                let codes = _mm512_xor_si512(load(&lines[row * width + line]), shift);
                sums[0] = _mm512_dpbusd_epi32(sums[0], codes, load(&query.coarse[line]));
                sums[1] = _mm512_dpbusd_epi32(sums[1], codes, load(&query.fine[line]));
            }
            let coarse = _mm512_reduce_add_epi32(sums[0]) - excess[0];
            let fine = _mm512_reduce_add_epi32(sums[1]) - excess[1];
            scores[row] = query.score(coarse, fine, scales[row]);
        }
    }

    /// # Safety
    /// The processor has AVX2; the lengths are those of [`avx512_vnni`].
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(
        query: &QuantisedQuery,
        lines: &[CacheLine],
        scales: &[f32],
        scores: &mut [f32],
    ) {
        let width = query.coarse.len();
        // A line fills two registers of bytes; each is widened to two registers of 16-bit numbers.
        let load = |line: &CacheLine, half: usize| -> [__m256i; 2] {
            // SAFETY: a line is 64 bytes, `half` is 0 or 1; the load needs no alignment.
            let bytes = unsafe { _mm256_loadu_si256(line.0.as_ptr().add(half * 32).cast()) };
            [
                _mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes)),
                _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(bytes)),
            ]
        };
        for (row, score) in scores.iter_mut().enumerate() {
            let mut sums = [_mm256_setzero_si256(); 2];
            for line in 0..width {
                for half in 0..2 {
                    let codes = load(&lines[row * width + line], half);
                    for (sum, part) in sums.iter_mut().zip([&query.coarse, &query.fine]) {
                        let part = load(&part[line], half);
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(codes[0], part[0]));
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(codes[1], part[1]));
                    }
                }
            }
            *score = query.score(horizontal_sum(sums[0]), horizontal_sum(sums[1]), scales[row]);
        }
    }

    #[target_feature(enable = "avx2")]
    fn horizontal_sum(register: __m256i) -> i32 {
        let four = _mm_add_epi32(_mm256_castsi256_si128(register), _mm256_extracti128_si256::<1>(register));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }
}
