#!/usr/bin/env python3
"""The Helm chart, by Helm's own SDK and Kubernetes' own schemas: linted and rendered as each example, as a cautious
mix of switches, and refused where values would only fail later in the cluster."""

import pathlib
import subprocess
import sys
import tempfile

import helm_python as helm
import yaml

CHART = pathlib.Path(__file__).resolve().parent.parent / "deploy/helm/embeddery"
VALIDATE = pathlib.Path(sys.executable).parent / "kubernetes-validate"
# Kinds of operators: Kubernetes' schemas do not know them.
FOREIGN = {"ScaledObject", "ServiceMonitor"}
SECRET = {"secretName": "keys"}
WITH_REDIS = {**SECRET, "redis": {"enabled": True}, "orchestrator": {"enabled": True}}

REFUSED = {
    "no secret": {},
    "a misspelt key": {**SECRET, "api": {"replica": 2}},
    "a wrong type": {**SECRET, "api": {"replicas": "two"}},
    "workers without a queue": {**SECRET, "worker": {"enabled": True}},
    "two replicas on one volume": {**SECRET, "api": {"replicas": 2}},
    "an orchestrator without a database on one volume": WITH_REDIS,
}


def main() -> None:
    examples = {file.name: yaml.safe_load(file.read_text()) for file in sorted(CHART.glob("examples/*.yaml"))}
    mixed = {
        **WITH_REDIS,
        "worker": {"enabled": True},
        "database": {"urlSecret": {"name": "database"}},
        "persistence": {"data": {"existingClaim": "mine"}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "podAnnotations": {"note": "1"},
        "podDisruptionBudget": {"enabled": False},
    }
    with helm.Chart.load(CHART) as chart:
        for name, values in {**examples, "mixed switches": mixed}.items():
            findings = helm.lint(CHART, values=values)
            bad = [str(message) for message in messages(findings) if "icon is recommended" not in str(message)]
            if bad:
                sys.exit(f"helm lint, {name}:\n" + "\n".join(bad))
            chart.validate_schema(values)
            print("ok helm lint and render,", name, "-", validate(name, chart.render(values=values, name="trial")))
        for name, values in REFUSED.items():
            try:
                chart.validate_schema(values)
                chart.render(values=values, name="trial")
            except helm.HelmError:
                continue
            sys.exit(f"the chart accepts {name}")
    print(f"ok {len(REFUSED)} wrong sets of values refused")


def messages(findings: object) -> list:
    return findings.get("messages", []) if isinstance(findings, dict) else list(findings or [])


def validate(name: str, rendered: object) -> str:
    """Every document against its schema, misspelt fields included."""
    text = rendered if isinstance(rendered, str) else "\n---\n".join(
        body for path, body in dict(rendered).items() if not path.endswith("NOTES.txt")
    )
    documents = [document for document in yaml.safe_load_all(text) if document]
    known = [document for document in documents if document["kind"] not in FOREIGN]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(known, file)
        file.flush()
        done = subprocess.run([VALIDATE, "--strict", file.name], text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"kubernetes-validate, {name}:\n{done.stdout}{done.stderr}")
    return ", ".join(document["kind"] for document in documents)


if __name__ == "__main__":
    main()
