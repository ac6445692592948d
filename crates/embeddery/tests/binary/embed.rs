//! `embeddery embed`: interrupted, killed, resumed, and with invalid input.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{command, models, run};
use embeddery_test_support::vendors::{VendorApi, Vendors, vector};
use serde_json::{Value, json};

const LOCAL: &str = "sentence-transformers/all-MiniLM-L6-v2";
const REMOTE: &str = "local_api:bulk";

/// A directory in which `embeddery embed` runs.
struct Bulk {
    dir: tempfile::TempDir,
    /// The URL of the provider of [`REMOTE`].
    url: Option<String>,
}

impl Bulk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), url: None }
    }

    fn with(vendors: &Vendors) -> Self {
        Self { url: Some(vendors.base_url(VendorApi::LocalOpenAi)), ..Self::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.dir.path(), &[&["embed"], arguments].concat());
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("LOG_LEVEL", "WARNING");
        if let Some(url) = &self.url {
            command.env("LOCAL_API_URL", url).env("LOCAL_API_DIALECT", "openai");
        }
        command
    }

    /// Runs the command to its end. Returns the exit code and the output.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let (code, stdout, stderr) = run(self.command(arguments));
        (code, stdout + &stderr)
    }

    /// Runs the command until the journal has grown, then sends a signal. Returns the exit code, if there is one.
    async fn interrupt(&self, arguments: &[&str], signal: &str) -> Option<i32> {
        let journal = self.path(&format!("{}.journal", arguments.last().unwrap()));
        let written = || {
            let entries = fs::read_to_string(&journal).unwrap_or_default();
            let last = entries.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
            last.and_then(|entry| entry["asked"].as_u64()).unwrap_or_default()
        };
        let before = written();
        let mut child = self.command(arguments).stderr(Stdio::null()).spawn().unwrap();
        while written() <= before {
            assert!(child.try_wait().unwrap().is_none(), "the command ended before the interruption");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        tokio::task::spawn_blocking(move || child.wait().unwrap().code()).await.unwrap()
    }
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Interrupts the command five times, alternating SIGINT and SIGKILL, and then runs it to its end.
async fn interrupt_five_times(bulk: &Bulk, arguments: &[&str]) {
    for turn in 0..5 {
        let (signal, code) = if turn % 2 == 0 { ("-INT", Some(130)) } else { ("-KILL", None) };
        assert_eq!(bulk.interrupt(arguments, signal).await, code);
        assert!(
            !bulk.path(arguments.last().unwrap()).exists(),
            "the output has its name only when it is complete"
        );
    }
    let (code, output) = tokio::task::block_in_place(|| bulk.run(arguments));
    assert_eq!(code, 3, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_five_interruptions_the_output_equals_that_of_one_run() {
    let bulk = Bulk::new();
    let line = |n: usize| match n {
        777 => "{\"id\":\"broken\"".to_owned(),
        _ => json!({"id": format!("doc-{n}"), "text": format!("the {n}. line says {}", n * n)}).to_string(),
    };
    // Many batches, so that five interruptions come before the end, also if signals are delivered late.
    bulk.write("in.jsonl", &(0..6000).map(|n| line(n) + "\n").collect::<String>());
    for kind in ["jsonl", "npy"] {
        let (one, many) = (format!("one.{kind}"), format!("many.{kind}"));
        let (code, output) = bulk.run(&["in.jsonl", "--model", LOCAL, "--output", &one]);
        assert!(
            code == 3
                && output.contains("5999 vectors of 384 dimensions")
                && output.contains("1 lines failed"),
            "{output}"
        );
        interrupt_five_times(&bulk, &["in.jsonl", "--model", LOCAL, "--output", &many]).await;
        assert!(fs::read(bulk.path(&one)).unwrap() == fs::read(bulk.path(&many)).unwrap(), "{kind}");
        let errors = bulk.read(&format!("{many}.errors.jsonl"));
        assert_eq!(errors, bulk.read(&format!("{one}.errors.jsonl")));
        assert_eq!(objects(&errors)[0]["line"], 778);
        assert!(
            !bulk.path(&format!("{many}.journal")).exists() && !bulk.path(&format!("{many}.part")).exists()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_lines_interrupted_five_times() {
    let vendors = Vendors::start().await;
    vendors.set_dimensions("bulk", 4);
    let bulk = Bulk::with(&vendors);
    bulk.write(
        "in.txt",
        &(0..100_000)
            .map(|n| if n == 50_000 { "\n".into() } else { format!("text {n}\n") })
            .collect::<String>(),
    );
    let (code, output) =
        tokio::task::block_in_place(|| bulk.run(&["in.txt", "--model", REMOTE, "--output", "one.jsonl"]));
    assert_eq!(code, 3, "{output}");
    interrupt_five_times(&bulk, &["in.txt", "--model", REMOTE, "--output", "out.jsonl"]).await;
    let text = bulk.read("out.jsonl");
    assert!(text == bulk.read("one.jsonl"), "the outputs are equal");
    let made = objects(&text);
    assert_eq!(made.len(), 99_999);
    for (index, line) in made.iter().enumerate().step_by(997) {
        let number = if index < 50_000 { index } else { index + 1 };
        assert_eq!(line["id"], number + 1);
        let numbers: Vec<f32> = serde_json::from_value(line["embedding"].clone()).unwrap();
        for (actual, expected) in numbers.iter().zip(vector(&format!("text {number}"), 4)) {
            assert!((actual - expected).abs() < 1e-6, "line {number}");
        }
    }
    assert_eq!(objects(&bulk.read("out.jsonl.errors.jsonl"))[0]["error"], "the text is blank");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_run_refuses_changed_inputs_and_options() {
    let bulk = Bulk::new();
    let text: String = (0..2000).map(|n| format!("line {n}\n")).collect();
    bulk.write("in.txt", &text);
    let arguments = ["in.txt", "--model", LOCAL, "--output", "out.npy"];
    bulk.interrupt(&arguments, "-KILL").await;
    let refused = |change: &[&str], why: &str| {
        let (code, output) = bulk.run(&[change, &["--output", "out.npy"]].concat());
        assert!(code == 2 && output.contains(why) && output.contains("--overwrite"), "{code} {output}");
    };
    tokio::task::block_in_place(|| {
        refused(&["in.txt", "--model", LOCAL, "--input-type", "query"], "options");
        bulk.write("in.txt", &format!("{text}one more\n"));
        refused(&["in.txt", "--model", LOCAL], "an input was in.txt");
        // The same length, so that only the hash differs.
        bulk.write("in.txt", &text.replace("line 7\n", "LINE 7\n"));
        refused(&["in.txt", "--model", LOCAL], "has changed");
        bulk.write("in.txt", &text);
        let (code, output) = run_with(&bulk, &arguments, ("EMBEDDINGS_PRECISION", "f32"));
        // If `auto` is f32 on this machine, nothing has changed, and the run resumes.
        assert!(code == 0 || (code == 2 && output.contains("identity")), "{code} {output}");
        let (code, output) = bulk.run(&[&["--overwrite"], &arguments[..]].concat());
        assert_eq!(code, 0, "{output}");
        refused(&["in.txt", "--model", LOCAL], "out.npy exists");
    });
}

fn run_with(bulk: &Bulk, arguments: &[&str], (name, value): (&str, &str)) -> (i32, String) {
    let mut command = bulk.command(arguments);
    command.env(name, value);
    let (code, stdout, stderr) = run(command);
    (code, stdout + &stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_the_model_refuses_fails_alone() {
    let vendors = Vendors::start().await;
    vendors.set_dimensions("bulk", 4);
    vendors.poison("text 5");
    let bulk = Bulk::with(&vendors);
    bulk.write("in.txt", &(0..100).map(|n| format!("text {n}\n")).collect::<String>());
    let (code, output) =
        tokio::task::block_in_place(|| bulk.run(&["in.txt", "--model", REMOTE, "-o", "out.jsonl"]));
    assert_eq!(code, 3, "{output}");
    assert_eq!(objects(&bulk.read("out.jsonl")).len(), 99);
    let errors = objects(&bulk.read("out.jsonl.errors.jsonl"));
    assert!(errors.len() == 1 && errors[0]["line"] == 6 && errors[0]["error"].is_string(), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_may_begin_with_a_byte_order_mark() {
    let vendors = Vendors::start().await;
    vendors.set_dimensions("bulk", 4);
    let bulk = Bulk::with(&vendors);
    for (name, text) in [("a.jsonl", "one"), ("b.jsonl", "two"), ("c.jsonl", "three")] {
        bulk.write(name, &format!("\u{feff}{{\"id\": \"{name}\", \"text\": \"{text}\"}}\n"));
    }
    let arguments = ["a.jsonl", "b.jsonl", "c.jsonl", "--model", REMOTE, "-o", "out.jsonl"];
    let (code, output) = tokio::task::block_in_place(|| bulk.run(&arguments));
    assert_eq!(code, 0, "{output}");
    let ids: Vec<Value> = objects(&bulk.read("out.jsonl")).iter().map(|line| line["id"].clone()).collect();
    assert_eq!(ids, ["a.jsonl", "b.jsonl", "c.jsonl"]);
    assert_eq!(vendors.texts(), ["one", "two", "three"]);
}

#[test]
fn standard_streams_work_and_invalid_commands_are_refused() {
    let bulk = Bulk::new();
    let mut child = bulk
        .command(&["-", "--model", LOCAL, "--output", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"one\ntwo\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    let made = objects(&String::from_utf8(ended.stdout).unwrap());
    assert_eq!(ended.status.code(), Some(0));
    assert!(made.len() == 2 && made[1]["id"] == 2 && made[1]["embedding"].as_array().unwrap().len() == 384);
    assert!(fs::read_dir(bulk.dir.path()).unwrap().flatten().all(|entry| !is_litter(&entry.path())));

    let (code, output) = bulk.run(&["absent.txt", "--output", "out.jsonl"]);
    assert!(code == 2 && output.contains("absent.txt"), "{output}");
    bulk.write("in.txt", "a\n");
    let (code, output) = bulk.run(&["in.txt", "--model", "nobody-knows-this", "--output", "out.jsonl"]);
    assert!(code == 2 && output.contains("nobody-knows-this"), "{output}");
    let (code, output) = bulk.run(&["in.txt", "--output", "no/where.jsonl"]);
    assert!(code == 2 && output.contains("is not a directory"), "{output}");
}

fn is_litter(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| ["journal", "part", "jsonl"].iter().any(|litter| extension == *litter))
}
