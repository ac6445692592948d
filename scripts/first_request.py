#!/usr/bin/env python3
"""Prints the curl that asks a server started by `make run` for its first vector."""

import sys

address = sys.argv[1]
print(f"""
In another terminal, from this directory:

  curl -s http://{address}/v1/embeddings \\
    -H "Authorization: Bearer $(cat Databases/user_databases/.embeddery/api-key)" \\
    -H 'Content-Type: application/json' \\
    -d '{{"input": "The quick brown fox jumps over the lazy dog."}}'

The API's documentation: http://{address}/docs
""")
