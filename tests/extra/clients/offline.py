"""The programs of docs/how-to/verify-offline.md: they refuse a revoked token, and answer 503 when the feed is cut."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import guide  # noqa: E402
from support.processes import Failed, Process, free_port, listens, request, wait_for  # noqa: E402
from support.service import REPOSITORY, Service  # noqa: E402

PAGE = REPOSITORY / "docs/how-to/verify-offline.md"
MINE = "https://orders.example.com"


def check(blueprint, folder, commands, environment):
    """Runs each program and yields one line per check. `commands` has a function for each, which gets the code's file."""
    service = Service(blueprint, folder / "service")
    service.secrets["orders"] = service.admin("/clients", "POST", {"client_id": "orders", "type": "confidential", "feed": "revocations"})["client_secret"]
    fields = {"type": "confidential", "grants": ["client_credentials"], "audiences": [MINE]}
    for client in ("robot", "other"):
        service.secrets[client] = service.admin("/clients", "POST", {"client_id": client, **fields})["client_secret"]
    programs = {}
    try:
        for name, command in commands.items():
            port, place = free_port(), folder / name
            place.mkdir(parents=True)
            settings = {"ISSUER": service.issuer, "AUDIENCE": MINE, "CLIENT_ID": "orders", "CLIENT_SECRET": service.secrets["orders"], "PORT": str(port)}
            programs[name] = (port, Process(name, command(place, guide.program(name, PAGE)), place, env={**environment, **settings}))

        def ask(port, token):
            return request(port, "/", headers=[("Authorization", f"Bearer {token}")]).status

        def becomes(port, token, status, what, within=5):
            wait_for(what, lambda: ask(port, token) == status, within)
            return f"ok {what}"

        for name, (port, _) in programs.items():
            wait_for(f"{name} listens", lambda port=port: listens(port), 30)
            tokens = [service.client_token("robot", MINE) for _ in range(2)]
            yield becomes(port, tokens[0], 200, f"{name}: an active token passes")
            service.revoke(tokens[0], "robot")
            yield becomes(port, tokens[0], 401, f"{name}: a revoked token is refused", 2)
            if ask(port, tokens[1]) != 200:
                raise Failed(f"{name} refuses a token that was not revoked")
            yield f"ok {name}: another token still passes"
            if ask(port, tokens[1][:-8] + "AAAAAAAA") != 401:
                raise Failed(f"{name} accepts a forged token")
            yield f"ok {name}: a forged token is refused"
            other = service.client_token("other", MINE)
            yield becomes(port, other, 200, f"{name}: a token of another client passes")
            service.admin("/clients/other", "PATCH", {"enabled": False})
            yield becomes(port, other, 401, f"{name}: tokens of a disabled client are refused", 2)
            service.admin("/clients/other", "PATCH", {"enabled": True})
            fresh = service.client_token("other", MINE)
            yield becomes(port, fresh, 200, f"{name}: a new token of the client passes again", 2)
        good = service.client_token("robot", MINE)
        for name, (port, _) in programs.items():
            yield becomes(port, good, 200, f"{name}: a token passes before the cut")
        service.freeze()
        for name, (port, _) in programs.items():
            yield becomes(port, good, 503, f"{name}: without the feed it is unavailable", 6)
        service.thaw()
        for name, (port, _) in programs.items():
            yield becomes(port, good, 200, f"{name}: with the feed it accepts again", 10)
    finally:
        for _, process in programs.values():
            process.stop()
        service.stop()
