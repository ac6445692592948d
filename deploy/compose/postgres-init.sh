#!/bin/sh
# Runs once, when the database is made: a role that is no superuser, because row-level security, which keeps tenants
# apart, does not hold for superusers.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$EMBEDDERY_PASSWORD" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE embeddery LOGIN PASSWORD :'password';
CREATE DATABASE embeddery OWNER embeddery;
\connect embeddery
CREATE EXTENSION vector;
SQL
