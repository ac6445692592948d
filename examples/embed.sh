#!/usr/bin/env bash
# Prints the vector of a text: embed.sh ["TEXT"]
set -euo pipefail
url=${EMBEDDERY_URL:-http://127.0.0.1:8000}
key=${EMBEDDERY_API_KEY:-$(cat Databases/user_databases/.embeddery/api-key)}
text=${1:-The quick brown fox jumps over the lazy dog.}

# Python writes the JSON, so that quotes and line breaks in the text are escaped.
body=$(python3 -c 'import json, sys; print(json.dumps({"input": sys.argv[1]}))' "$text")
curl --fail-with-body --silent --show-error "$url/v1/embeddings" \
    -H "Authorization: Bearer $key" -H 'Content-Type: application/json' -d "$body"
echo
