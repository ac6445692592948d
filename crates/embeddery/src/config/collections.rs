//! Where collections are kept, and how much memory and disk that may take.

use std::path::PathBuf;

use embeddery_store::SqliteConfig;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    reader::SettingReader,
    units::{Bytes, Positive, Seconds},
};

/// The section `collections`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CollectionsSection {
    open_users: Positive,
    matrix_bytes: Positive,
    search_threads: usize,
    min_free_bytes: Bytes,
    database_url: Option<SecretString>,
    database_connections: Positive,
    database_timeout_seconds: Seconds,
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
    reader: &mut SettingReader,
    section: CollectionsSection,
    (base_dir, threads): (PathBuf, usize),
) -> CollectionsConfig {
    let is_postgres = |url: &SecretString| {
        let url = url.expose_secret();
        url.starts_with("postgres://") || url.starts_with("postgresql://")
    };
    // The url is not shown: it may hold a password. SQLite's is what the replaced service's users have set.
    if section
        .database_url
        .as_ref()
        .is_some_and(|url| !is_postgres(url) && !url.expose_secret().starts_with("sqlite"))
    {
        reader.problem("DATABASE_URL: is not the URL of a PostgreSQL database; write postgres://user:password@host/name, or unset it to keep collections in USER_DB_BASE_DIR");
    }
    let database = section.database_url.filter(is_postgres).map(|url| DatabaseConfig {
        url,
        connections: section.database_connections.get(),
        timeout: section.database_timeout_seconds.0,
    });
    let embedded = SqliteConfig {
        base_dir,
        open_users: section.open_users.get(),
        matrix_bytes: section.matrix_bytes.get(),
        search_threads: if section.search_threads == 0 { threads } else { section.search_threads },
        min_free_bytes: section.min_free_bytes.0,
    };
    CollectionsConfig { embedded, database }
}

#[cfg(test)]
mod tests {
    use super::{super::tests_support::resolved, *};

    fn section(url: &str) -> Result<CollectionsConfig, String> {
        let text = "collections: {search_threads: 0}\nengine: {threads: 4}\nuser_db_base_dir: u";
        match resolved(text, &[("DATABASE_URL", url)]) {
            Ok(config) => Ok(config.collections),
            Err(error) => Err(error.0.join("\n")),
        }
    }

    #[test]
    fn without_a_database_collections_lie_beside_the_user() {
        let config = section("").unwrap();
        assert!(config.database.is_none());
        assert_eq!((config.embedded.base_dir, config.embedded.search_threads), ("u".into(), 4));
        assert!(section("sqlite:///x.db").unwrap().database.is_none());
    }

    #[test]
    fn a_database_is_postgres_and_its_password_is_not_shown() {
        let config = section("postgres://u:hunter2@h/d").unwrap();
        assert!(config.database.is_some() && !format!("{config:?}").contains("hunter2"));
        let problem = section("mysql://u:hunter2@h/d").unwrap_err();
        assert!(problem.starts_with("DATABASE_URL") && !problem.contains("hunter2"), "{problem}");
    }

    #[test]
    fn zeros_are_refused() {
        let problems = resolved("collections: {open_users: 0}", &[]).err().unwrap().0;
        assert!(problems[0].contains("collections.open_users"), "{problems:?}");
    }
}
