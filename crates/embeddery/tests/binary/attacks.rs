//! The attacks of docs/security.md, run against the binary. The test compares the results with the table on that page, line
//! by line.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use jsonwebtoken::Algorithm;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    support::{KEY, Server, models},
    tokens::{SECRET, claims, now, signed},
};

/// An attack and its result.
struct Tried {
    attack: &'static str,
    got: String,
}

/// Runs attacks and collects their results.
struct Attacker {
    single: Server,
    many: Server,
    client: Client,
    tried: Vec<Tried>,
}

impl Attacker {
    fn note(&mut self, attack: &'static str, got: impl Into<String>) {
        self.tried.push(Tried { attack, got: got.into() });
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.single.url))
    }

    /// A request that is valid with the key.
    fn models(&self) -> RequestBuilder {
        self.ask(Method::GET, "/v1/models")
    }

    async fn http(&mut self, attack: &'static str, request: RequestBuilder) {
        let got = outcome(request).await;
        self.note(attack, got);
    }

    async fn embed(&mut self, attack: &'static str, body: Vec<u8>) {
        let request = self.ask(Method::POST, "/v1/embeddings").bearer_auth(KEY);
        self.http(attack, request.header("content-type", "application/json").body(body)).await;
    }

    async fn json(&mut self, attack: &'static str, body: Value) {
        self.embed(attack, body.to_string().into_bytes()).await;
    }

    /// Sends raw bytes.
    async fn raw(&mut self, attack: &'static str, bytes: impl Into<Vec<u8>>) {
        let got = raw(&self.single.url, bytes.into()).await;
        self.note(attack, got);
    }

    fn with_token(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.many.url)).bearer_auth(token)
    }

    async fn token(&mut self, attack: &'static str, token: String) {
        let request = self.with_token(Method::GET, "/v1/models", &token);
        self.http(attack, request).await;
    }

    /// Sends a token that is valid except for this claim.
    async fn claim(&mut self, attack: &'static str, name: &str, value: Option<Value>) {
        let mut claims = ours("ann", "user");
        match value {
            Some(value) => claims[name] = value,
            None => drop(claims.as_object_mut().unwrap().remove(name)),
        }
        self.token(attack, signed(Algorithm::HS256, &claims, SECRET)).await;
    }
}

/// The claims that the multi_user server accepts.
fn ours(user: &str, role: &str) -> Value {
    let mut claims = claims(user, role);
    claims["iss"] = json!("https://id.example");
    claims["aud"] = json!("embeddery");
    claims
}

fn good(user: &str, role: &str) -> String {
    signed(Algorithm::HS256, &ours(user, role), SECRET)
}

/// The status and the error code of the response, such as `401 invalid_api_key`.
async fn outcome(request: RequestBuilder) -> String {
    let response = match request.send().await {
        Ok(response) => response,
        Err(_) => return "connection closed".into(),
    };
    let status = response.status().as_u16();
    let text = response.text().await.unwrap_or_default();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    match body["error"]["code"].as_str() {
        Some(code) => format!("{status} {code}"),
        None => status.to_string(),
    }
}

async fn raw(url: &str, bytes: Vec<u8>) -> String {
    let address = url.trim_start_matches("http://").to_owned();
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _ = stream.write_all(&bytes);
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        let text = String::from_utf8_lossy(&response);
        let statuses: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).map(|line| &line[..3]).collect();
        let code = text.rsplit_once("\"code\":\"").and_then(|(_, rest)| rest.split('"').next());
        match (statuses.as_slice(), code) {
            ([], _) => "connection closed".to_owned(),
            (statuses, Some(code)) => format!("{} {code}", statuses.join(", ")),
            (statuses, None) => statuses.join(", "),
        }
    })
    .await
    .unwrap()
}

fn start() -> Attacker {
    let file = "server: {body_timeout_seconds: 1}\nlimits: {failed_logins_per_minute: 1000}\n";
    let write = |command: &std::process::Command, text: &str| {
        fs::write(command.get_current_dir().unwrap().join("embeddery.yaml"), text).unwrap();
    };
    let single = Server::with(|command| {
        write(command, file);
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("SINGLE_USER_API_KEY", KEY);
    });
    let many = Server::with(|command| {
        write(command, "limits: {failed_logins_per_minute: 60}\n");
        fs::write(command.get_current_dir().unwrap().join("revoked"), "stolen\n").unwrap();
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("AUTH_MODE", "multi_user");
        command.env("JWT_SECRET_KEY", SECRET).env("JWT_REVOKED_FILE", "revoked");
        command.env("JWT_ISSUER", "https://id.example").env("JWT_AUDIENCE", "embeddery");
    });
    Attacker { single, many, client: Client::builder().no_proxy().build().unwrap(), tried: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_has_the_result_in_the_documentation() {
    let mut attacker = start();
    attacker.single.ready().await;
    keys(&mut attacker).await;
    paths(&mut attacker).await;
    protocol(&mut attacker).await;
    bodies(&mut attacker).await;
    forged_tokens(&mut attacker).await;
    users(&mut attacker).await;

    let table: Vec<String> = attacker
        .tried
        .iter()
        .enumerate()
        .map(|(n, Tried { attack, got })| format!("| {} | {attack} | {got} |", n + 1))
        .collect();
    assert!(table.len() >= 40, "{} attacks", table.len());
    assert!(attacker.tried.iter().filter(|tried| tried.got.starts_with("200")).count() <= 6);
    // The servers still serve valid requests.
    attacker.single.ready().await;
    assert_eq!(outcome(attacker.with_token(Method::GET, "/v1/models", &good("ann", "user"))).await, "200");
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md"));
    let page = page.unwrap_or_default();
    let written: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    assert_eq!(written, table, "docs/security.md must say:\n{}", table.join("\n"));
}

async fn keys(attacker: &mut Attacker) {
    let request = attacker.models();
    attacker.http("no key", request).await;
    for (attack, key) in [
        ("a wrong key", "wrong".to_owned()),
        ("the key without its last character", KEY[..KEY.len() - 1].to_owned()),
        ("the key with a character more", format!("{KEY}x")),
        ("the key in capitals", KEY.to_uppercase()),
        ("an empty key", String::new()),
        ("SQL as the key", "' OR 1=1 --".to_owned()),
        ("a key of 60 000 characters", "A".repeat(60_000)),
    ] {
        let request = attacker.models().header("x-api-key", key);
        attacker.http(attack, request).await;
    }
    let request = attacker.models().header("x-api-key", KEY).header("x-api-key", "other");
    attacker.http("two keys, the right one first", request).await;
    let request = attacker.models().basic_auth("admin", Some(KEY));
    attacker.http("the key as a password of Basic authentication", request).await;
    let request = attacker.models().header("cookie", format!("api_key={KEY}"));
    attacker.http("the key in a cookie, as a page of another origin could send it", request).await;
    let request = attacker.ask(Method::GET, &format!("/v1/models?api_key={KEY}"));
    attacker.http("the key in the query, where logs would keep it", request).await;
    let request = attacker.models().header("x-forwarded-for", "127.0.0.1").header("x-real-ip", "127.0.0.1");
    attacker.http("`X-Forwarded-For: 127.0.0.1` instead of a key", request).await;
    let request = attacker.models().header("x-original-url", "/health").header("x-rewrite-url", "/health");
    attacker.http("`X-Original-URL: /health` before a closed route", request).await;
    let request = attacker.ask(Method::POST, "/health").header("x-http-method-override", "GET");
    attacker.http("`X-HTTP-Method-Override`", request).await;
    let request = attacker
        .ask(Method::OPTIONS, "/v1/embeddings")
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST");
    attacker.http("a page of another origin asks whether it may post", request).await;
}

async fn paths(attacker: &mut Attacker) {
    for (attack, path) in [
        ("`/health/../v1/models` without a key", "/health/../v1/models"),
        ("`/V1/MODELS` without a key", "/V1/MODELS"),
        ("`//v1/models` without a key", "//v1/models"),
        ("`/v1/models/` without a key", "/v1/models/"),
        ("`/%76%31/models` without a key", "/%76%31/models"),
        ("`/docs/../../../etc/passwd`", "/docs/../../../etc/passwd"),
        ("`/docs/..%2f..%2f..%2fetc%2fpasswd`", "/docs/..%2f..%2f..%2fetc%2fpasswd"),
        ("`/.embeddery/api-key`", "/.embeddery/api-key"),
    ] {
        attacker.raw(attack, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    }
    attacker
        .raw(
            "`GET http://other.example/v1/models` (a proxy's form) without a key",
            "GET http://other.example/v1/models HTTP/1.1\r\nhost: other.example\r\nconnection: close\r\n\r\n",
        )
        .await;
}

async fn protocol(attacker: &mut Attacker) {
    let head = |more: &str| {
        format!(
            "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n{more}"
        )
    };
    let smuggled = "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
    let attack =
        format!("{}{smuggled}", head("content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"));
    attacker.raw("smuggling: Content-Length and Transfer-Encoding", attack).await;
    attacker
        .raw(
            "smuggling: two different Content-Lengths",
            head("content-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
        )
        .await;
    attacker
        .raw("smuggling: `Transfer-Encoding: xchunked`", head("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"))
        .await;
    attacker.raw("smuggling: a space before the colon", head("content-length : 2\r\n\r\n{}")).await;
    attacker.raw("a negative Content-Length", head("content-length: -1\r\n\r\n")).await;
    attacker
        .raw(
            "a line break inside a header (folding)",
            head("x-a: b\r\n c\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"),
        )
        .await;
    attacker.raw("a NUL in a header", head("x-a: b\0c\r\ncontent-length: 2\r\n\r\n{}")).await;
    attacker.raw("headers of 100 KiB", head(&format!("x-a: {}\r\n\r\n", "a".repeat(100 << 10)))).await;
    attacker.raw("a thousand headers", head(&"x-a: b\r\n".repeat(1000)) + "\r\n").await;
    attacker.raw("garbage instead of HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\r\n\r\n").await;
    attacker.raw("TRACE", "TRACE / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    attacker
        .raw(
            "CONNECT, to use us as a proxy",
            "CONNECT evil.example:443 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
    attacker.raw("a head that never ends (slowloris)", head("x-a: b")).await;
    attacker.raw("a body that never ends", head("content-length: 100\r\nconnection: close\r\n\r\n{")).await;
    attacker
        .raw("chunks without end, beyond the limit", {
            let mut bytes = head("transfer-encoding: chunked\r\nconnection: close\r\n\r\n").into_bytes();
            for _ in 0..33 {
                bytes.extend_from_slice(b"100000\r\n");
                bytes.resize(bytes.len() + (1 << 20), b' ');
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            bytes
        })
        .await;
}

async fn bodies(attacker: &mut Attacker) {
    attacker.embed("a body of 33 MiB", vec![b' '; 33 << 20]).await;
    attacker.embed("JSON 100 000 levels deep", "[".repeat(100_000).into_bytes()).await;
    attacker.embed("a body that is not UTF-8", b"{\"input\": \"\xff\xfe\"}".to_vec()).await;
    attacker
        .embed("a number beyond all numbers", b"{\"input\": \"a\", \"dimensions\": 1e999}".to_vec())
        .await;
    attacker
        .json("`dimensions` of four billion", json!({"input": "a", "dimensions": 4_000_000_000_u64}))
        .await;
    attacker.json("2049 inputs", json!({"input": vec!["a"; 2049]})).await;
    attacker.json("one text of more than 1 MiB", json!({"input": "a".repeat((1 << 20) + 1)})).await;
    attacker.json("an object where a text is due", json!({"input": {"$ne": null}})).await;
    attacker
        .json(
            "`../../../../etc/passwd` as the model",
            json!({"input": "a", "model": "../../../../etc/passwd"}),
        )
        .await;
    attacker.json("`/etc` as the model", json!({"input": "a", "model": "/etc"})).await;
    attacker
        .json(
            "a URL as the model (SSRF)",
            json!({"input": "a", "model": "http://169.254.169.254/latest/meta-data"}),
        )
        .await;
    attacker
        .json(
            "line breaks in the model's name, to forge a line of the log",
            json!({"input": "a", "model": "x\nINFO forged line"}),
        )
        .await;
    attacker.json("NUL and control characters in a text", json!({"input": "a\u{0}\u{1b}[2J\u{202e}b"})).await;
    assert!(!attacker.single.log().lines().any(|line| line.starts_with("INFO forged")));
    let request = attacker
        .ask(Method::POST, "/v1/embeddings")
        .bearer_auth(KEY)
        .header("x-request-id", "a".repeat(10_000));
    attacker.http("a request id of 10 000 characters", request.json(&json!({"input": "a"}))).await;
    let request =
        attacker.ask(Method::POST, "/v1/embeddings").bearer_auth(KEY).header("content-encoding", "gzip");
    attacker
        .http(
            "a compressed body (a bomb)",
            request.header("content-type", "application/json").body(vec![0x1f, 0x8b, 8, 0]),
        )
        .await;
    let request =
        attacker.ask(Method::POST, "/v1/embeddings").bearer_auth(KEY).header("content-type", "text/plain");
    attacker.http("a form's content type, which needs no preflight", request.body("{\"input\":\"a\"}")).await;
}

async fn forged_tokens(attacker: &mut Attacker) {
    let encode = |value: &Value| {
        use base64::Engine as _;
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
    };
    let real = good("ann", "user");
    let parts: Vec<String> = real.split('.').map(str::to_owned).collect();
    let admin = encode(&ours("ann", "admin"));
    attacker.token("token: `alg: none`", format!("{}.{admin}.", encode(&json!({"alg": "none"})))).await;
    attacker
        .token(
            "token: `alg: nOnE` with a signature",
            format!("{}.{admin}.{}", encode(&json!({"alg": "nOnE"})), parts[2]),
        )
        .await;
    attacker.token("token: role changed, signature kept", format!("{}.{admin}.{}", parts[0], parts[2])).await;
    attacker.token("token: signature cut off", format!("{}.{}.", parts[0], parts[1])).await;
    attacker
        .token(
            "token: signed with another secret",
            signed(Algorithm::HS256, &ours("ann", "admin"), "another-secret-of-thirty-two-chars"),
        )
        .await;
    attacker
        .token("token: signed with an empty secret", signed(Algorithm::HS256, &ours("ann", "admin"), ""))
        .await;
    attacker
        .token("token: HS512 with our secret", signed(Algorithm::HS512, &ours("ann", "user"), SECRET))
        .await;
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = jsonwebtoken::EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let mut header = jsonwebtoken::Header::new(Algorithm::ES256);
    header.jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::ES256).ok();
    header.jku = Some("https://evil.example/keys".into());
    let own_key = jsonwebtoken::encode(&header, &ours("ann", "admin"), &key).unwrap();
    attacker.token("token: brings its own key (`jwk`, `jku`)", own_key).await;
    let mut header = jsonwebtoken::Header::new(Algorithm::HS256);
    header.kid = Some("../../../../dev/null".into());
    let empty = jsonwebtoken::EncodingKey::from_secret(b"");
    let null = jsonwebtoken::encode(&header, &ours("ann", "admin"), &empty).unwrap();
    attacker.token("token: `kid` is a path to an empty file", null).await;
    attacker.claim("token: expired", "exp", Some(json!(now() - 3600))).await;
    attacker.claim("token: without `exp`", "exp", None).await;
    attacker.claim("token: `exp` is a text", "exp", Some(json!("9999999999"))).await;
    attacker.claim("token: not valid yet", "nbf", Some(json!(now() + 3600))).await;
    attacker.claim("token: without `sub`", "sub", None).await;
    attacker.claim("token: `sub` is blank", "sub", Some(json!(" "))).await;
    attacker.claim("token: another audience", "aud", Some(json!("payroll"))).await;
    attacker.claim("token: another issuer", "iss", Some(json!("https://evil.example"))).await;
    attacker.claim("token: revoked", "jti", Some(json!("stolen"))).await;
    attacker.claim("token: without `jti`, so that it cannot be revoked", "jti", None).await;
    attacker.claim("token: a refresh token", "type", Some(json!("refresh"))).await;
    attacker.claim("token: `role` is a list that holds admin", "role", Some(json!(["admin"]))).await;
    attacker.token("token: 20 000 characters", "A".repeat(20_000)).await;
    attacker.token("token: the key of single_user", KEY.to_owned()).await;
}

async fn users(attacker: &mut Attacker) {
    let ann = good("ann", "user");
    let warm = attacker.with_token(Method::POST, "/api/v1/embeddings/models/warmup", &ann).json(&json!({}));
    attacker.http("a user does what is an admin's (warm-up)", warm).await;
    let download = attacker.with_token(Method::POST, "/api/v1/embeddings/models/download", &ann);
    attacker.http("a user downloads a model", download.json(&json!({"model": "a/b"}))).await;
    let wish = attacker.with_token(Method::POST, "/v1/embeddings", &ann);
    attacker
        .http(
            "a user asks for a model that is not here, to fill the disk",
            wish.json(&json!({"input": "a", "model": "some/model"})),
        )
        .await;
    let spy = attacker.with_token(Method::GET, "/api/v1/embeddings/usage?user=bob", &ann);
    attacker.http("a user reads the usage of another", spy).await;
    let injection =
        attacker.with_token(Method::GET, "/api/v1/embeddings/usage?from=2026-01-01'%20OR%201=1--", &ann);
    attacker.http("SQL in a parameter of the usage report", injection).await;
    let capital = good("ann", "ADMIN");
    let warm =
        attacker.with_token(Method::POST, "/api/v1/embeddings/models/warmup", &capital).json(&json!({}));
    attacker.http("`role: ADMIN`", warm).await;
    let climber = good("../../../../tmp/evil", "user");
    let request = attacker.with_token(Method::POST, "/v1/embeddings", &climber).json(&json!({"input": "a"}));
    attacker
        .http("a user called `../../../../tmp/evil` (is served; nothing is written outside)", request)
        .await;
    assert!(!Path::new("/tmp/evil").exists());
    let forger = good("ann\n{\"event\":\"forged\"}", "user");
    let warm =
        attacker.with_token(Method::POST, "/api/v1/embeddings/models/warmup", &forger).json(&json!({}));
    attacker.http("a user whose id holds a line of the audit log", warm).await;
    let audit = attacker.many.dir.path().join("Databases/user_databases/.embeddery/audit.jsonl");
    let audit = fs::read_to_string(audit).unwrap();
    assert!(audit.lines().all(|line| line.starts_with("{\"time\":")), "{audit}");
    for secret in [SECRET, ann.as_str(), forger.as_str()] {
        assert!(!audit.contains(secret));
    }
    // The failed logins of this address reach their limit.
    let mut got = String::new();
    for _ in 0..100 {
        got = outcome(attacker.with_token(Method::GET, "/v1/models", "guess")).await;
        if got.starts_with("429") {
            break;
        }
    }
    attacker.note("a hundred guesses from one address", got);
}
