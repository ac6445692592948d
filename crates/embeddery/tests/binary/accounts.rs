//! Accounts across processes: a shared rate limit, usage that outlives a kill, tokens from the command line, and errors in
//! the configuration.

use std::{fs, path::Path, process::Command};

use embeddery_test_support::redis::Redis;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    support::{KEY, Server, command, models, run},
    tokens::SECRET,
};

const LIMITS: &str = "limits: {requests_per_second: 0.001, burst: 10}\n";

/// A server with a rate limit in Redis.
fn limited(redis: &Redis) -> Server {
    Server::with(|command| {
        let file = command.get_current_dir().unwrap().join("embeddery.yaml");
        fs::write(file, LIMITS).unwrap();
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("SINGLE_USER_API_KEY", KEY);
        command.env("REDIS_URL", redis.url()).env("EMBEDDINGS_RATE_LIMIT", "on");
    })
}

/// Sends an invalid request. It counts against the rate limit and needs no model.
async fn spend(server: &Server) -> StatusCode {
    server.post("/v1/embeddings", &json!({"input": ""})).send().await.unwrap().status()
}

#[tokio::test]
async fn two_processes_share_a_rate_limit_and_without_redis_there_is_none() {
    let mut redis = Redis::start().unwrap();
    let servers = [limited(&redis), limited(&redis)];
    let mut statuses = Vec::new();
    for n in 0..14 {
        statuses.push(spend(&servers[n % 2]).await.as_u16());
    }
    assert_eq!(statuses, [vec![400; 10], vec![429; 4]].concat());
    let refused = servers[0].post("/v1/embeddings", &json!({"input": ""})).send().await.unwrap();
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(wait, 120, "1000 seconds, reported as at most 120");
    assert_eq!(refused.headers()["x-ratelimit-remaining"], "0");
    let quotas: Value = reqwest::Client::new()
        .get(format!("{}/api/v1/embeddings/tenant/quotas", servers[1].url))
        .bearer_auth(KEY)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!((&quotas["remaining"], &quotas["burst"]), (&json!(0), &json!(10)));

    redis.kill().unwrap();
    for _ in 0..10 {
        assert_eq!(spend(&servers[0]).await, 400, "without Redis there is no limit");
    }
    let log = servers[0].log();
    assert_eq!(
        log.matches("Redis is unavailable").count(),
        1,
        "one warning, not one for each request: {log}"
    );
}

#[tokio::test]
async fn usage_of_completed_requests_survives_a_kill() {
    let state = tempfile::tempdir().unwrap();
    let start = || {
        Server::with(|command| {
            command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("SINGLE_USER_API_KEY", KEY);
            command.env("EMBEDDINGS_STATE_DIR", state.path());
        })
    };
    let mut server = start();
    server.ready().await;
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let request = server.post("/v1/embeddings", &json!({"input": "three little words"}));
        sending.spawn(async move {
            let mut answered = 0;
            while let Ok(answer) = request.try_clone().unwrap().send().await {
                assert_eq!(answer.status(), 200);
                answered += 1;
            }
            answered
        });
    }
    // When the report shows some requests, others are in progress.
    let usage = async |server: &Server| -> Value {
        let request = reqwest::Client::new().get(format!("{}/api/v1/embeddings/usage", server.url));
        request.bearer_auth(KEY).send().await.unwrap().json().await.unwrap()
    };
    while usage(&server).await["total"]["requests"].as_i64().unwrap() < 20 {
        tokio::task::yield_now().await;
    }
    server.signal("KILL");
    server.wait();
    let answered: i64 = sending.join_all().await.into_iter().sum();
    let again = start();
    let total = usage(&again).await["total"].clone();
    let (requests, tokens) = (total["requests"].as_i64().unwrap(), total["tokens"].as_i64().unwrap());
    // The first request is the readiness check. At most four requests are recorded without a response.
    assert!((answered + 1..=answered + 5).contains(&requests), "{answered} answered, {requests} recorded");
    assert_eq!(tokens, 4 + 5 * (requests - 1), "each request is recorded completely: {total}");
}

fn many(command: &mut Command) {
    command.env("AUTH_MODE", "multi_user").env("JWT_SECRET_KEY", SECRET);
}

#[tokio::test]
async fn a_server_accepts_tokens_of_the_command_line() {
    let server = Server::with(|command| {
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models());
        many(command);
    });
    let dir = tempfile::tempdir().unwrap();
    let token = |arguments: &[&str]| {
        let mut command = command(dir.path(), &[&["token"], arguments].concat());
        many(&mut command);
        run(command)
    };
    let (code, issued, _) = token(&["issue", "--user", "ann", "--expires", "1h", "--id", "one"]);
    assert_eq!(code, 0);
    let request = reqwest::Client::new().get(format!("{}/v1/models", server.url)).bearer_auth(issued.trim());
    assert_eq!(request.send().await.unwrap().status(), 200);

    let (code, stdout, _) = token(&["inspect", issued.trim()]);
    assert!(code == 0 && stdout.contains("good    ann is a user; directory ann"), "{stdout}");
    assert!(stdout.contains(r#""jti":"one""#), "{stdout}");
    let (code, stdout, _) = token(&["inspect", &format!("{}x", issued.trim())]);
    assert!(code == 1 && stdout.contains("REFUSED token signed by no key of ours"), "{stdout}");
    let (_, admin, _) = token(&["issue", "--user", "../root", "--role", "admin"]);
    let (_, stdout, _) = token(&["inspect", admin.trim()]);
    assert!(stdout.contains("../root is an admin; directory =2e.=2froot"), "{stdout}");
    for (arguments, words) in [
        (vec!["issue", "--user", ""], "--user: must not be empty"),
        (vec!["issue", "--user", "a", "--expires", "soon"], "--expires: 'soon' is not a duration"),
        (vec!["inspect", "nonsense"], "not a token"),
    ] {
        let (code, _, stderr) = token(&arguments);
        assert!(code == 1 && stderr.contains(words), "{stderr}");
    }
    let (code, _, stderr) = run(command(dir.path(), &["token", "issue", "--user", "a"]));
    assert!(code == 1 && stderr.contains("set AUTH_MODE=multi_user"), "{stderr}");
}

#[test]
fn a_token_of_a_private_key_is_verified_by_its_public_key() {
    let dir = tempfile::tempdir().unwrap();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    fs::write(dir.path().join("public.pem"), pair.public_key_pem()).unwrap();
    fs::write(dir.path().join("private.pem"), pair.serialize_pem()).unwrap();
    let token = |arguments: &[&str]| {
        let mut command = command(dir.path(), &[&["token"], arguments].concat());
        command.env("AUTH_MODE", "multi_user").env("JWT_ALGORITHM", "ES256");
        command.env("JWT_PUBLIC_KEY_FILE", "public.pem").env("JWT_ISSUER", "https://id.example");
        run(command)
    };
    let (code, issued, stderr) = token(&["issue", "--user", "ann", "--private-key", "private.pem"]);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, _) = token(&["inspect", issued.trim()]);
    assert!(code == 0 && stdout.contains(r#""alg":"ES256""#) && stdout.contains("id.example"), "{stdout}");
    let (code, _, stderr) = token(&["issue", "--user", "ann"]);
    assert!(code == 1 && stderr.contains("--private-key"), "{stderr}");
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    fs::write(dir.path().join("private.pem"), other.serialize_pem()).unwrap();
    let (code, _, stderr) = token(&["issue", "--user", "ann", "--private-key", "private.pem"]);
    assert!(code == 1 && stderr.contains("would be refused"), "{stderr}");
}

#[test]
fn an_invalid_account_setting_stops_the_start_with_its_name_and_a_fix() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |file: &str, environment: &[(&str, &str)]| {
        fs::write(dir.path().join("c.yaml"), file).unwrap();
        let mut command = command(dir.path(), &["serve", "--listen", "127.0.0.1:0", "--config", "c.yaml"]);
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).envs(environment.iter().copied());
        let (code, _, stderr) = run(command);
        assert_eq!(code, 2, "{stderr}");
        stderr
    };
    let many = ("AUTH_MODE", "multi_user");
    assert!(refused("", &[many]).contains("JWT_SECRET_KEY: is required in multi_user"));
    let short = refused("", &[many, ("JWT_SECRET_KEY", "short-secret")]);
    assert!(
        short.contains("JWT_SECRET_KEY: has 12 characters; 32") && !short.contains("short-secret"),
        "{short}"
    );
    assert!(refused("", &[many, ("JWT_ALGORITHM", "none")]).contains("JWT_ALGORITHM: 'none' is unknown"));
    assert!(refused("", &[many, ("JWT_ALGORITHM", "RS256")]).contains("JWT_PUBLIC_KEY_FILE: is required"));
    let no_key = [many, ("JWT_ALGORITHM", "ES256"), ("JWT_PUBLIC_KEY", "nonsense")];
    assert!(refused("", &no_key).contains("is not a public key in PEM for ES256"));
    let lost = [many, ("JWT_SECRET_KEY", SECRET), ("JWT_REVOKED_FILE", "nowhere")];
    assert!(refused("", &lost).contains("nowhere: cannot be read"));
    let redis = [("EMBEDDINGS_RATE_LIMIT", "on"), ("REDIS_URL", "redis//:pass-word@x")];
    let redis = refused("", &redis);
    assert!(redis.contains("REDIS_URL: is not a Redis URL") && !redis.contains("pass-word"), "{redis}");
    assert!(refused("", &[("EMBEDDINGS_RATE_LIMIT", "maybe")]).contains("EMBEDDINGS_RATE_LIMIT: 'maybe'"));
    let several = refused(
        "limits: {burst: 0}\nserver: {trusted_proxies: [here], cors_origins: [app.example]}\ntls: {key_file: x}\naudit: {max_bytes: 1}\n",
        &[],
    );
    for name in [
        "limits.burst",
        "server.trusted_proxies: 'here'",
        "server.cors_origins: 'app.example'",
        "tls.certificate_file",
        "audit.max_bytes",
    ] {
        assert!(several.contains(name), "{name}: {several}");
    }
    assert!(refused("auth: {modus: x}\n", &[]).contains("did you mean 'mode'?"));
    fs::write(dir.path().join("cert.pem"), "nonsense").unwrap();
    assert!(refused("tls: {certificate_file: cert.pem, key_file: key.pem}\n", &[]).contains("cert.pem"));
}

#[test]
fn settings_of_the_other_mode_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut single = command(dir.path(), &["check"]);
    single
        .env("EMBEDDINGS_MODEL_STORAGE_DIR", models())
        .env("JWT_SECRET_KEY", "short")
        .env("JWT_ALGORITHM", "x");
    let (code, stdout, stderr) = run(single);
    assert_eq!(code, 0, "{stdout}{stderr}");
    let mut multi = command(dir.path(), &["check"]);
    multi.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("SINGLE_USER_API_KEY", "не ASCII");
    many(&mut multi);
    let (code, stdout, stderr) = run(multi);
    assert!(code == 0 && stdout.contains("tokens: the verification keys"), "{stdout}{stderr}");
}

#[tokio::test]
async fn a_usage_file_of_a_newer_version_stops_the_start() {
    let server = Server::start();
    let state = server.dir.path().join("Databases/user_databases/.embeddery");
    assert!(state.join("usage.sqlite3").is_file() && state.join("audit.jsonl").is_file());
    let status = |path: &Path| fs::metadata(path).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(status(&state.join("usage.sqlite3")).permissions().mode() & 0o777, 0o600);
    assert_eq!(status(&state.join("audit.jsonl")).permissions().mode() & 0o777, 0o600);
    drop(server);
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("usage.sqlite3"),
        "not a database at all, but a text of some length ".repeat(30),
    )
    .unwrap();
    let mut command = command(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("EMBEDDINGS_STATE_DIR", dir.path());
    let (code, _, stderr) = run(command);
    assert!(code == 1 && stderr.contains("usage.sqlite3: is not usable"), "{stderr}");
    assert!(stderr.contains("move it away"), "{stderr}");
}

#[test]
fn health_over_tls_accepts_only_the_configured_certificate() {
    let keys = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let paths = ["crt", "key"].map(|kind| keys.path().join(format!("{name}.{kind}")));
        fs::write(&paths[0], made.cert.pem()).unwrap();
        fs::write(&paths[1], made.signing_key.serialize_pem()).unwrap();
        paths
    };
    let (ours, theirs) = (write("ours"), write("theirs"));
    let with = |command: &mut Command, [certificate, key]: &[std::path::PathBuf; 2]| {
        command.env("EMBEDDINGS_TLS_CERT_FILE", certificate).env("EMBEDDINGS_TLS_KEY_FILE", key);
    };
    let server = Server::with(|command| {
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("SINGLE_USER_API_KEY", KEY);
        with(command, &ours);
    });
    assert!(server.url.starts_with("https://"), "{}", server.greeting);
    let dir = tempfile::tempdir().unwrap();
    let ask = |keys: &[std::path::PathBuf; 2], arguments: &[&str]| {
        let mut command = command(dir.path(), &[&["health"], arguments].concat());
        command.env("EMBEDDINGS_LISTEN", server.url.trim_start_matches("https://"));
        with(&mut command, keys);
        run(command)
    };
    assert_eq!(ask(&ours, &[]).0, 0);
    assert_eq!(ask(&ours, &["--url", &server.url]).0, 0);
    let (code, stdout, _) = ask(&theirs, &[]);
    assert!(code == 1 && stdout.starts_with("unhealthy"), "{stdout}");
    assert_eq!(ask(&ours, &["--url", &server.url.replace("https", "http")]).0, 1);
}
