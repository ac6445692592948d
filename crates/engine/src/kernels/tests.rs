//! Every kernel set this machine has, against naive arithmetic in f64, on random shapes that reach every
//! remainder of every tile. Operands end at a page that must not be touched, so a read or write one value too
//! far ends the test.

use std::{ops, ptr};

use proptest::prelude::*;

use super::{
    Activation, Attention, Heads, KernelChoice, Kernels, LayerNorm, MatMul, Norm, PackedMatrix, Part,
    attention,
};
use crate::LoadOptions;

/// The kernel sets that this machine can run.
fn sets() -> Vec<&'static Kernels> {
    [KernelChoice::Portable, KernelChoice::Avx2, KernelChoice::Avx512]
        .into_iter()
        .filter_map(|kernels| Kernels::select(&LoadOptions { kernels, ..LoadOptions::default() }))
        .collect()
}

/// f32 that end where a forbidden page begins.
struct Guarded {
    map: *mut libc::c_void,
    map_len: usize,
    first: *mut f32,
    len: usize,
}

impl Guarded {
    fn new(values: &[f32]) -> Self {
        // SAFETY: a fresh anonymous mapping of our own; its last page is closed before anyone sees it, and the
        // values fit between its beginning and that page.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let bytes = size_of_val(values);
            let map_len = bytes.next_multiple_of(page) + page;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let map = libc::mmap(
                ptr::null_mut(),
                map_len,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(map, libc::MAP_FAILED, "a mapping for the test");
            let guard = map.byte_add(map_len - page);
            assert_eq!(libc::mprotect(guard, page, libc::PROT_NONE), 0, "the guard page is closed");
            let first: *mut f32 = guard.byte_sub(bytes).cast();
            first.copy_from_nonoverlapping(values.as_ptr(), values.len());
            Self { map, map_len, first, len: values.len() }
        }
    }

    /// Not zero, so that what a kernel leaves unwritten is seen.
    fn filled(len: usize) -> Self {
        Self::new(&vec![f32::NAN; len])
    }
}

impl ops::Deref for Guarded {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `new` wrote `len` values there, and they are unmapped only in `drop`.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }
}

impl ops::DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, of that length, with nobody left who borrows it.
        unsafe { libc::munmap(self.map, self.map_len) };
    }
}

/// Values in [−scale, scale), the same for the same seed.
fn values(len: usize, scale: f32, seed: &mut u64) -> Vec<f32> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * scale
    };
    (0..len).map(|_| next()).collect()
}

/// erf by the series 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!, whose terms are all of one sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// As far from `expected` as rounding over `terms` of size `magnitude` may lead.
fn near(found: f32, expected: f64, magnitude: f64, terms: usize) -> bool {
    let tolerance = f64::from(f32::EPSILON) * (2.0 + terms as f64) * magnitude + 1e-6;
    (f64::from(found) - expected).abs() <= tolerance
}

fn product(kernels: &Kernels, x: &[f32], matrix: &PackedMatrix, activation: Activation) -> Guarded {
    let rows = x.len() / matrix.inputs;
    let (x, mut out) = (Guarded::new(x), Guarded::filled(rows * matrix.outputs));
    (kernels.matmul)(&MatMul { rows, x: &x, matrix, activation, out: out.as_mut_ptr() });
    out
}

fn attend(kernels: &Kernels, heads: Heads, qkv: &[f32]) -> Guarded {
    let tokens = qkv.len() / (3 * heads.count * heads.width);
    let (qkv, mut out) = (Guarded::new(qkv), Guarded::filled(tokens * heads.count * heads.width));
    let mut scratch = Guarded::filled(attention::scratch_len(tokens, heads.width, kernels.lanes));
    (kernels.attention)(&Attention {
        tokens,
        heads: heads.count,
        head: heads.width,
        qkv: &qkv,
        out: out.as_mut_ptr(),
        scratch: scratch.as_mut_ptr(),
    });
    out
}

fn naive_attention(heads: Heads, qkv: &[f32]) -> Vec<f64> {
    let hidden = heads.count * heads.width;
    let rows: Vec<&[f32]> = qkv.chunks_exact(3 * hidden).collect();
    let mut out = Vec::new();
    for query in &rows {
        for first in (0..hidden).step_by(heads.width) {
            let head = |part: usize, row: &[f32]| row[part * hidden + first..][..heads.width].to_vec();
            let scores: Vec<f64> = rows.iter().map(|row| dot(&head(0, query), &head(1, row))).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for at in 0..heads.width {
                let sum: f64 =
                    rows.iter().zip(&weights).map(|(row, w)| w * f64::from(head(2, row)[at])).sum();
                out.push(sum / total);
            }
        }
    }
    out
}

#[test]
fn the_machine_tests_more_than_the_portable_kernels() {
    // Not a failure elsewhere, but on x86-64 of the last ten years the SIMD kernels must be in the list.
    if cfg!(target_arch = "x86_64") && std::arch::is_x86_feature_detected!("avx2") {
        assert!(sets().len() >= 2);
    }
}

#[test]
fn gelu_is_exact_to_a_millionth() {
    let grid: Vec<f32> = (-120_000..120_000).map(|i| i as f32 * 1e-4).collect();
    for kernels in sets() {
        let identity = kernels.pack(&[Part { weight: &[1.0], bias: &[0.0], factor: 1.0 }], 1);
        let out = product(kernels, &grid, &identity, Activation::Gelu);
        let worst = grid
            .iter()
            .zip(&*out)
            .map(|(x, y)| (f64::from(*y) - gelu(f64::from(*x))).abs())
            .fold(0.0, f64::max);
        assert!(worst < 1e-6, "{}: {worst}", kernels.name);
        let far = product(kernels, &[-1e30, -100.0, 0.0, 100.0, 1e30], &identity, Activation::Gelu);
        assert_eq!(*far, [0.0, 0.0, 0.0, 100.0, 1e30], "{}", kernels.name);
    }
}

#[test]
fn softmax_survives_scores_without_bound() {
    let heads = Heads { count: 1, width: 2 };
    // The second key's score is so much larger that the first gets no weight at all, and must not become NaN.
    let qkv = [1e15, 0.0, -1e15, 0.0, 1.0, 2.0, 1e15, 0.0, 1e15, 0.0, 3.0, 4.0];
    for kernels in sets() {
        assert_eq!(*attend(kernels, heads, &qkv), [3.0, 4.0, 3.0, 4.0], "{}", kernels.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matmul_is_the_product(
        rows in 1usize..20, inputs in 1usize..70, outputs in 1usize..120, factor in 0.1f32..2.0, mut seed: u64,
        activation in prop_oneof![Just(Activation::None), Just(Activation::Gelu)],
    ) {
        let x = values(rows * inputs, 1.0, &mut seed);
        let weight = values(outputs * inputs, 1.0, &mut seed);
        let bias = values(outputs, 1.0, &mut seed);
        for kernels in sets() {
            // Two parts of unequal height, as queries, keys and values are stacked; only the first is scaled.
            let first = outputs.div_ceil(3);
            let (w, b) = (weight.split_at(first * inputs), bias.split_at(first));
            let matrix = kernels.pack(&[
                Part { weight: w.0, bias: b.0, factor },
                Part { weight: w.1, bias: b.1, factor: 1.0 },
            ], inputs);
            let out = product(kernels, &x, &matrix, activation);
            for (i, found) in out.iter().enumerate() {
                let (row, column) = (i / outputs, i % outputs);
                let scale = if column < first { f64::from(factor) } else { 1.0 };
                let sum = dot(&x[row * inputs..][..inputs], &weight[column * inputs..][..inputs]);
                let plain = scale * (f64::from(bias[column]) + sum);
                let expected = if activation == Activation::Gelu { gelu(plain) } else { plain };
                let magnitude = scale * (1.0 + inputs as f64);
                prop_assert!(near(*found, expected, magnitude, inputs), "{} [{row}, {column}]: {found} {expected}", kernels.name);
            }
        }
    }

    #[test]
    fn a_row_of_a_matmul_does_not_depend_on_the_others(
        rows in 2usize..20, inputs in 1usize..70, outputs in 1usize..120, mut seed: u64,
    ) {
        let x = values(rows * inputs, 1.0, &mut seed);
        let (weight, bias) = (values(outputs * inputs, 1.0, &mut seed), values(outputs, 1.0, &mut seed));
        for kernels in sets() {
            let matrix = kernels.pack(&[Part { weight: &weight, bias: &bias, factor: 1.0 }], inputs);
            let all = product(kernels, &x, &matrix, Activation::Gelu);
            for (row, together) in x.chunks_exact(inputs).zip(all.chunks_exact(outputs)) {
                let alone = product(kernels, row, &matrix, Activation::Gelu);
                prop_assert_eq!(&*alone, together, "{}", kernels.name);
            }
        }
    }

    #[test]
    fn attention_is_softmax_of_scores_times_values(
        tokens in 1usize..70, count in 1usize..4, width in 1usize..70, mut seed: u64,
        scale in prop_oneof![Just(0.1f32), Just(1.0), Just(4.0)],
    ) {
        let heads = Heads { count, width };
        let mut qkv = values(tokens * 3 * count * width, 1.0, &mut seed);
        for row in qkv.chunks_exact_mut(3 * count * width) {
            row[..count * width].iter_mut().for_each(|query| *query *= scale / (width as f32).sqrt());
        }
        let expected = naive_attention(heads, &qkv);
        for kernels in sets() {
            let out = attend(kernels, heads, &qkv);
            for (i, (found, expected)) in out.iter().zip(&expected).enumerate() {
                // An error of a score is an error of its weight's exponent.
                let magnitude = 1.0 + f64::from(scale) * (width as f64).sqrt();
                prop_assert!(near(*found, *expected, magnitude, width + 8), "{} [{i}]: {found} {expected}", kernels.name);
            }
        }
    }

    #[test]
    fn layer_norm_has_the_row_at_unit_variance(
        rows in 1usize..6, width in 1usize..100, mean in -50f32..50.0, mut seed: u64,
    ) {
        let x: Vec<f32> = values(rows * width, 1.0, &mut seed).iter().map(|x| x + mean).collect();
        let residual = values(rows * width, 1.0, &mut seed);
        let norm = Norm { gamma: values(width, 2.0, &mut seed), beta: values(width, 2.0, &mut seed), epsilon: 1e-5 };
        for kernels in sets() {
            let (mut out, residual) = (Guarded::new(&x), Guarded::new(&residual));
            (kernels.layer_norm)(&LayerNorm { rows, width, x: out.as_mut_ptr(), residual: &residual, norm: &norm });
            for row in 0..rows {
                let sums: Vec<f64> = (0..width).map(|i| f64::from(x[row * width + i] + residual[row * width + i])).collect();
                let mean = sums.iter().sum::<f64>() / width as f64;
                let variance = sums.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                let scale = 1.0 / (variance + 1e-5).sqrt();
                for i in 0..width {
                    let expected = (sums[i] - mean) * scale * f64::from(norm.gamma[i]) + f64::from(norm.beta[i]);
                    // The mean's rounding is enlarged by the scale.
                    let magnitude = 2.0 + 2.0 * (mean.abs() + 2.0) * scale;
                    let found = out[row * width + i];
                    prop_assert!(near(found, expected, magnitude, 8), "{} [{row}, {i}]: {found} {expected}", kernels.name);
                }
            }
        }
    }
}
