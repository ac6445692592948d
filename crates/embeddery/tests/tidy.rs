//! The rules of ARCHITECTURE.md that the compiler does not check. The name of each test contains the invariant's number.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every Rust file below `dir` of the repository, with its text.
fn rust_files(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(dir)];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no files below {dir}");
    found
}

/// The source files of the crates, without tests, examples and benches.
fn product_files() -> Vec<(PathBuf, String)> {
    rust_files("crates")
        .into_iter()
        .filter(|(path, _)| path.components().any(|part| part.as_os_str() == "src"))
        .collect()
}

fn offenders(files: &[(PathBuf, String)], wrong: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    files
        .iter()
        .filter(|(path, text)| wrong(path, text))
        .map(|(path, _)| path.display().to_string())
        .collect()
}

/// The names of a crate's direct dependencies, without dev-dependencies.
fn dependencies(name: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == name);
    package.unwrap_or_else(|| panic!("no crate {name}"))["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

const CRATES: [&str; 14] = [
    "embeddery-accounts",
    "embeddery-chunk",
    "embeddery-store",
    "embeddery-core",
    "embeddery-database",
    "embeddery-engine",
    "embeddery-model-store",
    "embeddery-providers",
    "embeddery-gateway",
    "embeddery-ingest",
    "embeddery-pipeline",
    "embeddery-server",
    "embeddery",
    "embeddery-test-support",
];

#[test]
fn invariant_1_core_names_no_runtime_and_the_engine_no_crate_of_the_workspace() {
    assert_eq!(dependencies("embeddery-core"), ["strsim"]);
    let ours: Vec<_> =
        dependencies("embeddery-engine").into_iter().filter(|name| name.starts_with("embeddery")).collect();
    assert_eq!(ours, Vec::<String>::new());
    for runtime in ["tokio", "reqwest", "axum", "hyper"] {
        assert!(
            !dependencies("embeddery-engine").iter().any(|name| name == runtime),
            "the engine names {runtime}"
        );
    }
}

#[test]
fn invariant_2_only_the_listed_crates_name_axum_and_an_http_client() {
    for name in CRATES.iter().filter(|name| !["embeddery-server", "embeddery-test-support"].contains(name)) {
        assert!(!dependencies(name).iter().any(|dependency| dependency == "axum"), "{name} names axum");
    }
    let may = ["embeddery-model-store", "embeddery-providers", "embeddery-store", "embeddery-test-support"];
    for name in CRATES.iter().filter(|name| !may.contains(name)) {
        assert!(!dependencies(name).iter().any(|dependency| dependency == "reqwest"), "{name} names reqwest");
    }
}

#[test]
fn invariants_2_and_4_only_one_module_of_the_providers_uses_the_http_client() {
    let wrong = offenders(&product_files(), |path, text| {
        let path = path.display().to_string();
        path.contains("providers/src") && !path.contains("providers/src/http") && text.contains("reqwest")
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn invariant_2_one_crate_opens_connections_to_redis() {
    let wrong = offenders(&product_files(), |path, text| {
        let path = path.display().to_string();
        let may = path.contains("crates/database/src/redis") || path.contains("crates/test-support/src");
        let opens =
            ["Client::open", "Client::build", "ConnectionManager", "IntoConnectionInfo", "ClientBuilder"];
        !may && text.contains("redis") && opens.iter().any(|name| text.contains(name))
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn invariant_2_one_crate_opens_sqlite_files() {
    let wrong = offenders(&product_files(), |path, text| {
        !path.display().to_string().contains("crates/database/src/sqlite")
            && text.contains("Connection::open")
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn invariant_2_only_the_listed_crates_name_redis() {
    let may = [
        "embeddery-accounts",
        "embeddery-database",
        "embeddery-gateway",
        "embeddery-pipeline",
        "embeddery-test-support",
    ];
    for name in CRATES.iter().filter(|name| !may.contains(name)) {
        assert!(!dependencies(name).iter().any(|dependency| dependency == "redis"), "{name} names redis");
    }
}

#[test]
fn each_crate_depends_only_on_the_allowed_crates() {
    let allowed: [(&str, &[&str]); 11] = [
        ("embeddery-database", &[]),
        ("embeddery-accounts", &["embeddery-core", "embeddery-database"]),
        ("embeddery-chunk", &[]),
        ("embeddery-store", &["embeddery-core", "embeddery-database"]),
        ("embeddery-model-store", &["embeddery-core"]),
        ("embeddery-providers", &["embeddery-core", "embeddery-engine"]),
        ("embeddery-gateway", &["embeddery-core", "embeddery-database"]),
        (
            "embeddery-ingest",
            &[
                "embeddery-accounts",
                "embeddery-chunk",
                "embeddery-core",
                "embeddery-gateway",
                "embeddery-store",
            ],
        ),
        (
            "embeddery-server",
            &[
                "embeddery-accounts",
                "embeddery-chunk",
                "embeddery-core",
                "embeddery-gateway",
                "embeddery-ingest",
                "embeddery-pipeline",
                "embeddery-store",
            ],
        ),
        (
            "embeddery-pipeline",
            &[
                "embeddery-accounts",
                "embeddery-chunk",
                "embeddery-core",
                "embeddery-database",
                "embeddery-gateway",
                "embeddery-ingest",
                "embeddery-store",
            ],
        ),
        ("embeddery-test-support", &["embeddery-core"]),
    ];
    for (name, allowed) in allowed {
        for dependency in dependencies(name).iter().filter(|dependency| dependency.starts_with("embeddery")) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn invariant_3_only_the_config_module_reads_the_environment() {
    let wrong = offenders(&product_files(), |path, text| {
        !path.ends_with("config/environment.rs") && text.contains("env::var")
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn invariant_4_one_module_chooses_statuses() {
    // A handler chooses the status of a success. Only the error table chooses the status of a failure.
    let failures =
        ["BAD_REQUEST", "UNAUTHORIZED", "FORBIDDEN", "TOO_MANY_REQUESTS", "BAD_GATEWAY", "GATEWAY_TIMEOUT"];
    let wrong = offenders(&product_files(), |path, text| {
        path.components().any(|part| part.as_os_str() == "server")
            && !path.parent().is_some_and(|folder| folder.ends_with("server/src/error"))
            && failures.iter().any(|status| text.contains(&format!("StatusCode::{status}")))
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn invariant_6_inner_types_are_not_serialisable() {
    assert!(!dependencies("embeddery-core").iter().any(|name| name == "serde"));
    assert!(!dependencies("embeddery-gateway").iter().any(|name| name == "serde"));
}

#[test]
fn invariant_7_no_stateful_statics() {
    let wrong = offenders(&product_files(), |_, text| {
        text.lines().any(|line| {
            let line = line.trim_start();
            (line.starts_with("static ")
                || line.starts_with("pub static ")
                || line.starts_with("pub(crate) static "))
                && ["Mutex", "RwLock", "Atomic", "OnceLock", "LazyLock", "OnceCell", "mut "]
                    .iter()
                    .any(|state| line.contains(state))
        })
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_file_has_a_module_doc_and_at_most_800_lines() {
    let files = rust_files("crates");
    let undocumented = offenders(&files, |path, text| {
        let readme = (path.ends_with("lib.rs") || path.ends_with("main.rs")) && text.starts_with("#![doc");
        !text.starts_with("//!") && !readme
    });
    assert_eq!(undocumented, Vec::<String>::new(), "a file begins with its module doc");
    let long = offenders(&files, |_, text| text.lines().count() > 800);
    assert_eq!(long, Vec::<String>::new(), "a file has more than 800 lines");
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    for line in section.lines().filter(|line| line.contains('=') && !line.starts_with("embeddery")) {
        assert!(line.contains(" # "), "a dependency has no reason: {line}");
    }
}

#[test]
fn the_repository_contains_no_large_or_binary_file() {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    for name in String::from_utf8(listed.stdout).unwrap().split('\0').filter(|name| !name.is_empty()) {
        let Ok(content) = fs::read(root().join(name)) else { continue };
        assert!(content.len() < 512 * 1024, "{name} has {} bytes", content.len());
        assert!(!content.contains(&0), "{name} is binary");
    }
}

#[test]
fn each_decision_of_the_architecture_names_files_that_exist() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let decisions = page.split("## Decisions, with their price").nth(1).unwrap();
    // A decision is one bullet of several lines and ends with its files: (`crate/path`, `crate/path`).
    let decisions: Vec<String> = decisions
        .split("\n- **")
        .skip(1)
        .map(|text| text.split("\n\n").next().unwrap().replace('\n', " "))
        .collect();
    assert!(decisions.len() > 30, "{}", decisions.len());
    for decision in decisions {
        let files = decision.trim_end().rsplit_once('(').map_or("", |(_, files)| files);
        let paths: Vec<&str> = files.split('`').skip(1).step_by(2).collect();
        assert!(!paths.is_empty(), "no file: {decision}");
        for path in paths {
            let (name, file) = path.split_once('/').unwrap_or((path, ""));
            let found = root().join("crates").join(name).join("src").join(file);
            assert!(found.exists(), "{path} does not exist: {decision}");
        }
    }
}
