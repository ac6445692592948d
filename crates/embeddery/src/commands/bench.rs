//! `embeddery models bench`: measures a model on this machine in each precision: tokens a second, share of the peak
//! arithmetic rate, latency of one short query, weight memory, and cosine to the vectors in f32. If the model's ONNX graph
//! is also on this machine, ONNX Runtime runs it on the same texts.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use embeddery_core::{ModelRef, ModelSource as _};
use embeddery_engine::{
    KernelChoice, LoadOptions, ModelFiles, Precision, Threads, Tokens, TruncationSide, normalize,
    peak_operations_per_second,
};
use embeddery_model_store::ModelStore;
use embeddery_providers::{
    local::ModelOptions,
    onnx::{LoadedGraph, OnnxRuntime},
};

use super::println_stdout;

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];
const QUERY: &str = "how do I get my money back";
const QUERIES: usize = 200;
/// Tokens of one batch, as in the server.
const BATCH_TOKENS: usize = 1024;

/// How a model is measured.
pub(crate) struct BenchConfig {
    pub(crate) threads: NonZeroUsize,
    /// Minimum time to measure the throughput of one precision.
    pub(crate) duration: Duration,
    /// The same model as an ONNX graph, if it is on this machine.
    pub(crate) graph: Option<Graph>,
}

/// A model as an ONNX graph.
pub(crate) struct Graph {
    pub(crate) directory: PathBuf,
    pub(crate) options: ModelOptions,
    pub(crate) runtime: Arc<OnnxRuntime>,
}

pub(crate) fn bench(store: &ModelStore, model: &ModelRef, config: &BenchConfig) -> anyhow::Result<()> {
    let directory = store.find(model)?.with_context(|| {
        format!("'{model}' is not on this machine; download it with `embeddery models pull {}`", model.name)
    })?;
    let files = ModelFiles::open(&directory)?;
    let threads = Arc::new(Threads::new(config.threads)?);
    let texts = texts();
    println_stdout(format_args!("{model}, {} threads", threads.count()));
    println_stdout(format_args!(
        "{:<10}{:<18}{:>10}{:>12}{:>11}{:>10}{:>13}{:>13}",
        "precision", "kernels", "tokens/s", "of peak", "query ms", "MB", "cosine mean", "cosine min"
    ));
    let mut exact: Option<Vec<f32>> = None;
    for precision in PRECISIONS {
        let model = files.load(&LoadOptions { precision, ..LoadOptions::default() })?;
        let tokens = texts
            .iter()
            .map(|text| model.tokenize(text, TruncationSide::End))
            .collect::<Result<Vec<Tokens>, _>>()?;
        let dimensions = model.info().dimensions;
        let encode = |batch: &[&Tokens]| Ok(model.encode(&threads, batch)?);
        let (vectors, rate) = throughput(&encode, dimensions, config.duration, &tokens)?;
        let peak =
            peak_operations_per_second(&threads, KernelChoice::Auto, precision, 20).unwrap_or(f64::NAN);
        let share = rate * model.linear_operations_per_token() as f64 / peak;
        let query = model.tokenize(QUERY, TruncationSide::End)?;
        let (mean, min) = cosines(exact.as_ref().unwrap_or(&vectors), &vectors, dimensions);
        println_stdout(format_args!(
            "{:<10}{:<18}{:>10.0}{:>11.0}%{:>11.2}{:>10.1}{:>13.6}{:>13.6}",
            precision,
            model.kernels(),
            rate,
            100.0 * share,
            latency(&encode, &query)?.as_secs_f64() * 1e3,
            model.weight_bytes() as f64 / 1e6,
            mean,
            min,
        ));
        exact.get_or_insert(vectors);
    }
    if let (Some(graph), Some(exact)) = (&config.graph, &exact) {
        match bench_graph(graph, &threads, config.duration, &texts, exact, files.info().dimensions) {
            Ok(row) => println_stdout(row),
            Err(error) => println_stdout(format_args!("onnx      not measured: {error}")),
        }
    }
    println_stdout(
        "tokens/s: texts of 4 to 180 words, already tokenized; of peak: rate of the linear layers, relative to matrix",
    );
    println_stdout(
        "products in the L1 cache; query: median, already tokenized; MB: weights in memory; cosine: to the f32 vectors",
    );
    Ok(())
}

/// The row of the ONNX graph, whose vectors are compared with the engine's vectors in f32.
fn bench_graph(
    graph: &Graph,
    threads: &Arc<Threads>,
    duration: Duration,
    texts: &[String],
    exact: &[f32],
    dimensions: usize,
) -> anyhow::Result<String> {
    let model = LoadedGraph::load(&graph.directory, &graph.options, &graph.runtime, threads)
        .map_err(anyhow::Error::msg)?;
    let tokens = texts.iter().map(|text| model.tokenize(text)).collect::<Result<Vec<Tokens>, _>>()?;
    let encode = |batch: &[&Tokens]| model.encode(batch).map_err(anyhow::Error::msg);
    let (vectors, rate) = throughput(&encode, dimensions, duration, &tokens)?;
    let query = latency(&encode, &model.tokenize(QUERY)?)?.as_secs_f64() * 1e3;
    let (mean, min) = cosines(exact, &vectors, dimensions);
    Ok(format!(
        "{:<10}{:<18}{rate:>10.0}{:>12}{query:>11.2}{:>10}{mean:>13.6}{min:>13.6}",
        "onnx", "ONNX Runtime", "", ""
    ))
}

/// Computes the vectors of a batch.
type Encode<'a> = dyn Fn(&[&Tokens]) -> anyhow::Result<Vec<f32>> + 'a;

/// The vectors of all texts, normalized to unit length, and the tokens a second.
fn throughput(
    encode: &Encode<'_>,
    dimensions: usize,
    duration: Duration,
    texts: &[Tokens],
) -> anyhow::Result<(Vec<f32>, f64)> {
    let pass = || {
        let mut vectors = Vec::with_capacity(texts.len() * dimensions);
        let mut rest = texts;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |text: &&Tokens| {
                tokens += text.len();
                tokens <= BATCH_TOKENS
            };
            let (batch, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            vectors.extend(encode(&batch.iter().collect::<Vec<_>>())?);
            rest = later;
        }
        vectors.chunks_exact_mut(dimensions).for_each(normalize);
        anyhow::Ok(vectors)
    };
    let vectors = pass()?; // the first pass allocates the buffers
    let tokens: usize = texts.iter().map(Tokens::len).sum();
    let (start, mut passes) = (Instant::now(), 0);
    while passes == 0 || start.elapsed() < duration {
        pass()?;
        passes += 1;
    }
    Ok((vectors, (tokens * passes) as f64 / start.elapsed().as_secs_f64()))
}

/// The median latency of one query.
fn latency(encode: &Encode<'_>, query: &Tokens) -> anyhow::Result<Duration> {
    let mut times = (0..QUERIES)
        .map(|_| {
            let start = Instant::now();
            encode(&[query]).map(|_| start.elapsed())
        })
        .collect::<Result<Vec<Duration>, _>>()?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// The mean and the minimum cosine of vectors of unit length.
fn cosines(a: &[f32], b: &[f32], dimensions: usize) -> (f64, f64) {
    let rows = a.chunks_exact(dimensions).zip(b.chunks_exact(dimensions));
    let cosines = rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>());
    let cosines: Vec<f64> = cosines.collect();
    (cosines.iter().sum::<f64>() / cosines.len() as f64, cosines.iter().copied().fold(1.0, f64::min))
}

/// English texts of 4 to 180 words. They are the same in every run.
fn texts() -> Vec<String> {
    const WORDS: &str = "a customer writes that the second parcel of the order never arrived although the page says \
        it was delivered on monday morning and asks whether the money can be returned or a new one sent before \
        the end of next week because it is a present the manual explains how to replace the battery clean the \
        filter and reset the clock after a power failure but not what the red light means when it blinks twice \
        our study of forty rivers shows that warmer winters move the first flood of the year forward by nine days";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    (0..256_usize)
        .map(|text| {
            let count = 4 + text * text * 7 % 177;
            (0..count)
                .map(|word| words[(text * 31 + word * (1 + text % 3)) % words.len()])
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}
