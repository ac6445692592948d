#!/usr/bin/env python3
"""The pages of docs/ that are made, not written: configuration.md from the
table of keys and the defaults that the binary prints, api.md from the OpenAPI
document, cli.md from what --help prints. docs.py BINARY writes them; docs.py BINARY --check says what is out of
date, and which links in the repository's pages lead nowhere."""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTE = "<!-- Made by `make docs`; change the source, not this page. -->\n"
COMMANDS = ["serve", "orchestrator", "worker", "embed", "models list", "models pull", "models info", "models bench",
            "token issue", "token inspect", "import-chroma", "health", "check"]


def main() -> None:
    binary, check = sys.argv[1], "--check" in sys.argv
    pages = {"configuration.md": configuration(binary), "api.md": api(), "cli.md": cli(binary)}
    wrong = links() if check else []
    for name, text in pages.items():
        path = ROOT / "docs" / name
        if not check:
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            wrong.append(f"docs/{name} is out of date; `make docs` writes it")
    if wrong:
        sys.exit("\n".join(wrong))


def configuration(binary: str) -> str:
    defaults, tables = (subprocess.run([binary, "check", flag], capture_output=True, text=True, check=True).stdout
                        for flag in ("--print-defaults", "--print-keys"))
    return f"""# Configuration reference

{NOTE}
Flags win over environment variables, those over a file, that over the defaults. The file is the one that `--config`
or `EMBEDDINGS_CONFIG_PATH` names, else the first of `./embeddery.yaml`, `./embeddings_config.yaml`,
`./config/embeddings.yaml`; it holds only what differs. An unknown key stops the start and names the nearest known one.
`embeddery check` tells what is wrong with a configuration and how to mend it; `embeddery check --print-defaults` prints
the defaults below. Variables stand behind the keys they set.

## Defaults

```yaml
{defaults}```

{tables}"""


def api() -> str:
    document = json.loads((ROOT / "crates/server/openapi.json").read_text())
    lines = [f"# API reference\n\n{NOTE}\nThe same, to try in a browser, is served at `/docs`; the document it is made "
             "from at `/openapi.json`. Errors have one body everywhere: `{\"error\": {\"message\", \"type\", \"param\", "
             "\"code\"}, \"detail\": …}`.\n"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method not in ("get", "post", "put", "patch", "delete"):
                continue
            lines.append(f"\n## {method.upper()} {path}\n")
            text = operation.get("description") or operation.get("summary") or ""
            lines.append(f"\n{(operation.get('summary') or text).strip()}\n")
            parameters = [resolve(document, one) for one in operation.get("parameters", [])]
            fields = [(one["name"], one["in"], one.get("description", "")) for one in parameters]
            fields += [(name, "body", described) for name, described in body(document, operation)]
            if fields:
                lines.append("\n| field | in | means |\n|---|---|---|\n")
                lines += [f"| `{name}` | {place} | {cell(described)} |\n" for name, place, described in fields]
            lines.append("\n| status | when |\n|---|---|\n")
            for status, answer in operation.get("responses", {}).items():
                lines.append(f"| {status} | {cell(resolve(document, answer).get('description', ''))} |\n")
    return "".join(lines)


def resolve(document: dict, value: dict) -> dict:
    while "$ref" in value:
        found = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


def body(document: dict, operation: dict) -> list[tuple[str, str]]:
    content = resolve(document, operation.get("requestBody", {})).get("content", {})
    schema = resolve(document, content.get("application/json", {}).get("schema", {}))
    return [(name, resolve(document, field).get("description", field.get("description", "")))
            for name, field in schema.get("properties", {}).items()]


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def cli(binary: str) -> str:
    lines = [f"# Commands\n\n{NOTE}"]
    for command in [[], *(command.split() for command in COMMANDS)]:
        shown = subprocess.run([binary, *command, "--help"], capture_output=True, text=True)
        if shown.returncode == 0:
            printed = "\n".join(line.rstrip() for line in shown.stdout.strip().splitlines())
            lines.append(f"\n## embeddery {' '.join(command)}".rstrip() + f"\n\n```text\n{printed}\n```\n")
    return "".join(lines)


def links() -> list[str]:
    wrong = []
    pages = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for page in pages:
        path = ROOT / page
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                wrong.append(f"{page}: a link to {target}, which is not there")
    return wrong


if __name__ == "__main__":
    main()
