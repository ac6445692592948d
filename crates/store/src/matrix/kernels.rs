//! The machine code of the scan, chosen when the program runs. All kernels add whole numbers, so all give the
//! same score to the last bit; the tests compare them with the plain one.

use super::quantised::{CacheLine, LINE, QuantisedQuery};

/// Rows that lie end to end.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Their codes.
    pub(super) lines: &'a [CacheLine],
    /// One scale a row.
    pub(super) scales: &'a [f32],
}

/// Which machine code scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// For any processor.
    Portable,
    /// 32 numbers at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 64 numbers at a time, multiplied and added in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Kernel {
    /// The best this processor runs.
    pub(crate) fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// All this processor runs, the best last.
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

    /// Scores rows, one score each.
    pub(super) fn score(self, query: &QuantisedQuery, rows: Rows<'_>, scores: &mut [f32]) {
        let Rows { lines, scales } = rows;
        let width = query.coarse.len();
        // Every kernel walks `width` lines for each score; this is what makes that stay inside.
        assert!(lines.len() == width * scores.len() && scales.len() == scores.len());
        assert!(query.fine.len() == width);
        match self {
            Self::Portable => portable(query, lines, scales, scores),
            // SAFETY: a `Kernel` other than `Portable` comes from `available`, which has asked the processor
            // for these features; the lengths are checked above.
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
    a.iter().zip(b).map(|(a, b)| (0..LINE).map(|i| i32::from(a.0[i]) * i32::from(b.0[i])).sum::<i32>()).sum()
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

    /// Rows that go through the processor side by side, so that one's addition hides another's.
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
        // The instruction multiplies unsigned by signed bytes: rows are read with 128 added, which makes each
        // product too large by 128 times the sum of the query's codes.
        let shift = _mm512_set1_epi8(-128);
        let load = |line: &CacheLine| -> __m512i {
            // SAFETY: a line is 64 bytes, aligned to 64.
            unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
        };
        let take_back = query.sums.map(|sum| sum * 128);
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
                let coarse = _mm512_reduce_add_epi32(sums[0]) - take_back[0];
                let fine = _mm512_reduce_add_epi32(sums[1]) - take_back[1];
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
            let coarse = _mm512_reduce_add_epi32(sums[0]) - take_back[0];
            let fine = _mm512_reduce_add_epi32(sums[1]) - take_back[1];
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
        // A line is two registers of bytes; each becomes two of 16-bit numbers.
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
            *score = query.score(sum_of(sums[0]), sum_of(sums[1]), scales[row]);
        }
    }

    #[target_feature(enable = "avx2")]
    fn sum_of(register: __m256i) -> i32 {
        let four = _mm_add_epi32(_mm256_castsi256_si128(register), _mm256_extracti128_si256::<1>(register));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }
}
