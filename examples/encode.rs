//! The engine as a library: loads a model directory and prints the cosine of each pair of texts.
//!
//! `cargo run --release -p embeddery-engine --example encode -- MODEL_DIRECTORY TEXT TEXT…`

#![expect(clippy::print_stdout, reason = "the example prints its result")]

use std::{env, error::Error, num::NonZeroUsize, path::Path, thread};

use embeddery_engine::{LoadOptions, ModelFiles, Threads, TruncationSide, normalize};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let directory = arguments.next().ok_or("usage: encode MODEL_DIRECTORY TEXT TEXT…")?;
    let texts: Vec<String> = arguments.collect();

    let model = ModelFiles::open(Path::new(&directory))?.load(&LoadOptions::default())?;
    let threads = Threads::new(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))?;
    let tokens =
        texts.iter().map(|text| model.tokenize(text, TruncationSide::End)).collect::<Result<Vec<_>, _>>()?;

    // [texts, dimensions], row by row.
    let mut vectors = model.encode(&threads, &tokens.iter().collect::<Vec<_>>())?;
    let dimensions = model.info().dimensions;
    vectors.chunks_exact_mut(dimensions).for_each(normalize);

    let rows: Vec<&[f32]> = vectors.chunks_exact(dimensions).collect();
    for (index, first) in rows.iter().enumerate() {
        for (other, second) in rows.iter().enumerate().take(index) {
            let cosine: f32 = first.iter().zip(*second).map(|(a, b)| a * b).sum();
            println!("{cosine:.3}  {}  |  {}", texts[index], texts[other]);
        }
    }
    Ok(())
}
