#!/usr/bin/env bash
# Submits documents as a job, follows its progress until it ends, and searches the collection.
set -euo pipefail
url=${EMBEDDERY_URL:-http://127.0.0.1:8000}/api/v1/embeddings
key=${EMBEDDERY_API_KEY:-$(cat Databases/user_databases/.embeddery/api-key)}
name=example-job-$$
curl="curl --fail-with-body --silent --show-error"

# The same request with the same Idempotency-Key returns the same job.
submit() {
    printf '{"id": "a", "text": "Holidays are requested two weeks ahead."}\n{"id": "b", "text": "The coffee machine is cleaned on Fridays."}\n' |
        $curl "$url/jobs?collection=$name" -H "X-API-KEY: $key" -H "Idempotency-Key: $name" \
            -H 'Content-Type: application/x-ndjson' --data-binary @- |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["job_id"])'
}
job=$(submit)
test "$(submit)" = "$job"

$curl --no-buffer "$url/jobs/$job/events" -H "X-API-KEY: $key" # server-sent events; the stream ends with the job
$curl "$url/collections/$name/search" -H "X-API-KEY: $key" -H 'Content-Type: application/json' \
    -d '{"query": "vacation", "top_k": 1, "with_text": true}'
echo
$curl -X DELETE "$url/collections/$name" -H "X-API-KEY: $key"
echo
