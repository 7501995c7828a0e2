"""The service under test: its binary with a temporary database, and the requests of the tests."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.parse
from pathlib import Path

from .processes import Failed, Process, free_port, request, wait_for
from .tokens import header_of

USER = "ada"
# A user without roles, of a client without scopes: a token with no optional claim.
BARE_USER, BARE_CLIENT = "bob", "bare"
PASSWORD = "correct horse battery staple 7"
API = "https://api.example.com"
OTHER_API = "https://other.example.com"
ALGORITHMS = ("ES256", "EdDSA", "RS256", "PS256")

REPOSITORY = Path(__file__).resolve().parents[3]


def binary():
    path = Path(os.environ.get("CS_BIN", REPOSITORY / "target/debug/countersign")).absolute()
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; run `cargo build --bin countersign`, or set CS_BIN")
    return path


class Blueprint:
    """A database that every test copies: keys whose private half the tests hold, a user, and clients."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.key, self.other_key = (self._private_key(name, "EC", "ec_paramgen_curve:P-256") for name in ("own", "other"))
        self.public_pem = _openssl("pkey", "-in", self.key, "-pubout")
        self.data = None
        self.secrets = {}
        self.admin_key = None
        service = Service(self, self.folder / "service")
        self.data = service.data
        try:
            self.admin_key = service.admin_key = service.cli("admin-key", "create", "tests")["admin_key"]
            self._fill(service)
        finally:
            service.process.stop()

    def _private_key(self, name, kind, option):
        path = self.folder / f"{name}.pem"
        _openssl("genpkey", "-algorithm", kind, "-pkeyopt", option, "-out", path)
        return path

    def _fill(self, service):
        made_by_the_service = [key["kid"] for key in service.admin("/keys")["keys"]]
        rsa = {name: self._private_key(name, "RSA", "rsa_keygen_bits:2048") for name in ("RS256", "PS256")}
        for algorithm, path in {"ES256": self.key, **rsa}.items():
            service.admin("/keys", "POST", {"pem": path.read_text(), "algorithm": algorithm})
        for kid in made_by_the_service:
            service.admin(f"/keys/{kid}/withdraw", "POST", {})
        service.rotate("EdDSA")
        service.admin("/users", "POST", {"username": USER, "password": PASSWORD, "roles": ["reader"]})
        service.admin("/users", "POST", {"username": BARE_USER, "password": PASSWORD})
        resources = {"audiences": [API, OTHER_API], "scopes": "read write"}
        self._client(service, "app", type="public", grants=["password_login", "refresh_token"], **resources)
        # Without audiences of its own: its tokens are for the issuer, and open the user's account.
        self._client(service, "account", type="public", grants=["password_login", "refresh_token"])
        self._client(service, "webapp", type="confidential", grants=["password_login", "refresh_token"], **resources)
        self._client(service, BARE_CLIENT, type="confidential", grants=["password_login", "refresh_token", "client_credentials"],
                     audiences=[API])
        self._client(service, "gateway", type="confidential", introspect="any")
        robot = {"type": "confidential", "grants": ["client_credentials"], **resources}
        for algorithm in ALGORITHMS:
            self._client(service, f"robot-{algorithm.lower()}", algorithm=algorithm, **robot)
        self._client(service, "robot-jwt", token_type="JWT", **robot)

    def _client(self, service, name, **fields):
        made = service.admin("/clients", "POST", {"client_id": name, **fields})
        self.secrets[name] = made.get("client_secret")


class Service:
    """A running service on a copy of the blueprint."""

    def __init__(self, blueprint, folder, *, tls=None, settings=""):
        self.blueprint, self.folder = blueprint, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.public, self.operations = free_port(), free_port()
        self.trust = tls and tls.authority
        scheme = "https" if tls else "http"
        self.issuer = f"{scheme}://127.0.0.1:{self.public}"
        self.secrets, self.admin_key = dict(blueprint.secrets), blueprint.admin_key
        self.data = self.folder / "data"
        if blueprint.data:
            shutil.copytree(blueprint.data, self.data)
        certificate = f'tls = {{ cert = "{tls.certificate}", key = "{tls.key}" }}\n' if tls else ""
        self.config = self.folder / "countersign.toml"
        self.config.write_text(
            f'issuer = "{self.issuer}"\n{settings}\n'
            f'[database]\nurl = "sqlite://{self.data}/countersign.db"\ncreate_if_missing = true\n'
            f'[public]\nlisten = "127.0.0.1:{self.public}"\n{certificate}'
            f'[operations]\nlisten = "127.0.0.1:{self.operations}"\n'
            '[shutdown]\ndelay = "0s"\ndrain = "1s"\n'
            '[log]\nformat = "text"\nlevel = "info,countersign=debug"\n'
        )
        self.process = None
        self.start()

    def start(self):
        self.process = Process("countersign", [binary(), "serve", "--config", self.config], self.folder, env=_environment())

        def is_ready():
            if not self.process.is_running():
                raise Failed(f"the service does not start:\n{self.process.tail()}")
            try:
                return request(self.operations, "/readyz").status == 200
            except OSError:
                return False

        wait_for("the service is ready", is_ready, 20)

    def stop(self):
        self.process.stop(signal.SIGKILL)

    def freeze(self):
        """The process stops running but keeps its sockets: only a timeout detects this outage."""
        self.process.send(signal.SIGSTOP)

    def thaw(self):
        self.process.send(signal.SIGCONT)

    # Requests of clients.

    def ask(self, path, *, method="GET", headers=(), body=None):
        return request(self.public, path, method=method, headers=headers, body=body, trust=self.trust)

    def post_form(self, path, client, **fields):
        body = urllib.parse.urlencode(fields).encode()
        headers = [("Content-Type", "application/x-www-form-urlencoded")]
        if client:
            headers.append(("Authorization", basic(client, self.secrets[client])))
        return self.ask(path, method="POST", headers=headers, body=body)

    def login(self, audience=API, client="app"):
        body = {"username": USER, "password": PASSWORD, "client_id": client, "audience": audience}
        headers = [("Content-Type", "application/json")]
        if self.secrets.get(client):
            headers.append(("Authorization", basic(client, self.secrets[client])))
        return _json(self.ask("/v1/login", method="POST", headers=headers, body=json.dumps(body).encode()))

    def client_token(self, client="robot-es256", audience=API):
        answer = self.post_form("/oauth2/token", client, grant_type="client_credentials", audience=audience)
        return _json(answer)["access_token"]

    def revoke(self, token, client):
        answer = self.post_form("/oauth2/revoke", client, token=token)
        if answer.status != 200:
            raise Failed(f"revocation was answered {answer.status}: {answer.body!r}")

    def log_out(self, refresh_token):
        headers, body = [("Content-Type", "application/json")], json.dumps({"refresh_token": refresh_token}).encode()
        answer = self.ask("/v1/logout", method="POST", headers=headers, body=body)
        if answer.status != 204:
            raise Failed(f"logout was answered {answer.status}: {answer.body!r}")

    # Requests of operators.

    def cli(self, *arguments, stdin=""):
        command = [str(binary()), *(str(argument) for argument in arguments), "--config", str(self.config), "--json"]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=self.folder, env=_environment(), timeout=60)
        if done.returncode != 0:
            raise Failed(f"countersign {' '.join(command[1:3])} exited with {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def admin(self, path, method="GET", document=None):
        body = None if document is None else json.dumps(document).encode()
        headers = [("Authorization", f"Bearer {self.admin_key}"), ("Content-Type", "application/json")]
        answer = request(self.operations, f"/admin/v1{path}", method=method, headers=headers, body=body)
        return _json(answer) if answer.body else None

    def rotate(self, algorithm="ES256"):
        """Announces a new key; returns its kid."""
        return self.admin("/keys/rotate", "POST", {"algorithm": algorithm})["kid"]

    def signing_kid(self):
        return header_of(self.client_token())["kid"]

    def count(self, metric, **labels):
        """Sum of a counter's series with these labels."""
        text = request(self.operations, "/metrics").body.decode()
        total = 0.0
        for line in text.splitlines():
            found = re.match(rf"countersign_{metric}(?:{{(.*)}})? ([0-9.e+]+)$", line)
            if found and all(f'{name}="{value}"' in (found[1] or "") for name, value in labels.items()):
                total += float(found[2])
        return int(total)

    def judgements(self):
        """Number of tokens that the service judged."""
        return self.count("introspections_total")

    def key_fetches(self):
        return self.count("http_requests_total", route="/.well-known/jwks.json")


class Tls:
    """An authority and a certificate for the loopback address."""

    def __init__(self, folder):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.authority, self.certificate, self.key = folder / "authority.pem", folder / "service.pem", folder / "service.key"
        authority_key, wish, names = folder / "authority.key", folder / "service.csr", folder / "names.cnf"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        _openssl("req", "-x509", *curve, "-keyout", authority_key, "-out", self.authority, "-days", "2",
                 "-subj", "/CN=Countersign test authority")
        _openssl("req", *curve, "-keyout", self.key, "-out", wish, "-subj", "/CN=localhost")
        names.write_text("subjectAltName = IP:127.0.0.1, DNS:localhost\nbasicConstraints = CA:false\n")
        _openssl("x509", "-req", "-in", wish, "-CA", self.authority, "-CAkey", authority_key, "-CAcreateserial",
                 "-days", "2", "-extfile", names, "-out", self.certificate)


def basic(client, secret):
    return "Basic " + base64.b64encode(f"{client}:{secret}".encode()).decode()


def _json(answer):
    if answer.status >= 300:
        raise Failed(f"the service answered {answer.status}: {answer.body.decode(errors='replace')}")
    return json.loads(answer.body)


def _openssl(*arguments):
    done = subprocess.run(["openssl", *(str(argument) for argument in arguments)], capture_output=True, check=False)
    if done.returncode != 0:
        raise Failed(f"openssl {arguments[0]}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def _environment():
    """The environment without settings of the service."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COUNTERSIGN_", "OTEL_"))}
