//! Compares every kernel set of this machine with plain arithmetic in f64, on random shapes that cover every remainder
//! of every tile. Operands end at a guard page, so an access one value too far crashes the test.

use std::{ops, ptr};

use proptest::prelude::*;

use super::{
    Activation, ActivationDtype, AttentionInput, AttentionShape, AttentionWindow, Buffer, DistanceBias,
    GluActivation, KernelChoice, Kernels, Linear, MatrixMut, MatrixRef, Norm, Operand, PackedMatrix, Part,
};
use crate::Precision;

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

/// The kernel sets that this machine can run, including those for CPUs without its newest instructions.
fn sets() -> Vec<Kernels> {
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "there are more sets on x86-64"))]
    let mut sets = vec![Kernels::select(KernelChoice::Portable).unwrap()];
    #[cfg(target_arch = "x86_64")]
    {
        use super::{avx2, avx512};
        sets.extend([true, false].into_iter().filter_map(|vnni| avx2::kernels_with(avx2::Extras { vnni })));
        let extras = [(true, true), (true, false), (false, true), (false, false)];
        sets.extend(
            extras.into_iter().filter_map(|(bf16, vnni)| avx512::kernels_with(avx512::Extras { bf16, vnni })),
        );
    }
    sets
}

#[test]
fn the_product_before_attention_can_write_its_input_type() {
    for kernels in sets() {
        for precision in PRECISIONS {
            let bf16 = kernels.attention_dtype(precision, 32) == ActivationDtype::Bf16;
            assert!(
                !bf16 || kernels.product(precision).run_to_bf16.is_some(),
                "{} {precision:?}",
                kernels.name
            );
        }
    }
}

/// A buffer of f32 that ends where an inaccessible page begins.
struct Guarded {
    map: *mut libc::c_void,
    map_len: usize,
    first: *mut f32,
    len: usize,
}

impl Guarded {
    fn new(values: &[f32]) -> Self {
        // SAFETY: a new anonymous mapping; its last page is made inaccessible before the buffer is used, and the values
        // fit between its start and that page.
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
            assert_ne!(map, libc::MAP_FAILED, "mmap failed");
            let guard = map.byte_add(map_len - page);
            assert_eq!(libc::mprotect(guard, page, libc::PROT_NONE), 0, "mprotect failed");
            let first: *mut f32 = guard.byte_sub(bytes).cast();
            first.copy_from_nonoverlapping(values.as_ptr(), values.len());
            Self { map, map_len, first, len: values.len() }
        }
    }

    /// A buffer of NaN, so that a value that a kernel does not write is detected.
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
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and no borrow of it is left.
        unsafe { libc::munmap(self.map, self.map_len) };
    }
}

/// Pseudo-random values in [−scale, scale), determined by the seed.
fn values(len: usize, scale: f32, seed: &mut u64) -> Vec<f32> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * scale
    };
    (0..len).map(|_| next()).collect()
}

/// erf by the series 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!, whose terms all have the same sign.
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

fn activated(activation: GluActivation, x: f64) -> f64 {
    match activation {
        GluActivation::Gelu => gelu(x),
        GluActivation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        GluActivation::Silu => x / (1.0 + (-x).exp()),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Whether `found` differs from `expected` by at most the rounding error of `terms` terms of size `magnitude`.
fn near(found: f32, expected: f64, magnitude: f64, terms: usize) -> bool {
    let tolerance = f64::from(f32::EPSILON) * (2.0 + terms as f64) * magnitude + 1e-6;
    (f64::from(found) - expected).abs() <= tolerance
}

const GELU: Activation = Activation::Gelu;

fn linear<'a>(parts: &'a [Part<'a>], inputs: usize, activation: Activation) -> Linear<'a> {
    Linear { parts, inputs, activation }
}

/// The product of `x` and a matrix. Operands end at guard pages.
fn product(kernels: &Kernels, x: &[f32], matrix: &PackedMatrix) -> Guarded {
    let rows = x.len() / matrix.inputs;
    let (x, mut out) = (Guarded::new(x), Guarded::filled(rows * matrix.outputs));
    let mut buffer = Buffer::default();
    let x = kernels.prepare(kernels.activation_dtype(matrix.precision), &x, matrix.inputs, &mut buffer);
    kernels.matmul(x, matrix, MatrixMut::F32 { values: &mut out, stride: matrix.outputs });
    out
}

/// Attention of the tokens from `first` on, in the type that a precision uses.
fn attend(
    kernels: &Kernels,
    shape: AttentionShape<'_>,
    precision: Precision,
    qkv: &[f32],
    first: usize,
) -> Guarded {
    let hidden = shape.heads * shape.head_width;
    let tokens = qkv.len() / shape.row_len();
    let mut out = Guarded::filled((tokens - first) * hidden);
    let out_matrix = MatrixMut::F32 { values: &mut out, stride: hidden };
    let (mut scratch, mut buffer) = (Vec::new(), Buffer::default());
    let qkv = Guarded::new(qkv);
    let dtype = kernels.attention_dtype(precision, shape.head_width);
    let Operand::Matrix(matrix) = kernels.prepare(dtype, &qkv, shape.row_len(), &mut buffer) else {
        unreachable!("attention is never in bytes")
    };
    kernels.attention(AttentionInput { qkv: matrix, first, shape }, &mut scratch, out_matrix);
    out
}

fn naive_attention(shape: AttentionShape<'_>, qkv: &[f32]) -> Vec<f64> {
    let hidden = shape.heads * shape.head_width;
    let rows: Vec<&[f32]> = qkv.chunks_exact(shape.row_len()).collect();
    let mut out = Vec::new();
    for (i, query) in rows.iter().enumerate() {
        for head in 0..shape.heads {
            let (width, key_head) = (shape.head_width, head / (shape.heads / shape.key_value_heads));
            let part = |part: usize, row: &[f32]| {
                let first = match part {
                    0 => head * width,
                    1 => hidden + key_head * width,
                    _ => hidden + (shape.key_value_heads + key_head) * width,
                };
                row[first..][..width].to_vec()
            };
            let visible = |j: usize| {
                i.saturating_sub(j) <= shape.window.back && j.saturating_sub(i) <= shape.window.ahead
            };
            let bias = |j: usize| {
                shape.bias.map_or(0.0, |bias| {
                    f64::from(bias.values[head * (2 * bias.max_tokens - 1) + bias.max_tokens - 1 + j - i])
                })
            };
            let scores: Vec<f64> = rows
                .iter()
                .enumerate()
                .map(|(j, row)| {
                    if visible(j) { dot(&part(0, query), &part(1, row)) + bias(j) } else { f64::NEG_INFINITY }
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for at in 0..shape.head_width {
                let sum: f64 =
                    rows.iter().zip(&weights).map(|(row, w)| w * f64::from(part(2, row)[at])).sum();
                out.push(sum / total);
            }
        }
    }
    out
}

/// The Euclidean length of a vector.
fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// Maximum error of a product in a precision.
fn tolerance(precision: Precision, x: &[f32], weight: &[f32]) -> f64 {
    let (size, terms) = (norm(x) * norm(weight), x.len() as f64);
    match precision {
        Precision::F32 | Precision::Auto => f64::from(f32::EPSILON) * (2.0 + terms) * size + 1e-6,
        // Both operands are rounded to a mantissa of eight bits.
        Precision::Bf16 => size / 128.0 + 1e-6,
        // Both operands are rounded to half a 127th of their largest value, in a rotated basis that keeps lengths.
        Precision::Int8 => size * (terms.sqrt() / 127.0 + terms / (4.0 * 127.0 * 127.0)) + 1e-5,
    }
}

#[test]
fn the_machine_tests_more_than_the_portable_kernels() {
    // An x86-64 CPU with AVX2 must have SIMD kernels in the list.
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        assert!(sets().len() >= 2);
    }
}

#[test]
fn gelu_is_as_exact_as_its_precision() {
    let grid: Vec<f32> = (-12_000..12_000).map(|i| i as f32 * 1e-3).collect();
    for kernels in sets() {
        for (precision, tolerance) in [(Precision::F32, 1e-6), (Precision::Bf16, 1e-4)] {
            // One row whose biases are the arguments, so that only the error of the function is measured.
            let zeros = vec![0.0; grid.len()];
            let biases = kernels
                .pack(precision, &linear(&[Part { weight: &zeros, bias: &grid, factor: 1.0 }], 1, GELU));
            let out = product(&kernels, &[1.0], &biases);
            let error = |(x, y): (&f32, &f32)| (f64::from(*y) - gelu(f64::from(*x))).abs();
            let worst = grid.iter().zip(&*out).map(error).fold(0.0, f64::max);
            assert!(worst < tolerance, "{} {precision}: {worst}", kernels.name);
        }
        let extremes = [-1e30, -100.0, 0.0, 100.0, 1e30];
        let biases = kernels.pack(
            Precision::F32,
            &linear(&[Part { weight: &[0.0; 5], bias: &extremes, factor: 1.0 }], 1, GELU),
        );
        let out = product(&kernels, &[1.0], &biases);
        assert_eq!(*out, [0.0, 0.0, 0.0, 100.0, 1e30], "{}", kernels.name);
    }
}

#[test]
fn softmax_handles_very_large_scores() {
    let shape = AttentionShape {
        heads: 1,
        key_value_heads: 1,
        head_width: 2,
        window: AttentionWindow::ALL,
        bias: None,
    };
    // The second key's score is so much larger that the first key's weight is 0. It must not become NaN.
    let qkv = [1e15, 0.0, -1e15, 0.0, 1.0, 2.0, 1e15, 0.0, 1e15, 0.0, 3.0, 4.0];
    for kernels in sets() {
        for precision in PRECISIONS {
            let out = attend(&kernels, shape, precision, &qkv, 0);
            assert_eq!(*out, [3.0, 4.0, 3.0, 4.0], "{} {precision}", kernels.name);
        }
    }
}

#[test]
fn a_row_of_zeros_gives_the_bias() {
    for kernels in sets() {
        for precision in PRECISIONS {
            let part = Part { weight: &[1.0; 3 * 48], bias: &[1.0, -2.0, 0.5], factor: 1.0 };
            let matrix = kernels.pack(precision, &linear(&[part], 48, Activation::None));
            assert_eq!(*product(&kernels, &[0.0; 48], &matrix), [1.0, -2.0, 0.5]);
        }
    }
}

/// Widths that rotate in blocks of every size, and widths that do not rotate.
fn width() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1usize..70, 2 => (1usize..9).prop_map(|n| n * 16), 1 => Just(128usize), 1 => Just(384usize)]
}

/// The whole text, causal attention, and symmetric and asymmetric windows.
fn window() -> impl Strategy<Value = AttentionWindow> {
    prop_oneof![
        Just(AttentionWindow::ALL),
        Just(AttentionWindow::CAUSAL),
        (0usize..40).prop_map(AttentionWindow::symmetric),
        (0usize..40, 0usize..40).prop_map(|(back, ahead)| AttentionWindow { back, ahead }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matmul_is_the_product(
        rows in 1usize..20, inputs in width(), outputs in 1usize..120, factor in 0.1f32..2.0, mut seed: u64,
        activation in prop_oneof![Just(Activation::None), Just(Activation::Gelu)],
    ) {
        let x = values(rows * inputs, 1.0, &mut seed);
        let weight = values(outputs * inputs, 1.0, &mut seed);
        let bias = values(outputs, 1.0, &mut seed);
        for (kernels, precision) in sets().into_iter().flat_map(|set| PRECISIONS.map(|precision| (set, precision))) {
            // Two parts of different heights, stacked like queries, keys and values. Only the first is scaled.
            let first = outputs.div_ceil(3);
            let (w, b) = (weight.split_at(first * inputs), bias.split_at(first));
            let parts = [
                Part { weight: w.0, bias: b.0, factor },
                Part { weight: w.1, bias: b.1, factor: 1.0 },
            ];
            let matrix = kernels.pack(precision, &linear(&parts, inputs, activation));
            let out = product(&kernels, &x, &matrix);
            for (i, found) in out.iter().enumerate() {
                let (row, column) = (i / outputs, i % outputs);
                let (x, weight) = (&x[row * inputs..][..inputs], &weight[column * inputs..][..inputs]);
                let scale = if column < first { f64::from(factor) } else { 1.0 };
                let plain = scale * (f64::from(bias[column]) + dot(x, weight));
                let expected = if activation == Activation::Gelu { gelu(plain) } else { plain };
                // GELU's slope is at most 1.13.
                let tolerance = 1.13 * scale * tolerance(precision, x, weight) + 4e-6 * scale
                    + if precision == Precision::F32 { 0.0 } else { 1e-4 };
                prop_assert!(
                    (f64::from(*found) - expected).abs() <= tolerance,
                    "{} {precision} [{row}, {column}]: {found} {expected} {tolerance}", kernels.name
                );
            }
        }
    }

    #[test]
    fn a_row_of_a_matmul_does_not_depend_on_the_others(
        rows in 2usize..20, inputs in width(), outputs in 1usize..120, mut seed: u64,
    ) {
        let x = values(rows * inputs, 1.0, &mut seed);
        let (weight, bias) = (values(outputs * inputs, 1.0, &mut seed), values(outputs, 1.0, &mut seed));
        for (kernels, precision) in sets().into_iter().flat_map(|set| PRECISIONS.map(|precision| (set, precision))) {
            let part = Part { weight: &weight, bias: &bias, factor: 1.0 };
            let matrix = kernels.pack(precision, &linear(&[part], inputs, GELU));
            let all = product(&kernels, &x, &matrix);
            for (row, together) in x.chunks_exact(inputs).zip(all.chunks_exact(outputs)) {
                let alone = product(&kernels, row, &matrix);
                prop_assert_eq!(&*alone, together, "{} {}", kernels.name, precision);
            }
        }
    }

    /// A product that writes bf16 writes its f32 result, rounded.
    #[test]
    fn bf16_results_are_the_rounded_f32_results(
        rows in 1usize..12, inputs in width(), outputs in 1usize..120, mut seed: u64,
    ) {
        let x = values(rows * inputs, 1.0, &mut seed);
        let (weight, bias) = (values(outputs * inputs, 1.0, &mut seed), values(outputs, 1.0, &mut seed));
        for (kernels, precision) in sets().into_iter().flat_map(|set| PRECISIONS.map(|precision| (set, precision))) {
            if kernels.product(precision).run_to_bf16.is_none() {
                continue;
            }
            let part = Part { weight: &weight, bias: &bias, factor: 1.0 };
            let matrix = kernels.pack(precision, &linear(&[part], inputs, Activation::None));
            let exact = product(&kernels, &x, &matrix);
            let (mut buffer, mut out) = (Buffer::default(), Buffer::default());
            let x = kernels.prepare(kernels.activation_dtype(precision), &x, inputs, &mut buffer);
            kernels.matmul(x, &matrix, out.bf16(rows, outputs));
            let Operand::Matrix(MatrixRef::Bf16 { values, stride }) = out.written(0..rows, outputs) else { unreachable!() };
            for (row, exact) in values.chunks_exact(stride).zip(exact.chunks_exact(outputs)) {
                let rounded: Vec<u16> = exact.iter().map(|x| half::bf16::from_f32(*x).to_bits()).collect();
                prop_assert_eq!(&row[..outputs], &rounded[..]);
                prop_assert!(row[outputs..].iter().all(|padding| *padding == 0));
            }
        }
    }

    #[test]
    fn attention_is_softmax_of_scores_times_values(
        tokens in 1usize..70, key_value_heads in 1usize..4, group in 1usize..3, head_width in 1usize..70, mut seed: u64,
        scale in prop_oneof![Just(0.1f32), Just(1.0), Just(4.0)], biased: bool, skipped in 0.0f64..1.0,
        window in window(),
    ) {
        let (max_tokens, heads) = (tokens + 3, key_value_heads * group);
        let bias = DistanceBias { values: values(heads * (2 * max_tokens - 1), 1.0, &mut seed), max_tokens };
        let shape = AttentionShape { heads, key_value_heads, head_width, window, bias: biased.then_some(&bias) };
        let hidden = heads * head_width;
        let mut qkv = values(tokens * shape.row_len(), 1.0, &mut seed);
        for row in qkv.chunks_exact_mut(shape.row_len()) {
            row[..hidden].iter_mut().for_each(|query| *query *= scale / (head_width as f32).sqrt());
        }
        let expected = naive_attention(shape, &qkv);
        // A thread may compute only the later tokens of a text.
        let first = (skipped * tokens as f64) as usize;
        for (kernels, precision) in sets().into_iter().flat_map(|set| PRECISIONS.map(|precision| (set, precision))) {
            let out = attend(&kernels, shape, precision, &qkv, first);
            let exact = kernels.attention_dtype(precision, head_width) == ActivationDtype::F32;
            for (i, (found, expected)) in out.iter().zip(&expected[first * hidden..]).enumerate() {
                // An error of a score is an error in the exponent of its weight.
                let magnitude = 1.0 + f64::from(scale) * (head_width as f64).sqrt();
                let correct = if exact {
                    near(*found, *expected, magnitude, head_width + 8)
                } else {
                    (f64::from(*found) - expected).abs() <= magnitude / 64.0
                };
                prop_assert!(correct, "{} {precision} [{i}]: {found} {expected}", kernels.name);
            }
        }
    }

    #[test]
    fn layer_norm_gives_zero_mean_and_unit_variance(
        rows in 1usize..6, width in 1usize..100, mean in -50f32..50.0, mut seed: u64, alone: bool,
    ) {
        let x: Vec<f32> = values(rows * width, 1.0, &mut seed).iter().map(|x| x + mean).collect();
        let residual = values(rows * width, if alone { 0.0 } else { 1.0 }, &mut seed);
        let beta = values(width, 2.0, &mut seed);
        let norm = Norm { gamma: values(width, 2.0, &mut seed), beta: Some(beta.clone()), epsilon: 1e-5 };
        for kernels in sets() {
            let (mut out, residual) = (Guarded::new(&x), Guarded::new(&residual));
            kernels.norm(&mut out, (!alone).then_some(&*residual), &norm);
            for row in 0..rows {
                let sums: Vec<f64> = (0..width).map(|i| f64::from(x[row * width + i] + residual[row * width + i])).collect();
                let mean = sums.iter().sum::<f64>() / width as f64;
                let variance = sums.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                let scale = 1.0 / (variance + 1e-5).sqrt();
                for i in 0..width {
                    let expected = (sums[i] - mean) * scale * f64::from(norm.gamma[i]) + f64::from(beta[i]);
                    // The scale multiplies the rounding error of the mean.
                    let magnitude = 2.0 + 2.0 * (mean.abs() + 2.0) * scale;
                    let found = out[row * width + i];
                    prop_assert!(near(found, expected, magnitude, 8), "{} [{row}, {i}]: {found} {expected}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn rms_norm_gives_unit_mean_square(
        rows in 1usize..6, width in 1usize..100, mut seed: u64, alone: bool,
    ) {
        let x = values(rows * width, 3.0, &mut seed);
        let residual = values(rows * width, if alone { 0.0 } else { 1.0 }, &mut seed);
        let norm = Norm { gamma: values(width, 2.0, &mut seed), beta: None, epsilon: 1e-6 };
        for kernels in sets() {
            let (mut out, residual) = (Guarded::new(&x), Guarded::new(&residual));
            kernels.norm(&mut out, (!alone).then_some(&*residual), &norm);
            for row in 0..rows {
                let sums: Vec<f64> = (0..width).map(|i| f64::from(x[row * width + i] + residual[row * width + i])).collect();
                let mean = sums.iter().map(|x| x * x).sum::<f64>() / width as f64;
                for i in 0..width {
                    let expected = sums[i] / (mean + 1e-6).sqrt() * f64::from(norm.gamma[i]);
                    let found = out[row * width + i];
                    prop_assert!(near(found, expected, expected.abs() + 1.0, 8), "{} [{row}, {i}]: {found} {expected}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn glu_is_one_half_activated_times_the_other(
        rows in 1usize..6, width in 1usize..100, mut seed: u64, scale in prop_oneof![Just(1f32), Just(8.0), Just(1e3)],
    ) {
        let x = values(rows * 2 * width, scale, &mut seed);
        for kernels in sets() {
            for activation in [GluActivation::Gelu, GluActivation::GeluTanh, GluActivation::Silu] {
                for dtype in [ActivationDtype::F32, ActivationDtype::U8] {
                    let (x, mut out) = (Guarded::new(&x), Guarded::filled(rows * width));
                    kernels.glu(activation, dtype, &x, &mut out, width);
                    for (x, out) in x.chunks_exact(2 * width).zip(out.chunks_exact(width)) {
                        for i in 0..width {
                            let (a, b) = (f64::from(x[i]), f64::from(x[width + i]));
                            let expected = activated(activation, a) * b;
                            let tolerance = b.abs() * (1e-6 * (1.0 + a.abs()) + if dtype == ActivationDtype::F32 { 0.0 } else { 1e-4 });
                            let found = f64::from(out[i]);
                            prop_assert!((found - expected).abs() <= tolerance, "{} {activation:?} {a} {b}: {found} {expected}", kernels.name);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rotation_rotates_pairs_by_their_angles(heads in 1usize..5, half in 1usize..50, mut seed: u64) {
        let (width, angles) = (2 * half, values(half, 4.0, &mut seed));
        let x = values(heads * width, 1.0, &mut seed);
        let table: Vec<f32> = angles.iter().map(|x| x.cos()).chain(angles.iter().map(|x| x.sin())).collect();
        for kernels in sets() {
            let (mut out, table) = (Guarded::new(&x), Guarded::new(&table));
            kernels.rotate(&mut out, &table);
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact(width)) {
                for i in 0..half {
                    let (a, b, angle) = (f64::from(x[i]), f64::from(x[half + i]), f64::from(angles[i]));
                    prop_assert!((f64::from(out[i]) - (a * angle.cos() - b * angle.sin())).abs() < 1e-6, "{}", kernels.name);
                    prop_assert!((f64::from(out[half + i]) - (b * angle.cos() + a * angle.sin())).abs() < 1e-6, "{}", kernels.name);
                }
            }
        }
    }
}
