//! What this machine can do at best, so that a model's speed can be told as a share of it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use crate::{
    KernelChoice, Precision, Threads,
    kernels::{Activation, Buffer, Kernels, Linear, NumbersMut, Part},
};

/// Operands of a product that lies in the nearest cache, so that nothing but the multipliers limits it.
const ROWS: usize = 8;
const COLUMNS: usize = 48;
/// Bytes of a column of weights.
const DEPTH_BYTES: usize = 512;

/// Multiplications and additions a second that all threads together reach in a product of this precision, on
/// operands that lie in the nearest cache: the best of `rounds` rounds of about ten milliseconds. `None` when this CPU
/// lacks the instructions.
pub fn peak_operations_per_second(
    threads: &Threads,
    kernels: KernelChoice,
    precision: Precision,
    rounds: usize,
) -> Option<f64> {
    let kernels = Kernels::select(kernels)?;
    let inputs = match kernels.resolve(precision) {
        Precision::Int8 => DEPTH_BYTES,
        Precision::Bf16 => DEPTH_BYTES / 2,
        Precision::F32 | Precision::Auto => DEPTH_BYTES / 4,
    };
    let (weight, bias) = (vec![0.5; inputs * COLUMNS], vec![0.0; COLUMNS]);
    let part = Part { weight: &weight, bias: &bias, factor: 1.0 };
    let matrix = kernels.pack(precision, &Linear { parts: &[part], inputs, activation: Activation::None });
    let x = vec![0.25; ROWS * inputs];
    let best = std::sync::Mutex::new(0.0_f64);
    for _ in 0..rounds {
        let slowest = std::sync::Mutex::new(f64::INFINITY);
        threads.acquire().run_on(threads.count(), |member| {
            let (mut room, mut out) = (Buffer::default(), vec![0.0; ROWS * COLUMNS]);
            let x = kernels.prepare(kernels.form(precision), (&x, inputs), &mut room);
            member.wait();
            let (began, mut products) = (Instant::now(), 0_u32);
            while began.elapsed() < Duration::from_millis(10) {
                for _ in 0..64 {
                    let out = NumbersMut::F32 { numbers: &mut out, stride: COLUMNS };
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
