# Two commands are enough: `make run` serves, `make test` proves. The rest is for developers.
# Needs Rust, a C compiler, Python 3 with pip, make; everything else is fetched by the package managers.

SHELL := /bin/bash
MODELS ?= models/embedding_models_data
MINILM := sentence-transformers/all-MiniLM-L6-v2
VENV := .cache/venv
ROOT_DO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
export CARGO_TERM_COLOR ?= auto

.PHONY: run test test-ops dist soak bench bench-store lint fmt docs docs-check openapi golden onnxruntime test-deps test-ops-deps help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## build, fetch the default model, serve on 127.0.0.1:8000 (LISTEN=ADDR:PORT to change)
	cargo build --release --locked --bin embeddery
	python3 scripts/fetch_default_model.py --binary target/release/embeddery --models $(MODELS)
	@python3 scripts/first_request.py "$(or $(LISTEN),127.0.0.1:8000)"
	exec target/release/embeddery serve --listen "$(or $(LISTEN),127.0.0.1:8000)"

test: test-deps ## install what tests need, run all of them
	cargo test --workspace --locked --no-fail-fast
	$(MAKE) docs-check

soak: test-deps ## half an hour: 300 rounds of SIGKILL at random while 2 000 documents are ingested, and a tenant with 10 000
	cargo test -p embeddery --locked --test pipeline -- --ignored --nocapture --test-threads 1

test-deps:
	python3 scripts/install_redis.py
	cargo build --workspace --locked --bin embeddery
	python3 scripts/fetch_default_model.py --binary target/debug/embeddery --models $(MODELS)
	python3 scripts/make_venv.py $(VENV) tests/requirements.txt
	python3 scripts/make_venv.py .cache/postgres tests/services/postgres.txt
	python3 scripts/make_venv.py .cache/chroma tests/services/chroma.txt --no-deps
	python3 scripts/fetch_onnxruntime.py .cache/onnxruntime
	python3 scripts/make_venv.py .cache/onnx tests/services/onnx.txt
	.cache/onnx/bin/python tests/make_onnx_models.py $(MODELS)/$(MINILM) $(MODELS)/onnx_models/$(MINILM)

test-ops: test-ops-deps ## check deploy/ by each format's own tool, and metrics, rules and dashboard by a real Prometheus
	cargo build --workspace --locked --bin embeddery --example fake_upstream --example overload
	python3 scripts/fetch_default_model.py --binary target/debug/embeddery --models $(MODELS)
	.cache/onnx/bin/python tests/make_onnx_models.py $(MODELS)/$(MINILM) $(MODELS)/onnx_models/$(MINILM)
	.cache/ops-venv/bin/python ops/check_files.py
	.cache/ops-venv/bin/python ops/check_chart.py
	.cache/ops-venv/bin/python ops/check_dist.py target/debug/embeddery
	.cache/ops-venv/bin/python ops/check_unit.py target/debug/embeddery $(MODELS)
	.cache/ops-venv/bin/python ops/check_monitoring.py target/debug/embeddery target/debug/examples/fake_upstream .cache/prometheus $(MODELS)
	for page in guide-walk newcomer; do .cache/ops-venv/bin/python ops/guide_walk.py docs/$$page.md target/debug .cache/prometheus $(MODELS) || exit 1; done
	.cache/api-venv/bin/python ops/check_api.py target/debug/embeddery target/debug/examples/fake_upstream $(MODELS)
	.cache/api-venv/bin/python ops/check_client.py target/debug/embeddery target/debug/examples/fake_upstream $(MODELS)
	python3 bench/overload.py --quick --target target/debug --models $(MODELS)

test-ops-deps:
	python3 scripts/make_venv.py .cache/ops-venv ops/requirements.txt
	python3 scripts/make_venv.py .cache/api-venv ops/api-requirements.txt
	python3 scripts/fetch_prometheus.py .cache/prometheus
	python3 scripts/install_redis.py
	python3 scripts/fetch_onnxruntime.py .cache/onnxruntime
	python3 scripts/make_venv.py .cache/onnx tests/services/onnx.txt

bench: ## measure beside ONNX Runtime, over HTTP, and the gateway beside its peers; prints ratios and versions (PEERS=torch: sentence-transformers, too)
	cargo build --release --locked --workspace --examples --bin embeddery
	python3 scripts/fetch_default_model.py --binary target/release/embeddery --models $(MODELS)
	python3 scripts/make_venv.py .cache/bench-venv bench/requirements$(if $(findstring torch,$(PEERS)),-torch).txt
	python3 scripts/install_redis.py
	target/release/examples/latency
	.cache/bench-venv/bin/python bench/run.py --model $(MODELS)/sentence-transformers/all-MiniLM-L6-v2
	python3 scripts/make_venv.py .cache/gateway-bench-venv bench/gateway-requirements.txt
	npm install --prefix .cache/portkey --no-audit --no-fund --silent @portkey-ai/gateway@1.9.8
	python3 bench/gateway.py
	python3 bench/pipeline.py
	python3 bench/overload.py
	$(MAKE) bench-store

dist: ## release archive with completions, man pages, list of contents and checksums, in dist/
	cargo build --release --locked --bin embeddery
	python3 scripts/dist.py target/release/embeddery

lint: ## formatting, clippy, docs, dependency rules
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --locked check bans licenses sources
	@if cargo deny --locked fetch db 2>/dev/null; then cargo deny --locked check advisories; \
	else echo "advisories: NOT RUN, their database cannot be fetched from here" >&2; fi

onnxruntime: ## bring ONNX Runtime's library to .cache/onnxruntime (PACKAGE=onnxruntime-gpu: the one with CUDA)
	python3 scripts/fetch_onnxruntime.py .cache/onnxruntime $(PACKAGE)

fmt: ## format the code
	cargo fmt --all

docs: ## write the pages of docs/ that are made from the program: configuration, API, commands
	cargo build --locked --bin embeddery
	python3 scripts/docs.py target/debug/embeddery

docs-check: ## fail when a generated page of docs/ is out of date or a link is broken
	cargo build --locked --bin embeddery
	python3 scripts/docs.py target/debug/embeddery --check

openapi: ## write the OpenAPI document that a test compares with the code
	cargo run -q -p embeddery-server --example openapi > crates/server/openapi.json

golden: ## make the golden vectors anew, with the reference implementation from PyPI (large: torch)
	python3 scripts/make_venv.py .cache/golden-venv tools/golden/requirements.txt
	.cache/golden-venv/bin/python tools/golden/make_golden.py

bench-store: ## measure collections: 10k, 100k, 1M vectors, beside sqlite-vec, and pgvector; 100k passages by words, beside FTS5 and PostgreSQL (needs 10 GB of disk); part of bench
	cargo build --release --locked -p embeddery-store --example bench --example bench_words
	python3 scripts/make_venv.py .cache/bench-store bench/store/requirements.txt
	mkdir -p .cache/bench-data
	target/release/examples/bench .cache/bench-data 10000 100000 1000000
	.cache/bench-store/bin/python bench/store/peer.py .cache/bench-data 10000 100000 1000000
	target/release/examples/bench_words .cache/bench-data 100000
	rm -rf .cache/bench-data
	python3 scripts/make_venv.py .cache/postgres tests/services/postgres.txt
	python3 bench/store/postgres.py target/release/examples/bench 100000
	python3 bench/store/postgres.py target/release/examples/bench_words 100000
