//! scratch
#![allow(clippy::all)]
use embeddery_engine::*;
use std::{num::NonZeroUsize, path::Path, time::Instant};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let t = Instant::now();
    let kernels = match a.get(3).map(|s| s.as_str()) {
        Some("avx2") => KernelChoice::Avx2,
        Some("portable") => KernelChoice::Portable,
        _ => KernelChoice::Auto,
    };
    let m = ModelFiles::open(Path::new(&a[1]))
        .unwrap()
        .load(&LoadOptions { kernels, ..Default::default() })
        .unwrap();
    println!("load {:?} {} {}", t.elapsed(), m.kernels(), m.fingerprint());
    let r: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string("tests/reference.json").unwrap()).unwrap();
    let th = Threads::new(NonZeroUsize::new(2).unwrap()).unwrap();
    for e in r["texts"].as_array().unwrap() {
        let tk = m.tokenize(e["text"].as_str().unwrap(), Keep::Start).unwrap();
        let mut v = m.encode(&th, &[&tk]);
        normalize(&mut v);
        let w: Vec<f32> =
            e["vector"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        let d = v.iter().zip(&w).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        println!("{} {} maxdiff {d:e}", tk.len(), e["tokens"]);
    }
    println!(
        "{}",
        std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    let texts = std::fs::read_to_string(&a[2]).unwrap();
    let tok: Vec<Tokens> = texts.lines().map(|t| m.tokenize(t, Keep::Start).unwrap()).collect();
    let n: usize = tok.iter().map(|t| t.len()).sum();
    for nt in [1, 2] {
        let th = Threads::new(NonZeroUsize::new(nt).unwrap()).unwrap();
        let refs: Vec<&Tokens> = tok.iter().collect();
        for _ in 0..2 {
            let t = Instant::now();
            for c in refs.chunks(64) {
                std::hint::black_box(m.encode(&th, c));
            }
            let e = t.elapsed().as_secs_f64();
            println!("{nt}T {n} tok {:.0} tok/s", n as f64 / e);
        }
    }
    let t = Instant::now();
    let q = &tok[0];
    for _ in 0..200 {
        std::hint::black_box(m.encode(&th, &[q]));
    }
    println!("one of {} tokens {:?}", q.len(), t.elapsed() / 200);
    let h = m.encode(&th, &tok.iter().collect::<Vec<_>>());
    let mut worst = true;
    for (i, t) in tok.iter().enumerate() {
        let v = m.encode(&th, &[t]);
        worst &= v == h[i * 384..(i + 1) * 384];
    }
    println!("bit equal {worst}");
}
