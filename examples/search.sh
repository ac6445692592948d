#!/usr/bin/env bash
# Creates a collection, adds documents, searches them in three ways, and deletes the collection.
set -euo pipefail
url=${EMBEDDERY_URL:-http://127.0.0.1:8000}/api/v1/embeddings/collections
key=${EMBEDDERY_API_KEY:-$(cat Databases/user_databases/.embeddery/api-key)}
name=example-notes-$$

call() { # METHOD PATH [JSON]
    curl --fail-with-body --silent --show-error -X "$1" "$url$2" -H "X-API-KEY: $key" \
        -H 'Content-Type: application/json' ${3:+-d "$3"}
    echo
}

call POST "" "{\"name\": \"$name\"}"
trap 'call DELETE "/$name"' EXIT
call POST "/$name/documents" '{"documents": [
    {"id": "1", "text": "The parcel never arrived.", "metadata": {"kind": "mail", "year": 2024}},
    {"id": "2", "text": "Sourdough bread needs two days of rest.", "metadata": {"kind": "recipe", "year": 2019}},
    {"id": "3", "text": "Refunds take five working days.", "metadata": {"kind": "mail", "year": 2025}}]}'

echo "By meaning:"
call POST "/$name/search" '{"query": "lost delivery", "top_k": 1, "with_text": true}'
echo "By meaning and by words:"
call POST "/$name/search" '{"query": "sourdough", "mode": "hybrid", "top_k": 1, "with_text": true}'
echo "With a filter:"
call POST "/$name/search" '{"query": "money", "top_k": 1, "with_text": true, "filter": {"kind": "mail", "year": {"$gte": 2025}}}'
