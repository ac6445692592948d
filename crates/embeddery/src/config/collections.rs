//! Where collections are kept, and how much memory and disk that may take.

use std::path::PathBuf;

use embeddery_store::SqliteConfig;
use secrecy::SecretString;
use serde::Deserialize;

use super::resolve::Found;

/// The section `collections` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Collections {
    pub open_users: Option<usize>,
    pub matrix_bytes: Option<usize>,
    pub search_threads: Option<usize>,
    pub min_free_bytes: Option<u64>,
    pub database_connections: Option<usize>,
    pub database_timeout_seconds: Option<f64>,
}

/// Where collections are kept.
#[derive(Clone, Debug)]
pub(crate) struct CollectionsConfig {
    /// The embedded store; holds when there is no database.
    pub(crate) embedded: SqliteConfig,
    /// PostgreSQL.
    pub(crate) database: Option<DatabaseConfig>,
}

/// A database of collections.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseConfig {
    /// `DATABASE_URL`; holds a password.
    pub(crate) url: SecretString,
    /// Connections at most.
    pub(crate) connections: usize,
    /// The longest a statement may take.
    pub(crate) timeout: std::time::Duration,
}

/// Checks the section. Collections go to PostgreSQL when `DATABASE_URL` names one.
pub(super) fn resolve(
    found: &mut Found<'_>,
    written: &Collections,
    fallback: &Collections,
    (user_dir, threads): (PathBuf, usize),
) -> CollectionsConfig {
    let mut size =
        |key, written: Option<usize>, fallback: Option<usize>| found.size(key, written.or(fallback));
    let open_users = size("collections.open_users", written.open_users, fallback.open_users);
    let matrix_bytes = size("collections.matrix_bytes", written.matrix_bytes, fallback.matrix_bytes);
    let connections =
        size("collections.database_connections", written.database_connections, fallback.database_connections);
    let timeout = found.seconds(
        "collections.database_timeout_seconds",
        None,
        written.database_timeout_seconds.or(fallback.database_timeout_seconds),
    );
    let search_threads = match written.search_threads.or(fallback.search_threads) {
        None | Some(0) => threads,
        Some(some) => some,
    };
    let database = found.variable("DATABASE_URL").and_then(|url| {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Some(DatabaseConfig { url: SecretString::from(url.to_owned()), connections, timeout });
        }
        // The url is not shown: it may hold a password. SQLite's is what the replaced service's users have set.
        if !url.starts_with("sqlite") {
            found.problem("DATABASE_URL: is not the URL of a PostgreSQL database; write postgres://user:password@host/name, or unset it to keep collections in USER_DB_BASE_DIR".into());
        }
        None
    });
    let min_free_bytes = written.min_free_bytes.or(fallback.min_free_bytes).unwrap_or(0);
    let embedded =
        SqliteConfig { base_dir: user_dir, open_users, matrix_bytes, search_threads, min_free_bytes };
    CollectionsConfig { embedded, database }
}

#[cfg(test)]
mod tests {
    use super::{super::environment::Environment, *};

    fn section(url: &str, written: &Collections) -> (CollectionsConfig, Vec<String>) {
        let environment: Environment = [("DATABASE_URL".to_owned(), url.to_owned())].into_iter().collect();
        let mut found = Found::new(&environment);
        let fallback = Collections {
            open_users: Some(64),
            matrix_bytes: Some(1 << 30),
            search_threads: Some(0),
            min_free_bytes: Some(1),
            database_connections: Some(16),
            database_timeout_seconds: Some(30.0),
        };
        let config = resolve(&mut found, written, &fallback, (PathBuf::from("u"), 4));
        (config, found.problems)
    }

    #[test]
    fn without_a_database_collections_lie_beside_the_user() {
        let (config, problems) = section("", &Collections::default());
        assert!(problems.is_empty() && config.database.is_none());
        assert_eq!((config.embedded.base_dir, config.embedded.search_threads), ("u".into(), 4));
        assert!(section("sqlite:///x.db", &Collections::default()).0.database.is_none());
    }

    #[test]
    fn a_database_is_postgres_and_its_password_is_not_shown() {
        let (config, _) = section("postgres://u:hunter2@h/d", &Collections::default());
        assert!(!format!("{config:?}").contains("hunter2"));
        let (_, problems) = section("mysql://u:hunter2@h/d", &Collections::default());
        assert!(problems[0].starts_with("DATABASE_URL") && !problems[0].contains("hunter2"), "{problems:?}");
    }

    #[test]
    fn zeros_are_refused() {
        let (_, problems) = section("", &Collections { open_users: Some(0), ..Collections::default() });
        assert!(problems[0].contains("collections.open_users"), "{problems:?}");
    }
}
