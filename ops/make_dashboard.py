#!/usr/bin/env python3
"""Writes deploy/grafana/embeddery-dashboard.json: rows of panels, each a title, a unit and its queries. The panels are
changed here, because Grafana's JSON says everything ten times. `--check` fails when the file is not what this makes."""

import json
import pathlib
import sys

FILE = pathlib.Path(__file__).resolve().parent.parent / "deploy/grafana/embeddery-dashboard.json"
RATE = "[$__rate_interval]"
JOB = 'job=~"$job"'


def quantile(share: float, family: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({family}_bucket{{{JOB}}}{RATE})))"


def rate(family: str, by: str, labels: str = "") -> str:
    return f"sum by ({by}) (rate({family}{{{JOB}{labels}}}{RATE}))"


# Row: [(title, unit, [(query, legend), …], what it tells), …]
ROWS = {
    "Requests for vectors": [
        ("Requests by outcome", "reqps", [(rate("embedding_requests_total", "status"), "{{status}}")],
         "success; invalid: the caller's mistake; rejected: too much at a time, or a model on its way; timeout; error; cancelled"),
        ("Share that failed, last hour", "percentunit", [("embeddery:request_failures:ratio1h", "failed"), ("vector(0.005)", "objective")],
         "Errors and timeouts among requests that were not the caller's mistake. Objective: below 0.5 %"),
        ("Time to vectors", "s", [(quantile(q, "embedding_request_duration_seconds"), f"p{int(q * 100)}") for q in (0.5, 0.95, 0.99)],
         "All models together, cached answers included"),
        ("Time to vectors, p95 by model", "s", [(quantile(0.95, "embedding_request_duration_seconds", "provider, model"), "{{provider}} {{model}}")], ""),
        ("Requests under way", "short", [(f"sum(active_embedding_requests{{{JOB}}})", "now")], ""),
        ("Vectors and tokens a second", "short",
         [(f"sum(rate(embeddings_generated_total{{{JOB}}}{RATE}))", "vectors"), (f"sum(rate(embedding_tokens_total{{{JOB}}}{RATE}))", "tokens")], ""),
    ],
    "Cache and providers": [
        ("Share of texts from the cache", "percentunit",
         [(f"sum(rate(embedding_cache_hits_total{{{JOB}}}{RATE})) / (sum(rate(embedding_cache_hits_total{{{JOB}}}{RATE})) + sum(rate(embedding_cache_misses_total{{{JOB}}}{RATE})))", "hits")], ""),
        ("Vectors in the cache", "short", [(f"sum(embedding_cache_size{{{JOB}}})", "vectors")], ""),
        ("Failed attempts at providers", "ops", [(rate("embedding_provider_failures_total", "provider, reason"), "{{provider}} {{reason}}")],
         "Before retries: most of these never reach a caller"),
        ("Circuit breakers", "short", [(f"max by (service) (circuit_breaker_state{{{JOB}}})", "{{service}}")], "0 closed, 1 open, 2 half open"),
        ("Answered by a fallback", "reqps", [(rate("embedding_fallbacks_total", "from_provider, to_provider"), "{{from_provider}} → {{to_provider}}")], ""),
        ("Refused by the allow-list", "reqps", [(rate("embedding_policy_denied_total", "provider, policy_type"), "{{provider}} {{policy_type}}")], ""),
        ("Vectors cut or filled", "ops", [(rate("embedding_dimension_adjustments_total", "provider, method"), "{{provider}} {{method}}")], ""),
        ("Models in memory", "short", [(f"sum by (model_id) (active_embedder_instances{{{JOB}}})", "{{model_id}}")], ""),
    ],
    "HTTP": [
        ("Answers by status", "reqps", [(rate("http_requests_total", "status"), "{{status}}")], ""),
        ("Answers by route", "reqps", [(rate("http_requests_total", "endpoint"), "{{endpoint}}")], ""),
        ("Time to answer, p99 by route", "s", [(quantile(0.99, "http_request_duration_seconds", "endpoint"), "{{endpoint}}")], ""),
    ],
    "Pipeline": [
        ("Waiting work", "short", [('max by (queue_name) (embedding_queue_depth)', "{{queue_name}}")], "Every orchestrator reports the one queue"),
        ("Age of the oldest waiting work", "s", [("max by (queue_name) (embedding_queue_age_current_seconds)", "{{queue_name}}")], "Objective: p95 below 2 min"),
        ("Documents a second", "ops", [(f"sum by (stage) (rate(embedding_stage_jobs_processed_total{RATE}))", "{{stage}}")], ""),
        ("Documents that failed at a stage", "ops", [(f"sum by (stage) (rate(embedding_stage_jobs_failed_total{RATE}))", "{{stage}}")], "Those tried again included"),
        ("Time in a stage, p95", "s", [(f"histogram_quantile(0.95, sum by (le, stage) (rate(embedding_stage_processing_latency_seconds_bucket{RATE})))", "{{stage}}"), ("vector(5)", "objective")], ""),
        ("Documents taken together, median", "short", [(f"histogram_quantile(0.5, sum by (le, stage) (rate(embedding_stage_batch_size_bucket{RATE})))", "{{stage}}")], ""),
        ("Dead letters", "short", [("max by (queue_name) (embedding_dlq_queue_depth)", "{{queue_name}}")], "Work that was given up; see GET /api/v1/embeddings/dlq"),
        ("Workers", "short", [("sum by (worker_type) (embedding_workers_active)", "{{worker_type}}"), ("sum by (worker_type) (embedding_workers_stalled)", "{{worker_type}} stalled")], ""),
    ],
    "Processes": [
        ("Memory", "bytes", [("process_resident_memory_bytes{job=~\"embeddery.*\"}", "{{job}} {{instance}}")], ""),
        ("CPU", "short", [(f"rate(process_cpu_seconds_total{{job=~\"embeddery.*\"}}{RATE})", "{{job}} {{instance}}")], "Cores in use"),
        ("Open files and connections", "short", [("process_open_fds{job=~\"embeddery.*\"}", "{{job}} {{instance}}")], ""),
        ("Running since", "s", [("time() - process_start_time_seconds{job=~\"embeddery.*\"}", "{{job}} {{instance}}")], ""),
    ],
}


def panel(number: int, place: dict, content: tuple) -> dict:
    title, unit, queries, description = content
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend} for index, (query, legend) in enumerate(queries)
        ],
    }


def dashboard() -> dict:
    panels, top = [], 0
    for row, contents in ROWS.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": row, "collapsed": False, "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}, "panels": []})
        top += 1
        for index, content in enumerate(contents):
            place = {"x": index % 3 * 8, "y": top + index // 3 * 8, "w": 8, "h": 8}
            panels.append(panel(len(panels) + 1, place, content))
        top += -(-len(contents) // 3) * 8
    return {
        "uid": "embeddery",
        "title": "Embeddery",
        "description": "Vectors, providers, HTTP, pipeline, processes. Made by ops/make_dashboard.py",
        "tags": ["embeddery"],
        "timezone": "browser",
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0},
                {
                    "name": "job",
                    "label": "Job",
                    "type": "query",
                    "datasource": {"type": "prometheus", "uid": "${datasource}"},
                    "query": {"query": "label_values(embedding_requests_total, job)", "refId": "job"},
                    "definition": "label_values(embedding_requests_total, job)",
                    "refresh": 2,
                    "includeAll": True,
                    "multi": True,
                    "allValue": ".+",
                    "current": {"text": ["All"], "value": ["$__all"]},
                },
            ]
        },
        "annotations": {"list": []},
        "panels": panels,
    }


def main() -> None:
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] != ["--check"]:
        FILE.write_text(text)
    elif FILE.read_text() != text:
        sys.exit(f"{FILE} is not what {sys.argv[0]} makes; run it without --check")


if __name__ == "__main__":
    main()
