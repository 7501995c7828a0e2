"""The programs of docs/how-to/protect-your-service.md, run against a service of their own.

    guide.py extract FOLDER    writes the Rust program, with its Cargo.toml, into FOLDER
"""

import base64
import json
import re
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.processes import Failed, Process, free_port, listens, request, wait_for  # noqa: E402
from support.service import REPOSITORY, Service  # noqa: E402

PAGE = REPOSITORY / "docs/how-to/protect-your-service.md"
MINE = "https://orders.example.com"
OTHER = "https://other.example.com"


def program(name, page=PAGE):
    """The code of the block that says `run=NAME`."""
    found = re.search(rf"^```\w+ run={name}\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    if not found:
        raise Failed(f"{page.name} has no block run={name}")
    return found[1]


def extract(folder):
    """The Rust program, with the dependencies that the page names."""
    (folder / "src").mkdir(parents=True, exist_ok=True)
    dependencies = re.search(r"^```toml\n(\[dependencies\].*?)^```", PAGE.read_text(), flags=re.M | re.S)[1]
    manifest = f'[package]\nname = "guide"\nversion = "0.0.0"\nedition = "2024"\n\n[workspace]\n\n[profile.dev]\ndebug = false\n\n{dependencies}'
    for path, text in ((folder / "Cargo.toml", manifest), (folder / "src/main.rs", program("rust"))):
        # An unchanged file keeps its time, so that cargo does not build again.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    lock = Path(__file__).parent / "guide/Cargo.lock"
    if lock.exists():
        shutil.copy(lock, folder / "Cargo.lock")


def check(blueprint, folder, commands, environment):
    """Runs each program and yields one line per check. `commands` has a function for each, which gets the code's folder."""
    service = Service(blueprint, folder / "service")
    fields = {"type": "confidential", "grants": ["client_credentials"], "audiences": [MINE, OTHER]}
    for client, more in {"reader": {"scopes": "orders:read"}, "writer": {"scopes": "orders:read orders:write"}}.items():
        service.secrets[client] = service.admin("/clients", "POST", {"client_id": client, **fields, **more})["client_secret"]
    service.secrets["orders"] = service.admin("/clients", "POST", {"client_id": "orders", "type": "confidential", "audiences": [MINE]})["client_secret"]
    programs = {}
    try:
        for name, command in commands.items():
            port, place = free_port(), folder / name
            place.mkdir(parents=True)
            settings = {"ISSUER": service.issuer, "AUDIENCE": MINE, "CLIENT_ID": "orders", "CLIENT_SECRET": service.secrets["orders"], "PORT": str(port)}
            programs[name] = (port, Process(name, command(place), place, env={**environment, **settings}))
        for name, (port, process) in programs.items():
            wait_for(f"{name} listens", lambda port=port: listens(port), 30)

        def ask(port, token=None, method="GET", path="/orders"):
            headers = [("Authorization", f"Bearer {token}")] if token else []
            return request(port, path, method=method, headers=headers).status

        expected = []
        for name, (port, _) in programs.items():
            token, writer = service.client_token("reader", MINE), service.client_token("writer", MINE)
            foreign = service.client_token("reader", OTHER)
            forged = token[:-8] + ("BBBBBBBB" if token.endswith("AAAAAAAA") else "AAAAAAAA")
            signed = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
            unsigned = base64.urlsafe_b64encode(json.dumps({**signed, "alg": "none"}).encode()).decode().rstrip("=")
            for path in ("/orders", "/balance"):
                expected += [
                    (name, f"a token passes {path}", ask(port, token, path=path), 200),
                    (name, f"no token at {path}", ask(port, path=path), 401),
                    (name, f"a forged token at {path}", ask(port, forged, path=path), 401),
                    (name, f"an unsigned token at {path}", ask(port, ".".join([unsigned, token.split(".")[1], ""]), path=path), 401),
                    (name, f"a token for another audience at {path}", ask(port, foreign, path=path), 401),
                    (name, f"text that is no token at {path}", ask(port, "nonsense", path=path), 401),
                ]
            expected += [
                (name, "a scope that is missing", ask(port, token, "DELETE"), 403),
                (name, "a token passes both checks", ask(port, writer, "DELETE"), 204),
            ]
            service.post_form("/oauth2/revoke", "writer", token=writer)
            expected += [
                (name, "a revoked token, online", ask(port, writer, path="/balance"), 401),
                (name, "a revoked token, both", ask(port, writer, "DELETE"), 401),
                (name, "a revoked token, offline, until it expires", ask(port, writer), 200),
            ]
        token = service.client_token("writer", MINE)
        service.stop()
        for name, (port, _) in programs.items():
            expected += [
                (name, "offline while the service is away", ask(port, token), 200),
                (name, "online while the service is away", ask(port, token, path="/balance"), 503),
                (name, "both while the service is away", ask(port, token, "DELETE"), 503),
            ]
        for name, what, status, wanted in expected:
            yield f"ok {name}: {what}: {status}" if status == wanted else f"FAILED {name}: {what}: {status} instead of {wanted}"
    finally:
        for _, process in programs.values():
            process.stop()
        service.stop()


if __name__ == "__main__":
    if sys.argv[1:2] != ["extract"]:
        raise SystemExit(__doc__)
    extract(Path(sys.argv[2]))
