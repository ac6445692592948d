//! Runs the commands of the documentation: all `sh` and `python` blocks of a page, in one shell, against a server that was
//! started as in the quick start. A failed command or an HTTP error fails the test. The files of `examples/` are run, too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Server, models};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The blocks of these languages, as one script.
fn script(page: &str) -> String {
    let mut script = String::new();
    let mut language = None;
    for line in page.lines() {
        match (&language, line.strip_prefix("```")) {
            (None, Some(named)) => language = Some(named.to_owned()),
            (Some(ended), Some(_)) => {
                if ended == "python" {
                    script += "PYTHON\n";
                }
                language = None;
                continue;
            }
            _ => {}
        }
        match language.as_deref() {
            Some("python") if line.starts_with("```") => script += "python3 <<'PYTHON'\n",
            Some("sh") if line.starts_with("```") => {}
            Some("sh" | "python") => script = script + line + "\n",
            _ => {}
        }
    }
    script
}

fn walk(page: &str) {
    let server = Server::with(|command| {
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models());
    });
    let text = fs::read_to_string(Path::new(ROOT).join(page)).unwrap();
    let script = script(&text).replace("http://127.0.0.1:8000", &server.url);
    assert!(!script.is_empty(), "{page} has commands");
    // A reader reaches these commands after the model has loaded.
    let ready = format!("curl -s --retry 100 --retry-delay 1 --retry-all-errors {}/ready\n", server.url);
    let script = ready + &script;
    let dir = server.dir.path();
    // An HTTP error, which a reader would see, is a failed command here.
    fs::write(dir.join(".curlrc"), "fail-with-body\n").unwrap();
    let python = fs::canonicalize(Path::new(ROOT).join(".cache/venv/bin")).unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_embeddery")).parent().unwrap().to_owned();
    let script = format!("export PATH={}:{}:$PATH\n{script}", binary.display(), python.display());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(dir)
        .env("HOME", dir)
        .env("EMBEDDINGS_MODEL_STORAGE_DIR", models())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{page}:\n{printed}\n{complaints}\n{script}");
}

#[test]
fn the_readme_works_as_typed() {
    walk("README.md");
}

#[test]
fn the_quick_start_works_as_typed() {
    walk("docs/quick-start.md");
}

#[test]
fn collections_work_as_typed() {
    walk("docs/collections.md");
}

#[test]
fn jobs_work_as_typed() {
    walk("docs/pipeline.md");
}

#[test]
fn monitoring_works_as_typed() {
    walk("docs/monitoring.md");
}

#[test]
fn troubleshooting_works_as_typed() {
    walk("docs/troubleshooting.md");
}

#[test]
fn models_work_as_typed() {
    walk("docs/models.md");
}

/// Runs a script of `examples/` against a server.
fn run_example(file: &str, interpreter: &str, arguments: &[&str]) -> String {
    let server = Server::with(|command| {
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models());
    });
    let examples = fs::canonicalize(Path::new(ROOT).join("examples")).unwrap();
    let python = fs::canonicalize(Path::new(ROOT).join(".cache/venv/bin")).unwrap();
    // The shell puts the test's Python in front of the PATH that it has.
    let script = format!("PATH={}:$PATH exec {interpreter} \"$@\"", python.display());
    let output = Command::new("bash")
        .args(["-c", &script, "example"])
        .arg(examples.join(file))
        .args(arguments)
        .current_dir(server.dir.path())
        .env("EMBEDDERY_URL", &server.url)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{file}:\n{printed}\n{errors}");
    printed
}

#[test]
fn the_shell_examples_run() {
    assert!(run_example("embed.sh", "bash", &["A \"quoted\" text"]).contains("\"embedding\":["));
    let searched = run_example("search.sh", "bash", &[]);
    assert!(
        searched.contains("The parcel never arrived.") && searched.contains("Refunds take"),
        "{searched}"
    );
    let job = run_example("job.sh", "bash", &[]);
    assert!(job.contains("completed") && job.contains("Holidays are requested"), "{job}");
}

#[test]
fn the_python_examples_run() {
    assert_eq!(run_example("openai_client.py", "python3", &[]).lines().count(), 3);
    assert!(run_example("rag.py", "python3", &[]).contains("twenty minutes"));
}

#[test]
fn the_engine_example_runs() {
    let program = Path::new(env!("CARGO_BIN_EXE_embeddery")).with_file_name("examples").join("encode");
    assert!(program.exists(), "{} is missing: cargo build -p embeddery-engine --examples", program.display());
    let model = models().join("sentence-transformers/all-MiniLM-L6-v2");
    let output = Command::new(program).arg(model).args(["a cat", "a kitten", "a tax"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.lines().count() == 3, "{printed}");
}
