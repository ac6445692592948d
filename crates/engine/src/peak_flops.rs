//! Measures the peak arithmetic rate of this machine, so that a model's speed can be reported as a fraction of it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use crate::{
    KernelChoice, Precision, Threads,
    kernels::{Activation, Buffer, Kernels, Linear, MatrixMut, Part},
};

/// Size of the measured product. Its operands fit the first-level cache, so only the multipliers limit the rate.
const ROWS: usize = 8;
const COLUMNS: usize = 48;
/// Bytes of one column of weights.
const COLUMN_BYTES: usize = 512;

/// Measures the multiplications and additions per second of all threads combined, in a product of this precision on
/// operands in the first-level cache. Returns the best of `rounds` rounds of about ten milliseconds, or `None` if this
/// CPU lacks the instructions.
pub fn peak_operations_per_second(
    threads: &Threads,
    kernels: KernelChoice,
    precision: Precision,
    rounds: usize,
) -> Option<f64> {
    let kernels = Kernels::select(kernels)?;
    let inputs = match kernels.resolve(precision) {
        Precision::Int8 => COLUMN_BYTES,
        Precision::Bf16 => COLUMN_BYTES / 2,
        Precision::F32 | Precision::Auto => COLUMN_BYTES / 4,
    };
    let (weight, bias) = (vec![0.5; inputs * COLUMNS], vec![0.0; COLUMNS]);
    let part = Part { weight: &weight, bias: &bias, factor: 1.0 };
    let matrix = kernels.pack(precision, &Linear { parts: &[part], inputs, activation: Activation::None });
    let x = vec![0.25; ROWS * inputs];
    let best = std::sync::Mutex::new(0.0_f64);
    for _ in 0..rounds {
        let slowest = std::sync::Mutex::new(f64::INFINITY);
        threads.acquire().run_on(threads.count(), |thread| {
            let (mut buffer, mut out) = (Buffer::default(), vec![0.0; ROWS * COLUMNS]);
            let x = kernels.prepare(kernels.activation_dtype(precision), &x, inputs, &mut buffer);
            thread.wait();
            let (began, mut products) = (Instant::now(), 0_u32);
            while began.elapsed() < Duration::from_millis(10) {
                for _ in 0..64 {
                    let out = MatrixMut::F32 { values: &mut out, stride: COLUMNS };
                    kernels.matmul(x, &matrix, out);
                }
                products += 64;
            }
            let rate = f64::from(products) / began.elapsed().as_secs_f64();
            black_box(&out);
            if let Ok(mut slowest) = slowest.lock() {
                *slowest = slowest.min(rate);
            }
        });
        let slowest = slowest.into_inner().unwrap_or(0.0);
        if let Ok(mut best) = best.lock() {
            *best = best.max(slowest);
        }
    }
    let rate = best.into_inner().ok()? * threads.count() as f64;
    Some(rate * (2 * ROWS * inputs * COLUMNS) as f64)
}
