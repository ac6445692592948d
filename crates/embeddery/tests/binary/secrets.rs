//! A session with every kind of secret at log level trace. All logs, responses, metrics and files are searched for each
//! secret afterwards.

use std::{fs, path::Path};

use embeddery_test_support::redis::Redis;
use jsonwebtoken::Algorithm;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;

use crate::{
    support::{Server, command, models, run},
    tokens::{SECRET, claims, now, signed, token},
};

const MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";
const OLD_SECRET: &str = "the-secret-before-that-one-of-tests-x";
const REDIS_PASSWORD: &str = "password-of-redis-in-tests";
const HUB_TOKEN: &str = "hf_token-of-the-hub-in-tests";
const SINGLE_KEY: &str = "key-of-the-single-user-in-tests";
const VENDOR_KEY: &str = "sk-key-of-a-vendor-in-tests";

/// The complete response to a request, as text.
async fn response_text(request: RequestBuilder) -> String {
    match request.send().await {
        Ok(answer) => {
            let head = format!("status: {} {:?}", answer.status(), answer.headers());
            format!("{head} {}", answer.text().await.unwrap_or_default())
        }
        Err(error) => format!("{error:?}"),
    }
}

/// The names and the contents of all files below `dir`.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_appears_in_logs_responses_metrics_or_files() {
    let redis = Redis::start().unwrap();
    // The password is sent on every connection. This Redis has none, and its error may repeat the password.
    let redis_url = redis.url().replace("redis://", &format!("redis://:{REDIS_PASSWORD}@"));
    let keys = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls_key = made.signing_key.serialize_pem();
    fs::write(keys.path().join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(keys.path().join("key.pem"), &tls_key).unwrap();
    let environment = |command: &mut std::process::Command| {
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("AUTH_MODE", "multi_user");
        command.env("JWT_SECRET_KEY", SECRET).env("JWT_SECONDARY_SECRET", OLD_SECRET);
        command.env("REDIS_URL", &redis_url).env("EMBEDDINGS_RATE_LIMIT", "on");
        command.env("HF_TOKEN", HUB_TOKEN).env("SINGLE_USER_API_KEY", SINGLE_KEY);
        command.env("OPENAI_API_KEY", VENDOR_KEY).env("LOG_LEVEL", "TRACE");
        command.env("EMBEDDINGS_TLS_CERT_FILE", keys.path().join("cert.pem"));
        command.env("EMBEDDINGS_TLS_KEY_FILE", keys.path().join("key.pem"));
    };
    let mut server = Server::with(environment);
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let address = server.url.strip_prefix("https://").unwrap().parse().unwrap();
    let client =
        Client::builder().no_proxy().tls_certs_only([root]).resolve("localhost", address).build().unwrap();
    let ask = |method: Method, path: &str, token: &str| {
        client.request(method, format!("https://localhost:{}{path}", address.port())).bearer_auth(token)
    };

    let (user, admin) = (token("ann", "user"), token("root", "admin"));
    let old = signed(Algorithm::HS256, &claims("ann", "user"), OLD_SECRET);
    let mut late = claims("ann", "user");
    late["exp"] = json!(now() - 3600);
    let expired = signed(Algorithm::HS256, &late, SECRET);
    let forged = signed(Algorithm::HS256, &claims("ann", "admin"), "not-the-secret-not-the-secret-not-it");
    let embed = "/v1/embeddings";
    let warm = "/api/v1/embeddings/models/warmup";
    let answers = [
        response_text(ask(Method::POST, embed, &user).json(&json!({"input": "hello"}))).await,
        response_text(ask(Method::POST, embed, &old).json(&json!({"input": ["hello", "again"]}))).await,
        response_text(ask(Method::POST, embed, &user).json(&json!({"input": 7}))).await,
        response_text(ask(Method::POST, embed, &user).json(&json!({"input": "a", "model": "no/such"}))).await,
        response_text(ask(Method::POST, embed, &user).body("no JSON")).await,
        response_text(ask(Method::GET, "/v1/models", &expired)).await,
        response_text(ask(Method::GET, "/v1/models", &forged)).await,
        response_text(ask(Method::GET, "/v1/models", SINGLE_KEY)).await,
        response_text(ask(Method::GET, &format!("/v1/models/{SINGLE_KEY}"), &expired)).await,
        response_text(ask(Method::POST, warm, &user).json(&json!({}))).await,
        response_text(ask(Method::POST, warm, &admin).json(&json!({"model": MODEL}))).await,
        response_text(ask(Method::GET, "/api/v1/embeddings/usage", &admin)).await,
        response_text(ask(Method::GET, "/api/v1/embeddings/tenant/quotas", &user)).await,
        response_text(ask(Method::GET, "/metrics", "")).await,
        response_text(ask(Method::GET, "/api/v1/embeddings/health", "")).await,
        response_text(ask(Method::GET, "/openapi.json", "")).await,
    ];
    assert!(answers[0].contains("\"embedding\""), "{}", answers[0]);
    assert!(answers[1].contains("status: 200") && answers[10].contains("status: 200"), "{}", answers[10]);
    server.signal("TERM");
    server.wait();

    let mut commands = String::new();
    for arguments in [&["check"][..], &["token", "inspect", "x.y.z"], &["serve", "--listen", "nowhere"]] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command(dir.path(), arguments);
        environment(&mut command);
        let (_, stdout, stderr) = run(command);
        commands += &(stdout + &stderr);
    }

    let log = server.log();
    assert!(log.contains("TRACE") && log.contains("answered"), "the log level is trace");
    let tls_line = tls_key.lines().nth(1).unwrap();
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let signatures = [&user, &admin, &old, &expired, &forged].map(|token| signature(token));
    let mut secrets = vec![SECRET, OLD_SECRET, REDIS_PASSWORD, HUB_TOKEN, SINGLE_KEY, VENDOR_KEY, tls_line];
    secrets.extend(signatures.iter().map(String::as_str));
    let mut places = files(server.dir.path());
    places.push(("the greeting".into(), server.greeting.clone().into_bytes()));
    places.push(("what commands said".into(), commands.into_bytes()));
    places
        .extend(answers.into_iter().enumerate().map(|(n, text)| (format!("answer {n}"), text.into_bytes())));
    let names: Vec<&str> = places.iter().map(|(name, _)| name.rsplit('/').next().unwrap()).collect();
    for name in ["stderr.log", "usage.sqlite3", "audit.jsonl"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(
        places.iter().any(|(place, bytes)| place.ends_with("audit.jsonl") && holds(bytes, "ann")),
        "it is found when it is there"
    );
    for (place, bytes) in &places {
        for secret in &secrets {
            assert!(!holds(bytes, secret), "{secret} appears in {place}");
        }
    }
}
