"""Shared by all gateways under test: a recipe, a service, an application, and requests through the gateway."""

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

from support.processes import (
    Failed, Process, free_port, give_to_nobody, listens, request, wait_for,
)
from support.service import REPOSITORY, Service, Tls, basic
from upstream import Upstream

# How long a new key is published before it signs: the least that the service accepts beside `jwks_max_age = "2s"`.
ANNOUNCED = 35

RECIPES = REPOSITORY / "deploy/gateways"


@dataclass
class Promise:
    """Claims of a recipe's page, which the suite checks."""

    # Seconds that a revoked token can still pass; None where only its expiry stops it.
    revoked_for: float | None
    # Seconds beyond `exp` that a token can still pass.
    beyond_expiry: float = 1.5
    # How many of twenty requests with one good token reach the service.
    calls_of_20: tuple[int, int] = (1, 1)
    # How many of twenty with one bad token.
    refused_calls_of_20: tuple[int, int] = (1, 3)
    # Status for a token without a cached answer while the service is down.
    outage: frozenset = frozenset({500, 502, 503, 504})
    # Timeout in seconds for a service that does not answer.
    gives_up_after: float = 4
    # Whether it refuses a token of a good key that has no `exp`; the service issues none.
    demands_expiry: bool = True
    # The algorithms that it verifies; all where the service judges.
    algorithms: frozenset = frozenset({"ES256", "EdDSA", "RS256", "PS256"})
    # Whether it takes `typ: JWT` for a client that is set to it.
    takes_typ_jwt: bool = True
    # Identity headers that it can set; the others must be absent.
    identity: frozenset = frozenset({"user", "preferred-username", "client-id", "scopes", "roles", "session", "expires"})


@dataclass
class Recipe:
    """A configuration of `deploy/gateways` and how the suite runs it."""

    name: str
    folder: str
    # File in the recipe's folder → where it is written, relative to the test's folder.
    files: dict
    # Literal in the recipe → its replacement in the test; each must occur. `{…}` are the names of `Bench.names`.
    replace: dict
    promise: Promise
    # Command line; the same names.
    command: list
    # Files of the test itself, around the recipe.
    around: dict = field(default_factory=dict)
    tls: bool = False
    # Asks over gRPC.
    grpc: bool = False
    # Verifies with the published keys.
    offline: bool = False
    settings: str = ""
    environment: dict = field(default_factory=dict)
    # Called with the bench before the program starts, and every second while keys rotate.
    sync: object = None


class Bench:
    """One gateway between a client and an application, with a service of its own."""

    def __init__(self, recipe, blueprint, folder, tools):
        self.recipe, self.blueprint, self.folder = recipe, blueprint, Path(folder)
        self.measured = {}
        # Lock for checks that other requests must not disturb.
        self.quiet = threading.Lock()
        self.rotation = None
        self.gateway = self.service = self.upstream = None
        self.port = free_port()
        (self.folder / "service").mkdir(parents=True)
        (self.folder / "gateway").mkdir()
        tls = Tls(self.folder / "tls") if recipe.tls else None
        settings = f'[keys]\nannounce_for = "{ANNOUNCED}s"\njwks_max_age = "2s"\n{recipe.settings}'
        grpc = str(free_port()) if recipe.grpc else ""
        if grpc:
            settings += f'[grpc]\nlisten = "127.0.0.1:{grpc}"\n'
        self.service = Service(blueprint, self.folder / "service", tls=tls, settings=settings)
        self.upstream = Upstream()
        self.names = {
            "folder": str(self.folder / "gateway"), "port": str(self.port), "service": str(self.service.public),
            "upstream": str(self.upstream.port), "issuer": self.service.issuer, "secret": self.service.secrets["gateway"],
            "basic": basic("gateway", self.service.secrets["gateway"]).removeprefix("Basic "),
            "authority": str(tls.authority) if tls else "", "grpc": grpc, **tools,
        }
        try:
            self._write()
            give_to_nobody(self.folder / "gateway")
            if recipe.sync:
                recipe.sync(self)
            self.start_gateway()
        except BaseException:
            self.stop()
            raise

    def _write(self):
        here = self.folder / "gateway"
        missed = set(self.recipe.replace)
        for source, target in self.recipe.files.items():
            text = (RECIPES / self.recipe.folder / source).read_text()
            for literal, value in self.recipe.replace.items():
                if literal in text:
                    missed.discard(literal)
                    text = text.replace(literal, self.fill(value))
            (here / target).write_text(text)
        if missed:
            raise Failed(f"the recipe has no {sorted(missed)} any more")
        for target, text in self.recipe.around.items():
            (here / target).parent.mkdir(exist_ok=True)
            (here / target).write_text(self.fill(text))

    def fill(self, text):
        for name, value in self.names.items():
            text = text.replace("{" + name + "}", value)
        return text

    def start_gateway(self):
        command = [self.fill(part) for part in self.recipe.command]
        environment = {name: self.fill(value) for name, value in self.recipe.environment.items()}
        self.gateway = Process(self.recipe.command[0].rsplit("/", 1)[-1].strip("{}"), command, self.folder / "gateway",
                               env=environment, as_nobody=True)

        def is_up():
            if not self.gateway.is_running():
                raise Failed(f"{self.recipe.name} does not start:\n{self.gateway.tail()}")
            return listens(self.port)

        wait_for(f"{self.recipe.name} listens", is_up, 15)

    def stop(self):
        for part in (self.gateway, self.service, self.upstream):
            if part:
                part.stop()

    def ask(self, token=None, *, path="/orders/17?role=editor", method="GET", headers=(), body=None, timeout=8.0):
        """A request through the gateway, as a client sends it."""
        sent = [("Host", "api.example.com")]
        if token is not None:
            sent.append(("Authorization", f"Bearer {token}"))
        sent += headers
        if body is None and method == "POST":
            body = b""
        return request(self.port, path, method=method, headers=sent, body=body, timeout=timeout)


def seen_by_application(answer):
    """The headers that reached the application, names in lower case."""
    if answer.status != 200:
        raise Failed(f"answered {answer.status} {answer.body[:200]!r}")
    return [(name.lower(), value) for name, value in json.loads(answer.body)["headers"]]


def is_from_application(answer):
    """Whether the application produced the answer, even if the gateway changed its status."""
    return answer.body.startswith(b'{"method": ')
