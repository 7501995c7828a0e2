#!/usr/bin/env python3
"""Compares the documentation with the code: python3 tests/documents.py [--write] [PROGRAM]

Links and their anchors resolve. Every error code, alert, audit event and API operation is described. Every setting that a
page names exists and, with a PROGRAM, every command and option. With a PROGRAM the generated pages are compared, too;
--write writes them.
"""

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]
STATUS = {
    "BAD_REQUEST": 400, "UNAUTHORIZED": 401, "FORBIDDEN": 403, "NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408, "CONFLICT": 409, "PAYLOAD_TOO_LARGE": 413, "URI_TOO_LONG": 414, "UNSUPPORTED_MEDIA_TYPE": 415,
    "TOO_MANY_REQUESTS": 429, "REQUEST_HEADER_FIELDS_TOO_LARGE": 431, "INTERNAL_SERVER_ERROR": 500,
    "SERVICE_UNAVAILABLE": 503, "HTTP_VERSION_NOT_SUPPORTED": 505,
}
# Labels whose values are a fixed set; the values of the others depend on the installation.
CLOSED_LABELS = ("result", "cache", "kind", "listener", "limit", "grant", "check", "reason")
faults = []


def read(path):
    return (ROOT / path).read_text()


def name_of(page):
    return page.relative_to(ROOT)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            if not linked.exists():
                faults.append(f"{name_of(page)}: {target} does not exist")
            elif anchor and anchor not in anchors(linked):
                faults.append(f"{name_of(page)}: {target}: no such heading")


def index():
    """Every page is in the index."""
    text = read("docs/README.md")
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs")
        if path.name != "README.md" and f"]({path}" not in text:
            faults.append(f"docs/README.md does not list {path}")


def errors():
    rest, oauth = read("docs/errors.md").split("## OAuth: RFC 6749 objects")
    for code, status in re.findall(r'= "(\w+)", (\w+), "', read("src/http/error/catalogue.rs")):
        if f"| `{code}` | {STATUS[status]} |" not in rest:
            faults.append(f"docs/errors.md does not describe {code} ({STATUS[status]})")
    names = re.findall(r'\("(\w+)", "', read("src/http/error/api_error.rs").split("const fn oauth")[1])
    endpoints = [read(f"src/http/oauth/{name}.rs") for name in ["authorize", "introspect", "revoke", "token"]]
    names += re.findall(r'\.oauth\("(\w+)"\)', "".join(endpoints))
    if len(names) < 5:
        faults.append("tests/documents.py does not find the OAuth errors in src/http")
    for code in sorted(set(names)):
        if f"| `{code}` |" not in oauth:
            faults.append(f"docs/errors.md does not describe the OAuth error {code}")


def operations():
    headings = re.findall(r"^### (.+)$", read("docs/api.md"), flags=re.M)
    described = read("docs/api.md")
    for path, methods in json.loads(read("openapi/openapi.json"))["paths"].items():
        if path.startswith("/v1/verify"):
            # Every method, and every path below.
            path, methods = "/v1/verify", {"": None}
        for method in methods.keys() & {"get", "post", "put", "patch", "delete", ""}:
            named = re.compile(rf"{re.escape(path)}(?=[`\s]|$)")
            if any(named.search(heading) and method.upper() in heading for heading in headings):
                continue
            if f"`{method.upper()} {path}`" not in described:
                faults.append(f"docs/api.md does not describe {method.upper()} {path}")


def alerts():
    page = read("docs/how-to/alerts.md")
    described = set(re.findall(r"Countersign\w+", "\n".join(re.findall(r"^### (.+)$", page, flags=re.M))))
    rules = set(re.findall(r"- alert: (\w+)", read("deploy/prometheus/alerts.yml")))
    faults.extend(f"docs/how-to/alerts.md: no section for {alert}" for alert in rules - described)
    faults.extend(f"docs/how-to/alerts.md: there is no alert {alert}" for alert in described - rules)


def settings():
    known = set(re.findall(r"^\| `([a-z_.]+)` \|", read("docs/configuration.md"), flags=re.M))
    sections = {name.split(".")[0] for name in known if "." in name}
    events = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", read("docs/audit-events.md")))
    for page in PAGES:
        for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?: = [^`]*)?`", page.read_text()):
            if name.split(".")[0] in sections and name not in known and name not in events and not name.endswith(("_file", ".js", ".lua")):
                if any(one.startswith(f"{name}.") for one in known):
                    continue
                faults.append(f"{name_of(page)}: there is no setting {name}")


def events():
    written = set()
    for source in (ROOT / "src").rglob("*.rs"):
        written.update(re.findall(r'\.event\("([a-z_.]+)"\)', source.read_text()))
    page = read("docs/audit-events.md")
    faults.extend(f"docs/audit-events.md: the event {event} is missing" for event in written if f"`{event}`" not in page)


def commands(program):
    """Every command line in a code block, or between backticks, is one that the program knows."""
    lines = set()
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"^ *```sh[^\n]*\n(.*?)^ *```", text, flags=re.M | re.S):
            lines.update(re.findall(r"^ *(?:.*\| )?(countersign .+?)(?:\s+#.*)?$", block.replace("\\\n", " "), flags=re.M))
        lines.update(re.findall(r"`(countersign [^`]+)`", text))
    for line in sorted(lines):
        line = re.split(r" [|&>]", line)[0]
        names = []
        for word in line.split()[1:]:
            if not re.fullmatch(r"[a-z][a-z-]*", word) or len(names) == 2:
                break
            names.append(word)
        shown = help_of(program, tuple(names))
        if shown is None:
            faults.append(f"the program does not know: {line}")
            continue
        for option in re.findall(r"--[a-z-]+", line):
            if option not in shown:
                faults.append(f"no option {option}: {line}")


def help_of(program, names, seen={}):
    if names not in seen:
        ran = subprocess.run([program, *names, "--help"], capture_output=True, text=True)
        seen[names] = ran.stdout if ran.returncode == 0 else None
    return seen[names]


def generated(program, write):
    for path, text in (("docs/command-line.md", command_line(program)), ("docs/metrics.md", metrics(program))):
        page = ROOT / path
        if write:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            faults.append(f"{path} is out of date: python3 tests/documents.py --write {program}")


def command_line(program):
    """docs/command-line.md, from the help texts."""
    page = [
        "# Command line", "",
        "Generated by `python3 tests/documents.py --write PROGRAM` from the program's help; a test compares them.", "",
        "Every command takes `--config FILE`, and `--json` for machine-readable output. Commands work on the database, beside a running service, and",
        "use the same configuration. They print errors on standard error and exit with 0 (success), 1 (failure) or 2 (wrong usage). Secrets are read",
        "from a prompt, standard input or a file, never from an argument.", "",
    ]

    def walk(names):
        text = help_of(program, names)
        title = " ".join(("countersign", *names))
        shown = text.split("\nGeneral:")[0] if names else text
        page.extend([f"{'#' * (2 if len(names) < 2 else 3)} `{title}`", "", "```text", re.sub(r"\n{2,}$", "\n", shown).rstrip(), "```", ""])
        listed = re.search(r"^Commands:\n((?:  .*\n)*)", text, flags=re.M)
        for name in re.findall(r"^  ([a-z][a-z-]*)", listed[1], flags=re.M) if listed else []:
            if name != "help":
                walk((*names, name))

    walk(())
    return "\n".join(page).rstrip() + "\n"


def metrics(program):
    """docs/metrics.md, from a service that runs for a moment."""
    with tempfile.TemporaryDirectory() as folder:
        listen = {f"COUNTERSIGN_{name}__LISTEN": "127.0.0.1:0" for name in ("PUBLIC", "OPERATIONS")}
        service = subprocess.Popen([Path(program).resolve(), "serve"], cwd=folder, env={"COUNTERSIGN_LOG__FORMAT": "json", **listen},
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            address = next(found[1] for found in (re.search(r'"operations":"([^"]+)"', line) for line in service.stdout) if found)
            urllib.request.urlopen(f"{address}/livez", timeout=10).read()
            text = urllib.request.urlopen(f"{address}/metrics", timeout=10).read().decode()
        finally:
            service.kill()
            service.wait()
            service.stdout.close()
    page = [
        "# Metrics", "",
        "Generated by `python3 tests/documents.py --write PROGRAM` from a running service; a test compares them.", "",
        "Prometheus reads them from `/metrics` on the operations listener. No label has a user, client or token. `…` marks labels whose values depend on the",
        "installation: route templates, names of statements and tables, key ids. A histogram has `_bucket`, `_sum` and `_count`.",
        "[Monitor](how-to/monitor.md) says which ones matter most.", "",
        "| metric | type | labels | meaning |", "|---|---|---|---|",
    ]
    for name, meaning, kind in re.findall(r"^# HELP (\S+) (.*)\n# TYPE \S+ (\w+)$", text, flags=re.M):
        values = {}
        for labels in re.findall(rf"^{name}(?:_bucket)?\{{(.*)\}} ", text, flags=re.M):
            for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
                if label != "le":
                    values.setdefault(label, []).append(value)
        shown = ", ".join(f"`{label}`: {', '.join(dict.fromkeys(found)) if label in CLOSED_LABELS else '…'}" for label, found in values.items())
        page.append(f"| `{name}` | {kind} | {shown} | {meaning} |")
    return "\n".join(page) + "\n"


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    if arguments:
        generated(arguments[0], "--write" in sys.argv)
        commands(arguments[0])
    for check in (links, index, errors, operations, alerts, settings, events):
        check()
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"documents: {len(PAGES)} pages hold")
