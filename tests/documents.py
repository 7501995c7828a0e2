#!/usr/bin/env python3
"""Checks the documents against the code: python3 tests/documents.py [PROGRAM]

Links and their anchors resolve; every error code and every alert is described; every setting, figure and, with a PROGRAM,
every command and option that a page names exists.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
STATUS = {
    "BAD_REQUEST": 400, "UNAUTHORIZED": 401, "FORBIDDEN": 403, "NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408, "CONFLICT": 409, "PAYLOAD_TOO_LARGE": 413, "URI_TOO_LONG": 414, "UNSUPPORTED_MEDIA_TYPE": 415,
    "TOO_MANY_REQUESTS": 429, "REQUEST_HEADER_FIELDS_TOO_LARGE": 431, "INTERNAL_SERVER_ERROR": 500,
    "SERVICE_UNAVAILABLE": 503, "HTTP_VERSION_NOT_SUPPORTED": 505,
}
faults = []


def read(path):
    return (ROOT / path).read_text()


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            if not there.exists():
                faults.append(f"{page.name}: {target} is not there")
            elif anchor and anchor not in anchors(there):
                faults.append(f"{page.name}: {target}: no such heading")


def errors():
    page = read("docs/api.md")
    for code, status in re.findall(r'= "(\w+)", (\w+), "', read("src/http/error/catalogue.rs")):
        if f"| `{code}` | {STATUS[status]} |" not in page:
            faults.append(f"docs/api.md does not describe {code} ({STATUS[status]})")
    oauth = page[page.index("### OAuth: RFC 6749") :]
    names = read("src/http/error/oauth.rs").split("pub const fn as_str")[1].split("}")[0]
    for code in re.findall(r'=> "(\w+)"', names):
        # Declared for completeness; no handler answers it.
        if f"| `{code}` |" not in oauth and code != "unsupported_token_type":
            faults.append(f"docs/api.md does not describe the OAuth error {code}")


def alerts():
    page = read("docs/operations.md")
    described = set(re.findall(r"Countersign\w+", "\n".join(re.findall(r"^### (.+)$", page, flags=re.M))))
    rules = set(re.findall(r"- alert: (\w+)", read("deploy/prometheus/alerts.yml")))
    faults.extend(f"docs/operations.md: no section for {alert}" for alert in rules - described)
    faults.extend(f"docs/operations.md: there is no alert {alert}" for alert in described - rules)


def settings():
    known = set(re.findall(r"^\| `([a-z_.]+)` \|", read("docs/configuration.md"), flags=re.M))
    sections = {name.split(".")[0] for name in known if "." in name}
    for page in PAGES:
        for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?: = [^`]*)?`", page.read_text()):
            if name.split(".")[0] in sections and name not in known and not name.endswith("_file"):
                if f"{name.rsplit('.', 1)[0]}.*" not in name:
                    faults.append(f"{page.name}: there is no setting {name}")


def events():
    written = set()
    for source in (ROOT / "src").rglob("*.rs"):
        written.update(re.findall(r'\.event\("([a-z_.]+)"\)', source.read_text()))
    page = read("docs/operations.md")
    faults.extend(f"docs/operations.md: the audit event {event} is missing" for event in written if f"`{event}`" not in page)


def commands(program):
    """Every command line in a code block, or between backticks, is one that the program knows."""
    lines = set()
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S):
            lines.update(re.findall(r"^(?:.*\| )?(countersign .+?)(?:\s+#.*)?$", block.replace("\\\n", " "), flags=re.M))
        lines.update(re.findall(r"`(countersign [^`]+)`", text))
    for line in sorted(lines):
        line = re.split(r" [|&>]", line)[0]
        words = line.split()[1:]
        names = []
        for word in words:
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


if __name__ == "__main__":
    for check in (links, errors, alerts, settings, events):
        check()
    if len(sys.argv) > 1:
        commands(sys.argv[1])
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"documents: {len(PAGES)} pages hold")
