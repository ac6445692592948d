//! Every kernel set this machine has, against naive arithmetic in f64, on random shapes that reach every
//! remainder of every tile. Operands end at a page that must not be touched, so a read or write one value too
//! far ends the test.

use std::{ops, ptr};

use proptest::prelude::*;

use super::{
    Activation, ActivationDtype, AttentionInput, AttentionShape, AttentionWindow, Buffer, DistanceBias,
    GluActivation, KernelChoice, Kernels, Linear, MatrixRef, Norm, NumbersMut, Operand, PackedMatrix, Part,
};
use crate::Precision;

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

/// The kernel sets that this machine can run, also those of CPUs that lack its newest instructions.
fn sets() -> Vec<Kernels> {
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "there are more sets on x86-64"))]
    let mut sets = vec![Kernels::select(KernelChoice::Portable).unwrap()];
    #[cfg(target_arch = "x86_64")]
    {
        use super::{avx2, avx512};
        sets.extend([true, false].into_iter().filter_map(|vnni| avx2::with(avx2::Extras { vnni })));
        let extras = [(true, true), (true, false), (false, true), (false, false)];
        sets.extend(
            extras.into_iter().filter_map(|(bf16, vnni)| avx512::with(avx512::Extras { bf16, vnni })),
        );
    }
    sets
}

#[test]
fn attention_reads_only_what_the_product_before_it_can_write() {
    for kernels in sets() {
        for precision in PRECISIONS {
            let bf16 = kernels.attention_form(precision, 32) == ActivationDtype::Bf16;
            assert!(
                !bf16 || kernels.product(precision).run_to_bf16.is_some(),
                "{} {precision:?}",
                kernels.name
            );
        }
    }
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

fn activated(gate: GluActivation, x: f64) -> f64 {
    match gate {
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

/// As far from `expected` as rounding over `terms` of size `magnitude` may lead.
fn near(found: f32, expected: f64, magnitude: f64, terms: usize) -> bool {
    let tolerance = f64::from(f32::EPSILON) * (2.0 + terms as f64) * magnitude + 1e-6;
    (f64::from(found) - expected).abs() <= tolerance
}

const GELU: Activation = Activation::Gelu;

fn linear<'a>(parts: &'a [Part<'a>], inputs: usize, activation: Activation) -> Linear<'a> {
    Linear { parts, inputs, activation }
}

/// The product of one matrix with `x`, operands at guard pages, activations prepared as the precision wants them.
fn product(kernels: &Kernels, x: &[f32], matrix: &PackedMatrix) -> Guarded {
    let rows = x.len() / matrix.inputs;
    let (x, mut out) = (Guarded::new(x), Guarded::filled(rows * matrix.outputs));
    let mut room = Buffer::default();
    let x = kernels.prepare(kernels.form(matrix.precision), (&x, matrix.inputs), &mut room);
    let to = NumbersMut::F32 { numbers: &mut out, stride: matrix.outputs };
    kernels.matmul(x, matrix, to);
    out
}

/// Attention of the tokens from `first` on, in the form that a precision uses.
fn attend(
    kernels: &Kernels,
    (heads, precision): (AttentionShape<'_>, Precision),
    qkv: &[f32],
    first: usize,
) -> Guarded {
    let hidden = heads.count * heads.width;
    let tokens = qkv.len() / heads.row();
    let mut out = Guarded::filled((tokens - first) * hidden);
    let to = NumbersMut::F32 { numbers: &mut out, stride: hidden };
    let (mut bytes, mut room) = (Vec::new(), Buffer::default());
    let qkv = Guarded::new(qkv);
    let numbers =
        match kernels.prepare(kernels.attention_form(precision, heads.width), (&qkv, heads.row()), &mut room)
        {
            Operand::Numbers(numbers) => numbers,
            Operand::U8 { .. } => unreachable!("attention is never in bytes"),
        };
    kernels.attention(AttentionInput { qkv: numbers, first, heads }, &mut bytes, to);
    out
}

fn naive_attention(heads: AttentionShape<'_>, qkv: &[f32]) -> Vec<f64> {
    let hidden = heads.count * heads.width;
    let rows: Vec<&[f32]> = qkv.chunks_exact(heads.row()).collect();
    let mut out = Vec::new();
    for (i, query) in rows.iter().enumerate() {
        for head in 0..heads.count {
            let (width, shared) = (heads.width, head / (heads.count / heads.key_values));
            let part = |part: usize, row: &[f32]| {
                let first = match part {
                    0 => head * width,
                    1 => hidden + shared * width,
                    _ => hidden + (heads.key_values + shared) * width,
                };
                row[first..][..width].to_vec()
            };
            let seen = |j: usize| {
                i.saturating_sub(j) <= heads.sight.back && j.saturating_sub(i) <= heads.sight.ahead
            };
            let bias = |j: usize| {
                heads.bias.map_or(0.0, |bias| {
                    f64::from(bias.values[head * (2 * bias.reach - 1) + bias.reach - 1 + j - i])
                })
            };
            let scores: Vec<f64> =
                rows.iter()
                    .enumerate()
                    .map(|(j, row)| {
                        if seen(j) {
                            dot(&part(0, query), &part(1, row)) + bias(j)
                        } else {
                            f64::NEG_INFINITY
                        }
                    })
                    .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for at in 0..heads.width {
                let sum: f64 =
                    rows.iter().zip(&weights).map(|(row, w)| w * f64::from(part(2, row)[at])).sum();
                out.push(sum / total);
            }
        }
    }
    out
}

/// The length of a vector.
fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// How far a product in a precision may be from the exact one.
fn allowed(precision: Precision, x: &[f32], weight: &[f32]) -> f64 {
    let (size, terms) = (norm(x) * norm(weight), x.len() as f64);
    match precision {
        Precision::F32 | Precision::Auto => f64::from(f32::EPSILON) * (2.0 + terms) * size + 1e-6,
        // Both operands are rounded to eight bits of mantissa.
        Precision::Bf16 => size / 128.0 + 1e-6,
        // Both are rounded to half a 127th of their largest number, in a basis where all lengths are the same.
        Precision::Int8 => size * (terms.sqrt() / 127.0 + terms / (4.0 * 127.0 * 127.0)) + 1e-5,
    }
}

#[test]
fn the_machine_tests_more_than_the_portable_kernels() {
    // Not a failure elsewhere, but on x86-64 of the last ten years the SIMD kernels must be in the list.
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
            // One row with all numbers as biases, so that only the function's own error is seen.
            let zeros = vec![0.0; grid.len()];
            let biases = kernels
                .pack(precision, &linear(&[Part { weight: &zeros, bias: &grid, factor: 1.0 }], 1, GELU));
            let out = product(&kernels, &[1.0], &biases);
            let off = |(x, y): (&f32, &f32)| (f64::from(*y) - gelu(f64::from(*x))).abs();
            let worst = grid.iter().zip(&*out).map(off).fold(0.0, f64::max);
            assert!(worst < tolerance, "{} {precision}: {worst}", kernels.name);
        }
        let far = [-1e30, -100.0, 0.0, 100.0, 1e30];
        let biases = kernels
            .pack(Precision::F32, &linear(&[Part { weight: &[0.0; 5], bias: &far, factor: 1.0 }], 1, GELU));
        let out = product(&kernels, &[1.0], &biases);
        assert_eq!(*out, [0.0, 0.0, 0.0, 100.0, 1e30], "{}", kernels.name);
    }
}

#[test]
fn softmax_survives_scores_without_bound() {
    let heads = AttentionShape { count: 1, key_values: 1, width: 2, sight: AttentionWindow::ALL, bias: None };
    // The second key's score is so much larger that the first gets no weight at all, and must not become NaN.
    let qkv = [1e15, 0.0, -1e15, 0.0, 1.0, 2.0, 1e15, 0.0, 1e15, 0.0, 3.0, 4.0];
    for kernels in sets() {
        for precision in PRECISIONS {
            let out = attend(&kernels, (heads, precision), &qkv, 0);
            assert_eq!(*out, [3.0, 4.0, 3.0, 4.0], "{} {precision}", kernels.name);
        }
    }
}

#[test]
fn a_row_of_zeros_has_the_bias() {
    for kernels in sets() {
        for precision in PRECISIONS {
            let part = Part { weight: &[1.0; 3 * 48], bias: &[1.0, -2.0, 0.5], factor: 1.0 };
            let matrix = kernels.pack(precision, &linear(&[part], 48, Activation::None));
            assert_eq!(*product(&kernels, &[0.0; 48], &matrix), [1.0, -2.0, 0.5]);
        }
    }
}

/// Widths that rotate in blocks of every size, and widths that cannot.
fn width() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1usize..70, 2 => (1usize..9).prop_map(|n| n * 16), 1 => Just(128usize), 1 => Just(384usize)]
}

/// Everything, what came before, a window, and windows that are not even.
fn sight() -> impl Strategy<Value = AttentionWindow> {
    prop_oneof![
        Just(AttentionWindow::ALL),
        Just(AttentionWindow::BACK),
        (0usize..40).prop_map(AttentionWindow::around),
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
            // Two parts of unequal height, as queries, keys and values are stacked; only the first is scaled.
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
                let allowed = 1.13 * scale * allowed(precision, x, weight) + 4e-6 * scale
                    + if precision == Precision::F32 { 0.0 } else { 1e-4 };
                prop_assert!(
                    (f64::from(*found) - expected).abs() <= allowed,
                    "{} {precision} [{row}, {column}]: {found} {expected} {allowed}", kernels.name
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

    /// What a product writes in bf16 is what it writes in f32, rounded.
    #[test]
    fn results_in_bf16_are_the_results_rounded(
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
            let (mut room, mut to) = (Buffer::default(), Buffer::default());
            let x = kernels.prepare(kernels.form(precision), (&x, inputs), &mut room);
            kernels.matmul(x, &matrix, to.bf16(rows, outputs));
            let Operand::Numbers(MatrixRef::Bf16 { numbers, stride }) = to.written(0..rows, outputs) else { unreachable!() };
            for (row, exact) in numbers.chunks_exact(stride).zip(exact.chunks_exact(outputs)) {
                let rounded: Vec<u16> = exact.iter().map(|x| half::bf16::from_f32(*x).to_bits()).collect();
                prop_assert_eq!(&row[..outputs], &rounded[..]);
                prop_assert!(row[outputs..].iter().all(|padding| *padding == 0));
            }
        }
    }

    #[test]
    fn attention_is_softmax_of_scores_times_values(
        tokens in 1usize..70, key_values in 1usize..4, group in 1usize..3, width in 1usize..70, mut seed: u64,
        scale in prop_oneof![Just(0.1f32), Just(1.0), Just(4.0)], biased: bool, skipped in 0.0f64..1.0,
        sight in sight(),
    ) {
        let (reach, count) = (tokens + 3, key_values * group);
        let bias = DistanceBias { values: values(count * (2 * reach - 1), 1.0, &mut seed), reach };
        let heads = AttentionShape { count, key_values, width, sight, bias: biased.then_some(&bias) };
        let hidden = count * width;
        let mut qkv = values(tokens * heads.row(), 1.0, &mut seed);
        for row in qkv.chunks_exact_mut(heads.row()) {
            row[..hidden].iter_mut().for_each(|query| *query *= scale / (width as f32).sqrt());
        }
        let expected = naive_attention(heads, &qkv);
        // A thread may have only the later tokens of a text.
        let first = (skipped * tokens as f64) as usize;
        for (kernels, precision) in sets().into_iter().flat_map(|set| PRECISIONS.map(|precision| (set, precision))) {
            let out = attend(&kernels, (heads, precision), &qkv, first);
            let exact = kernels.attention_form(precision, width) == ActivationDtype::F32;
            for (i, (found, expected)) in out.iter().zip(&expected[first * hidden..]).enumerate() {
                // An error of a score is an error of its weight's exponent.
                let magnitude = 1.0 + f64::from(scale) * (width as f64).sqrt();
                let right = if exact {
                    near(*found, *expected, magnitude, width + 8)
                } else {
                    (f64::from(*found) - expected).abs() <= magnitude / 64.0
                };
                prop_assert!(right, "{} {precision} [{i}]: {found} {expected}", kernels.name);
            }
        }
    }

    #[test]
    fn layer_norm_has_the_row_at_unit_variance(
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
                    // The mean's rounding is enlarged by the scale.
                    let magnitude = 2.0 + 2.0 * (mean.abs() + 2.0) * scale;
                    let found = out[row * width + i];
                    prop_assert!(near(found, expected, magnitude, 8), "{} [{row}, {i}]: {found} {expected}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn a_norm_without_beta_has_the_row_at_unit_mean_square(
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
    fn a_gate_is_one_half_activated_times_the_other(
        rows in 1usize..6, width in 1usize..100, mut seed: u64, scale in prop_oneof![Just(1f32), Just(8.0), Just(1e3)],
    ) {
        let x = values(rows * 2 * width, scale, &mut seed);
        for kernels in sets() {
            for gate in [GluActivation::Gelu, GluActivation::GeluTanh, GluActivation::Silu] {
                for form in [ActivationDtype::F32, ActivationDtype::U8] {
                    let (x, mut out) = (Guarded::new(&x), Guarded::filled(rows * width));
                    kernels.gate(gate, form, (&x, &mut out, width));
                    for (x, out) in x.chunks_exact(2 * width).zip(out.chunks_exact(width)) {
                        for i in 0..width {
                            let (a, b) = (f64::from(x[i]), f64::from(x[width + i]));
                            let expected = activated(gate, a) * b;
                            let allowed = b.abs() * (1e-6 * (1.0 + a.abs()) + if form == ActivationDtype::F32 { 0.0 } else { 1e-4 });
                            let found = f64::from(out[i]);
                            prop_assert!((found - expected).abs() <= allowed, "{} {gate:?} {a} {b}: {found} {expected}", kernels.name);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rotation_turns_pairs_by_their_angles(heads in 1usize..5, half in 1usize..50, mut seed: u64) {
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
