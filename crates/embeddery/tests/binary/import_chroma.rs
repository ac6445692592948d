//! `embeddery import-chroma` with a real Chroma server, from the wheel that `make test-deps` installs. Only the library of
//! the server is loaded.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::support::{KEY, Server, command, models, run};
use serde_json::{Value, json};

const START: &str = "
import glob, importlib.util, sys
path = glob.glob(sys.argv[1] + '/lib/python*/site-packages/chromadb_rust_bindings/*.so')[0]
spec = importlib.util.spec_from_file_location('chromadb_rust_bindings', path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.cli(['chroma', 'run', '--path', sys.argv[2], '--port', sys.argv[3]])
";

struct Chroma {
    process: Child,
    url: String,
}

impl Chroma {
    async fn start(data: &Path) -> Self {
        let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/chroma");
        assert!(venv.is_dir(), "no Chroma in {}; `make test-deps` installs it", venv.display());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let process = Command::new(venv.join("bin/python"))
            .args(["-c", START, venv.to_str().unwrap(), data.to_str().unwrap(), &port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{port}");
        while reqwest::get(format!("{url}/api/v2/heartbeat")).await.is_err() {
            tokio::task::yield_now().await;
        }
        Self { process, url }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/api/v2/tenants/default_tenant/databases/default_database/{path}", self.url);
        let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// A collection with these records.
    async fn collection(&self, name: &str, records: Value) {
        let metadata = json!({"embedding_model": "sentence-transformers/all-MiniLM-L6-v2"});
        let made = self.post("collections", json!({"name": name, "metadata": metadata})).await;
        self.post(&format!("collections/{}/upsert", made["id"].as_str().unwrap()), records).await;
    }
}

impl Drop for Chroma {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_chroma_collection_is_searched_by_text_after_the_import() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::with(|command| {
        command
            .env("EMBEDDINGS_MODEL_STORAGE_DIR", models())
            .env("SINGLE_USER_API_KEY", KEY)
            .env("USER_DB_BASE_DIR", data.path());
    });
    let texts = ["Boil the potatoes for twenty minutes.", "Our cat sleeps all day."];
    let answer = server.post("/v1/embeddings", &json!({"input": texts})).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let vector = |index: usize| answer["data"][index]["embedding"].clone();
    let chroma_data = tempfile::tempdir().unwrap();
    let chroma = Chroma::start(chroma_data.path()).await;
    chroma
        .collection(
            "user_media",
            json!({
                "ids": ["m1_chunk_0", "m2_chunk_0", "bare"],
                "embeddings": [vector(0), vector(1), vector(1)],
                "documents": [texts[0], texts[1], null],
                "metadatas": [{"media_id": 1}, {"media_id": 2}, null],
            }),
        )
        .await;
    chroma
        .collection(
            "odd_vectors",
            json!({"ids": ["x"], "embeddings": [[1.0, 2.0, 3.0]], "documents": ["an odd one"]}),
        )
        .await;

    let import = || {
        let mut command = command(data.path(), &["import-chroma", &chroma.url]);
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("USER_DB_BASE_DIR", data.path());
        run(command)
    };
    let (code, stdout, stderr) = import();
    assert_eq!(code, 1, "some records are not imported: {stdout}{stderr}");
    assert!(stdout.contains("user_media: 2 records imported, bound to"), "{stdout}{stderr}");
    assert!(stdout.contains("bare: it has no text"), "{stdout}");
    assert!(stdout.contains("odd_vectors: 1 records imported, in a space of its own"), "{stdout}");
    assert_eq!(import().1, stdout, "a repeated import has the same result");

    // A server that runs during the import sees the collection at once.
    let search = async |collection: &str, body: Value| {
        let path = format!("/api/v1/embeddings/collections/{collection}/search");
        let answer = server.post(&path, &body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, found) = search("user_media", json!({"query": "a pet takes a nap", "top_k": 1})).await;
    assert_eq!((status, &found["results"][0]["document_id"]), (200, &json!("m2_chunk_0")), "{found}");
    assert_eq!(found["results"][0]["metadata"], json!({"media_id": 2}));
    let (status, _) = search("odd_vectors", json!({"vector": [1, 2, 3]})).await;
    assert_eq!(status, 200);
    let (status, refused) = search("odd_vectors", json!({"query": "odd"})).await;
    assert!(status == 409 || status == 404, "{refused}");
}

#[test]
fn an_unreachable_chroma_server_is_an_error() {
    let data = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, stderr) = run(command(data.path(), &["import-chroma", &format!("http://{nobody}")]));
    assert!(code == 1 && stderr.contains("Chroma does not answer"), "{stderr}");
}
