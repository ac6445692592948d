//! Tests: kernels against each other and against plain arithmetic, selection, threads, masks, removal of rows.

use proptest::prelude::*;

use super::*;

/// Pseudo-random numbers between -1 and 1; a seed always gives the same ones.
fn vector(dim: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..dim)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn matrix(dim: usize, rows: usize) -> Matrix {
    let mut matrix = Matrix::new(dim);
    for row in 0..rows {
        matrix.push(row as i64 * 2 + 1, row as i64 / 2, &vector(dim, row as u64 + 1));
    }
    matrix
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    dot * quantised::unit_factor(a) * quantised::unit_factor(b)
}

fn scan(kernel: Kernel, top: usize) -> Scan<'static> {
    Scan { top, mask: None, threads: 1, kernel }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Dimensions and numbers of rows cover the remainder loops of every kernel.
    #[test]
    fn kernels_agree_to_the_last_bit_and_with_plain_arithmetic(dim in 1usize..300, rows in 1usize..23, seed: u64) {
        let (matrix, query) = (matrix(dim, rows), vector(dim, seed));
        let quantised = QuantisedQuery::new(&query, matrix.width);
        let scores = |kernel: Kernel| {
            let mut scores = vec![f32::NAN; rows];
            kernel.score(&quantised, Rows { lines: &matrix.codes, scales: &matrix.scales }, &mut scores);
            scores
        };
        let portable = scores(Kernel::Portable);
        for kernel in Kernel::available() {
            prop_assert_eq!(&scores(kernel), &portable, "{:?}", kernel);
        }
        for (row, score) in portable.iter().enumerate() {
            let exact = cosine(&query, &vector(dim, row as u64 + 1));
            prop_assert!((score - exact).abs() < 0.02, "{} is not {}", score, exact);
        }
    }

    #[test]
    fn candidates_are_the_best_rows_in_order(rows in 0usize..400, top in 1usize..50, seed: u64) {
        let (matrix, query) = (matrix(24, rows), vector(24, seed));
        let found = matrix.candidates(&query, scan(Kernel::best(), top));
        prop_assert_eq!(found.len(), top.min(rows));
        let score = |id: &i64| {
            let row = matrix.ids.binary_search(id).unwrap();
            let mut score = [0.0];
            let quantised = QuantisedQuery::new(&query, matrix.width);
            let lines = &matrix.codes[row * matrix.width..(row + 1) * matrix.width];
            Kernel::Portable.score(&quantised, Rows { lines, scales: &matrix.scales[row..=row] }, &mut score);
            score[0]
        };
        let scores: Vec<_> = found.iter().map(score).collect();
        prop_assert!(scores.is_sorted_by(|a, b| a >= b));
        let worst = scores.last().copied().unwrap_or(f32::INFINITY);
        let better = matrix.ids.iter().filter(|id| !found.contains(id) && score(id) > worst).count();
        prop_assert_eq!(better, 0);
    }
}

/// The last line of the last row ends at the end of readable memory.
#[cfg(target_os = "linux")]
#[test]
fn no_kernel_reads_past_the_end() {
    let (page, width, rows) = (4096, 6, 7);
    let bytes = width * rows * LINE_BYTES;
    let mapped = bytes.div_ceil(page) * page;
    // SAFETY: the mapping is new and its last page is made unreadable. Lines are plain bytes, and the slice ends at
    // the start of that page, which is a multiple of 64.
    let lines = unsafe {
        let start = libc::mmap(
            std::ptr::null_mut(),
            mapped + page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(start, libc::MAP_FAILED);
        assert_eq!(libc::mprotect(start.add(mapped), page, libc::PROT_NONE), 0);
        std::slice::from_raw_parts(start.add(mapped - bytes).cast::<CacheLine>(), width * rows)
    };
    let query = QuantisedQuery::new(&vector(width * LINE_BYTES, 5), width);
    for kernel in Kernel::available() {
        let mut scores = vec![1.0; rows];
        kernel.score(&query, Rows { lines, scales: &vec![1.0; rows] }, &mut scores);
        assert_eq!(scores, vec![0.0; rows]);
    }
}

#[test]
fn several_threads_find_what_one_finds() {
    let matrix = matrix(2048, 30_000);
    assert!(matrix.codes.len() * LINE_BYTES > 2 * MIN_BYTES_PER_THREAD);
    let query = vector(2048, 77);
    let one = scan(Kernel::best(), 20);
    assert_eq!(matrix.candidates(&query, one), matrix.candidates(&query, Scan { threads: 2, ..one }));
}

#[test]
fn a_mask_limits_the_scan_to_its_documents() {
    let matrix = matrix(16, 100);
    let mask = [0b1010];
    let found = matrix.candidates(&vector(16, 3), Scan { mask: Some(&mask), ..scan(Kernel::best(), 100) });
    let mut sorted = found;
    sorted.sort_unstable();
    assert_eq!(sorted, [5, 7, 13, 15], "the chunks of documents 1 and 3");
}

#[test]
fn retained_rows_keep_their_codes_and_scales() {
    let mut matrix = matrix(70, 50);
    let wanted: Vec<i64> = (0..50).filter(|row| row % 3 == 0).map(|row| row * 2 + 1).collect();
    matrix.retain(&wanted);
    assert_eq!(matrix.ids, wanted);
    for (row, id) in wanted.iter().enumerate() {
        let mut alone = Matrix::new(70);
        alone.push(*id, 0, &vector(70, (*id as u64 - 1) / 2 + 1));
        assert_eq!(matrix.scales[row], alone.scales[0]);
        assert_eq!(matrix.codes[row * 2].0, alone.codes[0].0);
    }
    assert_eq!(matrix.last_id(), Some(97));
}
