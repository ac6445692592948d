//! The schema of the jobs, in the database of the collections. A released migration never changes.
//!
//! A policy on every table limits a transaction to the rows of one tenant. A transaction of a worker or an operator,
//! which serves all tenants, sets `embeddery.all_tenants`.

use deadpool_postgres::Client;
use embeddery_store::{MigrationStep, Migrations, StoreError};

const MIGRATIONS: [MigrationStep; 2] = [
    MigrationStep::Script(r#"
    CREATE FUNCTION embeddery.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
        'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint';
    CREATE TABLE embeddery.jobs (
        id uuid PRIMARY KEY,                        -- of version 7: a newer job has a higher one
        tenant text NOT NULL COLLATE "C",
        idempotency_key text COLLATE "C",
        body_hash bytea,                            -- known when the job starts
        max_unfinished bigint,
        plan text NOT NULL,                         -- JSON
        priority smallint NOT NULL,
        traceparent text,
        status smallint NOT NULL DEFAULT -1,        -- -1: open, and invisible
        skipped boolean NOT NULL DEFAULT false,     -- by an operator
        documents integer NOT NULL DEFAULT 0,
        submitted_at bigint NOT NULL,               -- milliseconds since 1970; while open: last added to
        started_at bigint,
        ended_at bigint,
        counts bigint[]                             -- of documents and chunks, once it has ended
    );
    CREATE UNIQUE INDEX jobs_by_key ON embeddery.jobs (tenant, idempotency_key) WHERE status >= 0;
    CREATE INDEX jobs_by_key_alone ON embeddery.jobs (idempotency_key);
    CREATE INDEX jobs_by_tenant ON embeddery.jobs (tenant, id);
    CREATE INDEX jobs_unfinished ON embeddery.jobs (id) WHERE status IN (0, 1);
    CREATE INDEX jobs_ended ON embeddery.jobs (ended_at);
    CREATE TABLE embeddery.job_documents (
        job uuid NOT NULL REFERENCES embeddery.jobs ON DELETE CASCADE,
        item integer NOT NULL,
        tenant text NOT NULL COLLATE "C",
        id text NOT NULL COLLATE "C",
        state smallint NOT NULL DEFAULT 0,
        bytes bigint NOT NULL,                      -- of text
        chunks bigint,
        attempts integer NOT NULL DEFAULT 0,
        failed_at smallint,                         -- the stage at which it failed
        code text,
        message text,
        touched_at bigint NOT NULL,
        PRIMARY KEY (job, item)
    );
    CREATE INDEX job_documents_unfinished ON embeddery.job_documents (job, item) WHERE state < 3;
    CREATE INDEX job_documents_failed ON embeddery.job_documents (job, item) WHERE state = 4;
    CREATE TABLE embeddery.job_contents (
        job uuid NOT NULL,
        item integer NOT NULL,
        tenant text NOT NULL COLLATE "C",
        text bytea NOT NULL,                        -- may contain U+0000
        metadata text NOT NULL,                     -- JSON
        content_type text,
        spans text,
        vectors_head text,
        vectors bytea,
        PRIMARY KEY (job, item),
        FOREIGN KEY (job, item) REFERENCES embeddery.job_documents ON DELETE CASCADE
    );
    DO $$
    DECLARE name text;
    BEGIN
        FOREACH name IN ARRAY ARRAY['jobs', 'job_documents', 'job_contents'] LOOP
            EXECUTE format('ALTER TABLE embeddery.%I ENABLE ROW LEVEL SECURITY', name);
            EXECUTE format('ALTER TABLE embeddery.%I FORCE ROW LEVEL SECURITY', name);
            EXECUTE format('CREATE POLICY own_rows ON embeddery.%I
                USING (tenant = current_setting(''embeddery.tenant'', true)
                       OR current_setting(''embeddery.all_tenants'', true) = ''on'')', name);
        END LOOP;
    END $$;
"#),
    MigrationStep::Script("
    ALTER TABLE embeddery.job_documents
        ADD COLUMN since bigint NOT NULL DEFAULT 0, -- when it was set back to be tried again, or when the task that
                                                    -- failed entered the queue; earlier tasks are obsolete
        ADD COLUMN again_at bigint;                 -- when a delayed document is tried again
    CREATE TABLE embeddery.claims (what text PRIMARY KEY, until bigint NOT NULL);
"),
];

/// Key of the advisory lock that lets one process at a time migrate.
const LOCK: i64 = 0x656d_6265_6464_6a6f;

/// Migrates the database to this version's schema.
pub(super) async fn migrate(client: &mut Client) -> Result<(), StoreError> {
    let tx = client.transaction().await?;
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let migrations =
        Migrations { table: "job_migrations", subject: "the jobs in the database were", steps: &MIGRATIONS };
    migrations.apply(&tx).await?;
    Ok(tx.commit().await?)
}
