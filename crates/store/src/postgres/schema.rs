//! The tables of the store, in the schema `embeddery`. A released script never changes.
//!
//! As in the embedded store, documents and chunks are stored once and vectors belong to a generation. Every row names
//! its tenant. A policy on every table lets a transaction see the rows of its own tenant only; it binds the owner of the
//! tables, too. Policies do not bind a superuser, so the service must not run as one.

use deadpool_postgres::Client;

use super::{
    migrations::{MigrationStep, Migrations},
    words,
};
use crate::StoreError;

const MIGRATIONS: [MigrationStep; 4] = [
    MigrationStep::Script(r#"
    CREATE SEQUENCE embeddery.ids;
    CREATE TABLE embeddery.collections (
        id bigint PRIMARY KEY,
        tenant text NOT NULL,
        name text NOT NULL COLLATE "C",
        metadata jsonb NOT NULL,
        live bigint NOT NULL,                       -- the generation that is searched
        building bigint,                            -- the one a migration makes
        UNIQUE (tenant, name)
    );
    CREATE TABLE embeddery.generations (
        id bigint PRIMARY KEY,
        tenant text NOT NULL,
        collection bigint NOT NULL REFERENCES embeddery.collections ON DELETE CASCADE,
        provider text NOT NULL,
        model text NOT NULL,
        space text NOT NULL,
        dim integer NOT NULL,
        cut boolean NOT NULL
    );
    CREATE INDEX generations_of_collection ON embeddery.generations (collection);
    CREATE TABLE embeddery.documents (
        id bigint PRIMARY KEY,
        tenant text NOT NULL,
        collection bigint NOT NULL REFERENCES embeddery.collections ON DELETE CASCADE,
        name text NOT NULL COLLATE "C",
        metadata jsonb NOT NULL,
        UNIQUE (collection, name)
    );
    CREATE INDEX documents_by_metadata ON embeddery.documents USING gin (metadata jsonb_path_ops);
    CREATE TABLE embeddery.chunks (
        id bigint PRIMARY KEY,
        tenant text NOT NULL,
        document bigint NOT NULL REFERENCES embeddery.documents ON DELETE CASCADE,
        ordinal bigint NOT NULL,
        fingerprint bytea NOT NULL,
        occurrence bigint NOT NULL,
        span bigint[] NOT NULL,                     -- bytes from, to, characters from, to
        text text NOT NULL,
        -- A longer text has no more words that anybody looks for, and would not fit a tsvector.
        words tsvector GENERATED ALWAYS AS (to_tsvector('simple', left(text, 200000))) STORED
    );
    CREATE INDEX chunks_of_document ON embeddery.chunks (document, ordinal);
    CREATE INDEX chunks_by_words ON embeddery.chunks USING gin (words);
    CREATE TABLE embeddery.vectors (
        generation bigint NOT NULL REFERENCES embeddery.generations ON DELETE CASCADE,
        chunk bigint NOT NULL REFERENCES embeddery.chunks ON DELETE CASCADE,
        tenant text NOT NULL,
        document bigint NOT NULL,
        embedding halfvec NOT NULL,
        PRIMARY KEY (generation, chunk)
    );
    CREATE INDEX vectors_of_chunk ON embeddery.vectors (chunk);
    DO $$
    DECLARE name text;
    BEGIN
        FOREACH name IN ARRAY ARRAY['collections', 'generations', 'documents', 'chunks', 'vectors'] LOOP
            EXECUTE format('ALTER TABLE embeddery.%I ENABLE ROW LEVEL SECURITY', name);
            EXECUTE format('ALTER TABLE embeddery.%I FORCE ROW LEVEL SECURITY', name);
            EXECUTE format('CREATE POLICY own_rows ON embeddery.%I
                USING (tenant = current_setting(''embeddery.tenant'', true))
                WITH CHECK (tenant = current_setting(''embeddery.tenant'', true))', name);
        END LOOP;
    END $$;
"#),
    MigrationStep::Script("
    ALTER TABLE embeddery.documents ADD COLUMN submission uuid;     -- of version 7: a later one is higher
    ALTER TABLE embeddery.chunks ADD COLUMN headings jsonb;         -- a list; NULL is none
"),
    MigrationStep::Script("
    CREATE TABLE embeddery.deletions (
        tenant text NOT NULL,
        collection text NOT NULL,
        document text NOT NULL,                                     -- empty: the whole collection
        submission uuid NOT NULL,                                   -- the deletion's place among submissions
        PRIMARY KEY (tenant, collection, document)
    );
    ALTER TABLE embeddery.deletions ENABLE ROW LEVEL SECURITY;
    ALTER TABLE embeddery.deletions FORCE ROW LEVEL SECURITY;
    CREATE POLICY own_rows ON embeddery.deletions
        USING (tenant = current_setting('embeddery.tenant', true))
        WITH CHECK (tenant = current_setting('embeddery.tenant', true));
"),
    MigrationStep::Code("
    ALTER TABLE embeddery.chunks DROP COLUMN words;
    ALTER TABLE embeddery.chunks ADD COLUMN word_count integer NOT NULL DEFAULT 0;
    -- An earlier version that still runs must not add chunks without words, nor remove chunks without counting them.
    ALTER TABLE embeddery.chunks ALTER COLUMN word_count DROP DEFAULT;
    CREATE FUNCTION embeddery.refuse_earlier_versions() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('embeddery.counts_words', true) IS DISTINCT FROM 'on' THEN
            RAISE EXCEPTION 'chunks can only be removed by a version of the service that counts their words'
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER counts_words BEFORE DELETE ON embeddery.chunks
        FOR EACH STATEMENT EXECUTE FUNCTION embeddery.refuse_earlier_versions();
    CREATE TABLE embeddery.words (
        chunk bigint PRIMARY KEY REFERENCES embeddery.chunks ON DELETE CASCADE,
        tenant text NOT NULL,
        tokens tsvector NOT NULL,                                   -- each with the prefix of its collection
        -- The same as in `chunks`. A search reads it here without a join. A deletion reads it there, because the policy
        -- hides the rows of this table from it.
        word_count integer NOT NULL
    );
    ALTER TABLE embeddery.words ENABLE ROW LEVEL SECURITY;
    ALTER TABLE embeddery.words FORCE ROW LEVEL SECURITY;
    -- Only a condition of a policy can use the index on tokens, because @@ is not leakproof. A subquery is evaluated once, a
    -- setting for each row.
    CREATE POLICY found_rows ON embeddery.words FOR SELECT
        USING (tenant = (SELECT current_setting('embeddery.tenant', true))
               AND tokens @@ (SELECT current_setting('embeddery.words', true)::tsquery));
    CREATE POLICY new_rows ON embeddery.words FOR INSERT
        WITH CHECK (tenant = current_setting('embeddery.tenant', true));
    CREATE TABLE embeddery.word_totals (
        collection bigint NOT NULL REFERENCES embeddery.collections ON DELETE CASCADE,
        shard integer NOT NULL,                                     -- the rows of a collection are summed
        tenant text NOT NULL,
        chunks bigint NOT NULL,
        words bigint NOT NULL,
        PRIMARY KEY (collection, shard)
    );
    ALTER TABLE embeddery.word_totals ENABLE ROW LEVEL SECURITY;
    ALTER TABLE embeddery.word_totals FORCE ROW LEVEL SECURITY;
    CREATE POLICY own_rows ON embeddery.word_totals
        USING (tenant = current_setting('embeddery.tenant', true))
        WITH CHECK (tenant = current_setting('embeddery.tenant', true));
    CREATE FUNCTION embeddery.count_matches(queries text[], max_count bigint) RETURNS bigint[]
    LANGUAGE plpgsql AS $$
    DECLARE
        query text;
        wanted tsquery;
        matches bigint;
        counts bigint[] := '{}';
    BEGIN
        FOREACH query IN ARRAY queries LOOP
            PERFORM set_config('embeddery.words', query, true);
            wanted := query::tsquery;
            SELECT count(*) INTO matches FROM (
                SELECT 1 FROM embeddery.words w WHERE w.tokens @@ wanted LIMIT max_count) AS counted;
            counts := counts || matches;
        END LOOP;
        RETURN counts;
    END $$;
", |tx| Box::pin(words::index_all_words(tx))),
];

/// Key of the advisory lock. It lets one transaction at a time migrate the schema or create an index.
pub(super) const LOCK: i64 = 0x656d_6265_6464_6572;

/// Migrates the database to the schema of this version.
pub(super) async fn migrate(client: &mut Client) -> Result<(), StoreError> {
    let tx = client.transaction().await?;
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let has_extension = tx.query_opt("SELECT 1 FROM pg_extension WHERE extname = 'vector'", &[]).await?;
    if has_extension.is_none() {
        tx.batch_execute("CREATE EXTENSION vector").await.map_err(|error| {
            tracing::error!(%error, "pgvector cannot be installed in the database");
            StoreError::unavailable(
                "the database has no pgvector; run CREATE EXTENSION vector in it as a superuser",
            )
        })?;
    }
    tx.batch_execute("CREATE SCHEMA IF NOT EXISTS embeddery").await?;
    let migrations = Migrations { table: "migrations", subject: "the database was", steps: &MIGRATIONS };
    migrations.apply(&tx).await?;
    let role = tx
        .query_one("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user", &[])
        .await?;
    if role.get(0) {
        tracing::warn!("the database's role is above row-level security; use one that is no superuser");
    }
    Ok(tx.commit().await?)
}

/// Maximum dimensions of a half vector in pgvector's HNSW index. Longer vectors are searched without an index.
pub(super) const MAX_INDEXED_DIMENSIONS: usize = 4000;
