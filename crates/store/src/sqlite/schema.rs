//! The schema of a user's database, as migration scripts.
//!
//! Documents and chunks are stored once. Vectors belong to a *generation*, which is one model's vectors of one
//! collection. A search reads the active generation of a collection (column `live`); a second one may be under
//! construction.
//! A vector is never changed in place and its id is never used again, so that an id always has the same content and a
//! matrix only has to add new rows. A generation counts the vectors that were ever removed from it: a matrix with the
//! same count has no rows that are gone.

use embeddery_database::sqlite::Migration;

use super::write;
use crate::{StoreError, StoreErrorKind};

/// Migration n brings schema n to n + 1. A released migration never changes.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration::Script(
        "
    CREATE TABLE collections (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        metadata TEXT NOT NULL,
        live INTEGER NOT NULL,                      -- the generation that is searched
        building INTEGER,                           -- the one a migration makes
        documents INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE generations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        space TEXT NOT NULL,
        dim INTEGER NOT NULL,
        cut INTEGER NOT NULL,
        vectors INTEGER NOT NULL DEFAULT 0,         -- how many there are
        removals INTEGER NOT NULL DEFAULT 0,        -- how many there were and are gone
        last_vector INTEGER NOT NULL DEFAULT 0      -- the highest id among them ever
    ) STRICT;
    CREATE TABLE documents (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection INTEGER NOT NULL,
        name TEXT NOT NULL,
        metadata TEXT NOT NULL,
        UNIQUE (collection, name)
    ) STRICT;
    -- Metadata taken apart for filters. The first letter of a key is the value's type: n, s or b.
    CREATE TABLE attributes (
        collection INTEGER NOT NULL,
        key TEXT NOT NULL,
        value ANY NOT NULL,
        document INTEGER NOT NULL,
        PRIMARY KEY (collection, key, value, document)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        document INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        fingerprint BLOB NOT NULL,
        occurrence INTEGER NOT NULL,
        byte_from INTEGER NOT NULL,
        byte_to INTEGER NOT NULL,
        char_from INTEGER NOT NULL,
        char_to INTEGER NOT NULL,
        text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX chunks_of_document ON chunks (document, ordinal);
    CREATE TABLE vectors (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        generation INTEGER NOT NULL,
        document INTEGER NOT NULL,
        chunk INTEGER NOT NULL,
        vector BLOB NOT NULL                        -- f32, little-endian
    ) STRICT;
    CREATE INDEX vectors_of_generation ON vectors (generation);
    CREATE UNIQUE INDEX vectors_of_chunk ON vectors (chunk, generation);
    CREATE VIRTUAL TABLE words USING fts5 (
        text, content = 'chunks', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
    );
",
    ),
    Migration::Script(
        "
    ALTER TABLE documents ADD COLUMN submission BLOB; -- of UUID version 7: a later one is higher
    ALTER TABLE chunks ADD COLUMN headings TEXT;      -- a JSON list; NULL is none
",
    ),
    Migration::Script(
        "
    CREATE TABLE deletions (
        collection TEXT NOT NULL,
        document TEXT NOT NULL,                         -- empty: the whole collection
        submission BLOB NOT NULL,                       -- the deletion's place among submissions
        PRIMARY KEY (collection, document)
    ) STRICT, WITHOUT ROWID;
",
    ),
    // Numbers of attributes are exact, and lists in lists have none.
    Migration::Code("", write::derive_attributes),
    // The tokens are ours. The tokenizer only splits them at spaces: it takes letters of all scripts as they are. The
    // index needs no text to remove a row, so a later version may make other tokens.
    Migration::Code(
        "
    DROP TABLE words;
    CREATE VIRTUAL TABLE words USING fts5 (
        tokens, spellings, content = '', contentless_delete = 1, tokenize = \"ascii tokenchars '_.+#'\"
    );
",
        write::index_all_words,
    ),
];

/// The error of a database that a newer version of the program has written.
pub(super) fn too_new(found: usize, known: usize) -> StoreError {
    let message = format!(
        "this user's collections were written by a newer version (schema {found}, known here is {known}); use that version"
    );
    StoreError::new(StoreErrorKind::TooNew, message)
}

#[cfg(test)]
mod tests {
    use embeddery_database::sqlite::{self, Layout, OpenOptions, Synchronous};

    use super::*;

    const OPTIONS: OpenOptions = OpenOptions {
        busy_timeout: std::time::Duration::from_secs(5),
        synchronous: Synchronous::Normal,
        layout: Layout::SmallRows,
        statement_cache: 8,
    };

    /// Attributes as `key value` of a file of schema 3 with these documents, after its migration. Before it, every
    /// document has one attribute, which no metadata has.
    fn migrated(documents: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vectors.db");
        let old = sqlite::open(&path, &MIGRATIONS[..3], &OPTIONS).unwrap();
        for (id, metadata) in (1..).zip(documents) {
            let sql = "INSERT INTO documents (id, collection, name, metadata) VALUES (?1, 7, ?1, ?2)";
            old.execute(sql, rusqlite::params![id, metadata]).unwrap();
            old.execute("INSERT INTO attributes VALUES (7, 'nold', 1.0, ?1)", [id]).unwrap();
        }
        drop(old);
        let new = sqlite::open(&path, MIGRATIONS, &OPTIONS).unwrap();
        let sql = "SELECT collection || ' ' || document || ' ' || key || ' ' || typeof(value) || ' ' || value
                   FROM attributes ORDER BY document, key, value";
        let mut statement = new.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn attributes_of_an_earlier_version_are_derived_again() {
        assert_eq!(
            migrated(&[
                r#"{"a":1234567890123456789,"b":[1.5,["x"]]}"#,
                "not readable",
                r#"{"c":["x",18446744073709551615]}"#
            ]),
            [
                "7 1 na integer 1234567890123456789",
                "7 1 nb real 1.5",
                "7 3 nc text 02018446744073709551615",
                "7 3 sc text x",
            ]
        );
    }

    #[test]
    fn attributes_that_cannot_differ_are_kept() {
        for same in [r#"{"a":[1,2.5],"b":"1234567890123456789"}"#, "{}"] {
            assert_eq!(migrated(&[same]), ["7 1 nold real 1.0"]);
        }
        for other in [r#"{"a":[["x"]]}"#, r#"{"a":[1,["x"]]}"#, r#"{"a":1e300}"#] {
            assert!(!migrated(&[other]).contains(&"7 1 nold real 1.0".to_owned()), "{other}");
        }
    }
}
