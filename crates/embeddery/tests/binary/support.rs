//! A running binary with a free port and a temporary directory. It is killed when dropped.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use tempfile::TempDir;

pub const KEY: &str = "a-key-for-tests-only";

/// The directory of real models. `make test` downloads them.
pub fn models() -> PathBuf {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/embedding_models_data");
    let weights = models.join("sentence-transformers/all-MiniLM-L6-v2/model.safetensors");
    assert!(weights.is_file(), "{} is missing; `make test` fetches it", weights.display());
    models.canonicalize().unwrap()
}

/// `embeddery` with these arguments, in `dir`, with an empty environment.
pub fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embeddery"));
    command.args(arguments).current_dir(dir).env_clear().env("HF_HUB_OFFLINE", "1").env("HOME", dir);
    command
}

/// A server on port 0.
pub struct Server {
    pub url: String,
    /// The lines of standard output up to the address and the key.
    pub greeting: String,
    pub dir: TempDir,
    child: Child,
}

impl Server {
    /// Starts a server with the real default model and [`KEY`].
    pub fn start() -> Self {
        Self::with(|command| {
            command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("SINGLE_USER_API_KEY", KEY);
            // The reference vectors are in f32.
            command.env("EMBEDDINGS_PRECISION", "f32");
        })
    }

    pub fn with(change: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
        command.stdout(Stdio::piped()).stderr(fs::File::create(dir.path().join("stderr.log")).unwrap());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_else(|| {
            panic!("no address: {}", fs::read_to_string(dir.path().join("stderr.log")).unwrap())
        });
        let url =
            first.strip_prefix("listening on ").unwrap_or_else(|| panic!("unexpected: {first}")).to_owned();
        // A line about the key follows at once, if there is one. The rest is read in the background, so that the server
        // does not block on a full pipe.
        let greeting = if command_has_key(&command) {
            first
        } else {
            format!("{first}\n{}", lines.next().unwrap().unwrap())
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self { url, greeting, dir, child }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr.log")).unwrap()
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub fn post(&self, path: &str, body: &serde_json::Value) -> reqwest::RequestBuilder {
        reqwest::Client::new().post(format!("{}{path}", self.url)).bearer_auth(KEY).json(body)
    }

    /// Waits until the server is ready.
    pub async fn ready(&self) {
        // An embedding request waits for the model, so polling is not necessary.
        let answer =
            self.post("/v1/embeddings", &serde_json::json!({"input": "ready?"})).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
}

/// Whether the server prints no line about a key: the key is configured, or the server uses tokens.
fn command_has_key(command: &Command) -> bool {
    command.get_envs().any(|(name, value)| {
        (name == "SINGLE_USER_API_KEY" || name == "AUTH_MODE") && value.is_some_and(|value| !value.is_empty())
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the command to its end. Returns the exit code, standard output and standard error.
pub fn run(mut command: Command) -> (i32, String, String) {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(-1);
    (code, stdout, reader.join().unwrap())
}
