//! Measures the engine's speed on a file with one text per line. `bench/run.py` compares it with ONNX Runtime.
//!
//! ```text
//! cargo run --release -p embeddery-engine --example throughput -- MODEL_DIR TEXTS_FILE \
//!     [--threads N] [--precision f32|bf16|int8|auto] [--kernels auto|avx512|avx2|portable] [--batch 32] [--json] [--out VECTORS]
//! ```
//!
//! `--out` writes the normalized vectors as little-endian f32, in the order of the texts. `--batch 0` encodes all texts
//! in one batch.

use std::{
    error::Error,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use embeddery_engine::{
    KernelChoice, LoadOptions, Model, ModelFiles, Precision, Threads, Tokens, TruncationSide, normalize,
};

const USAGE: &str = "usage: throughput MODEL_DIR TEXTS_FILE [--threads N] [--kernels auto|avx512|avx2|portable] \
                     [--batch 32] [--json] [--out VECTORS]";

struct Arguments {
    model: PathBuf,
    texts: PathBuf,
    threads: NonZeroUsize,
    kernels: KernelChoice,
    precision: Precision,
    batch: usize,
    json: bool,
    out: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = parse_arguments(std::env::args().skip(1)).map_err(|error| format!("{error}\n{USAGE}"))?;
    let file = fs::read_to_string(&arguments.texts)?;
    let texts: Vec<&str> = file.lines().collect();
    if texts.is_empty() {
        return Err(format!("{} contains no text", arguments.texts.display()).into());
    }
    let threads = Threads::new(arguments.threads)?;

    let began = Instant::now();
    let options =
        LoadOptions { kernels: arguments.kernels, precision: arguments.precision, ..LoadOptions::default() };
    let model = ModelFiles::open(&arguments.model)?.load(&options)?;
    let load = began.elapsed();
    model.encode(&threads, &[&model.tokenize("hello", TruncationSide::End)?])?;
    let first_vector = began.elapsed();
    let resident = resident_mb();

    let batch = if arguments.batch == 0 { texts.len() } else { arguments.batch };
    let before = cpu_seconds();
    let run = run(&model, &threads, &texts, batch)?;
    let cpu = cpu_seconds() - before;
    if let Some(path) = &arguments.out {
        write(path, &run.vectors)?;
    }
    report(
        &arguments,
        &model,
        &[
            ("texts", texts.len() as f64),
            ("tokens", run.tokens as f64),
            ("tokens_per_s", run.tokens as f64 / run.computing.as_secs_f64()),
            (
                "tokens_per_s_with_tokenization",
                run.tokens as f64 / (run.computing + run.tokenizing).as_secs_f64(),
            ),
            // CPU time of all threads varies less than elapsed time when other programs run.
            ("tokens_per_cpu_s", run.tokens as f64 / cpu.max(1e-3)),
            ("weights_mb", model.weight_bytes() as f64 / 1e6),
            ("load_ms", load.as_secs_f64() * 1e3),
            ("first_vector_ms", first_vector.as_secs_f64() * 1e3),
            ("rss_mb", resident),
            ("rss_mb_at_the_end", resident_mb()),
        ],
    );
    Ok(())
}

/// The results for all texts. Tokenizing and computing alternate, so their times add up to the total.
struct Run {
    vectors: Vec<f32>,
    tokens: usize,
    tokenizing: Duration,
    computing: Duration,
}

fn run(model: &Model, threads: &Threads, texts: &[&str], batch: usize) -> Result<Run, Box<dyn Error>> {
    let mut run =
        Run { vectors: Vec::new(), tokens: 0, tokenizing: Duration::ZERO, computing: Duration::ZERO };
    for texts in texts.chunks(batch) {
        let began = Instant::now();
        let tokens = texts
            .iter()
            .map(|text| model.tokenize(text, TruncationSide::End))
            .collect::<Result<Vec<_>, _>>()?;
        run.tokenizing += began.elapsed();

        let began = Instant::now();
        let mut vectors = model.encode(threads, &tokens.iter().collect::<Vec<_>>())?;
        vectors.chunks_exact_mut(model.info().dimensions).for_each(normalize);
        run.computing += began.elapsed();

        run.vectors.append(&mut vectors);
        run.tokens += tokens.iter().map(Tokens::len).sum::<usize>();
    }
    Ok(run)
}

#[expect(clippy::print_stdout, reason = "the program's output is its purpose")]
fn report(arguments: &Arguments, model: &Model, figures: &[(&str, f64)]) {
    if arguments.json {
        let mut object: serde_json::Map<_, _> =
            figures.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        object.insert("kernels".into(), model.kernels().into());
        object.insert("precision".into(), model.precision().as_str().into());
        object.insert("threads".into(), arguments.threads.get().into());
        println!("{}", serde_json::Value::from(object));
    } else {
        println!("{:<32}{:>12}", "kernels", model.kernels());
        println!("{:<32}{:>12}", "precision", model.precision());
        println!("{:<32}{:>12}", "threads", arguments.threads);
        for (name, value) in figures {
            println!("{name:<32}{value:>12.1}");
        }
    }
}

fn write(path: &Path, vectors: &[f32]) -> std::io::Result<()> {
    fs::write(path, vectors.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

/// CPU time of this process in seconds; zero without /proc.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // User and system time in ticks of 10 ms: fields 14 and 15 of the line.
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory in MB (10^6 bytes); zero without /proc.
fn resident_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes = line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) * 1024.0 / 1e6
}

fn parse_arguments(mut args: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut paths, mut threads, mut kernels, mut batch) =
        (Vec::new(), NonZeroUsize::MIN, KernelChoice::Auto, 32);
    let (mut json, mut out, mut precision) = (false, None, Precision::F32);
    while let Some(argument) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--threads" => threads = parse_number(&value()?)?,
            "--batch" => batch = parse_number(&value()?)?,
            "--out" => out = Some(value()?.into()),
            "--json" => json = true,
            "--precision" => precision = value()?.parse()?,
            "--kernels" => {
                kernels = match value()?.as_str() {
                    "auto" => KernelChoice::Auto,
                    "avx512" => KernelChoice::Avx512,
                    "avx2" => KernelChoice::Avx2,
                    "portable" => KernelChoice::Portable,
                    other => {
                        return Err(format!(
                            "kernels '{other}' are unknown; write auto, avx512, avx2 or portable"
                        ));
                    }
                };
            }
            option if option.starts_with('-') => return Err(format!("option '{option}' is unknown")),
            path => paths.push(PathBuf::from(path)),
        }
    }
    let [model, texts] =
        <[PathBuf; 2]>::try_from(paths).map_err(|_| "MODEL_DIR and TEXTS_FILE are required")?;
    Ok(Arguments { model, texts, threads, kernels, precision, batch, json, out })
}

fn parse_number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is not a valid number"))
}
