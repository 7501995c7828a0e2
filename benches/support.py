"""Shared by the benchmarks of this folder: the build, servers pinned to a core, and the load generator."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
FORM = "Content-Type: application/x-www-form-urlencoded"
JSON = "Content-Type: application/json"
PASSWORD = "a benchmark's own pass phrase"
CORES = os.cpu_count() or 1
MASTER_KEY = base64.b64encode(os.urandom(32)).decode()


def need(*tools):
    for tool in tools:
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing")


def build(*benches):
    """Builds the program and the Rust benches; returns their paths."""
    if os.environ.get("CS_BENCH_BINARIES"):
        folder = Path(os.environ["CS_BENCH_BINARIES"])
        return folder / "countersign", *[folder / name for name in benches]
    command = ["cargo", "build", "--profile", "dist", "--locked", "--bin", "countersign", "--message-format=json-render-diagnostics"]
    for name in benches:
        command += ["--bench", name]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    made = {}
    for line in text.splitlines():
        message = json.loads(line)
        if message.get("executable"):
            made[message["target"]["name"]] = Path(message["executable"])
    return made["countersign"], *[made[name] for name in benches]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(core):
    """Prefix that pins a command to the given cores."""
    if core is None or CORES == 1:
        return []
    return ["taskset", "-c", ",".join(map(str, core)) if isinstance(core, range) else str(core)]


def call(url, body=None, headers=None, method=None):
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def basic(name, secret):
    return "Authorization: Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


class Service:
    """The service on a database, by default pinned to core 0."""

    def __init__(self, binary, folder, database, settings=None, core=0, under=()):
        self.binary, self.folder, self.command = binary, folder, pinned(core) + list(under) + [str(binary), "serve"]
        self.public, self.operations = free_port(), free_port()
        self.address, self.url = f"127.0.0.1:{self.public}", f"http://127.0.0.1:{self.public}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")},
            # The default has the port, which differs between runs on one database.
            "COUNTERSIGN_ISSUER": "http://localhost:8080",
            "COUNTERSIGN_DATABASE__URL": database,
            "COUNTERSIGN_DATABASE__CREATE_IF_MISSING": "true",
            "COUNTERSIGN_MASTER_KEY": MASTER_KEY,
            "COUNTERSIGN_PUBLIC__LISTEN": self.address,
            "COUNTERSIGN_OPERATIONS__LISTEN": f"127.0.0.1:{self.operations}",
            # All load comes from one address, and no login fails.
            "COUNTERSIGN_LIMITS__ADDRESS__BURST": "1000000",
            "COUNTERSIGN_LIMITS__ADDRESS__PER_MINUTE": "1000000",
            # No load balancer has to notice the stop.
            "COUNTERSIGN_SHUTDOWN__DELAY": "0s",
            **(settings or {}),
        }
        self.start()

    def start(self):
        started = time.perf_counter()
        with open(self.folder / "service.log", "ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)
        while not self.is_ready():
            if self.process.poll() is not None or time.perf_counter() - started > 120:
                self.process.kill()
                sys.exit((self.folder / "service.log").read_text()[-2000:])
            time.sleep(0.0005)
        self.ready_after = time.perf_counter() - started

    def is_ready(self):
        try:
            with socket.create_connection(("127.0.0.1", self.public), 5) as line:
                line.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return line.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def pss_mib(self):
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1)) / 1024

    def cli(self, *arguments, stdin=None):
        done = subprocess.run([str(self.binary), *arguments, "--json"], env=self.environment, input=stdin, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def client(self, name, *arguments):
        """Creates a confidential client; returns its `Authorization` header line."""
        secret = self.cli("clients", "create", name, "--type", "confidential", *arguments)["client_secret"]
        return basic(name, secret)

    def users(self, count):
        names = [f"user{number:03}" for number in range(count)]
        for name in names:
            self.cli("users", "create", name, "--password-stdin", stdin=PASSWORD + "\n")
        return names

    def log_in(self, name):
        body = json.dumps({"username": name, "password": PASSWORD}).encode()
        return json.loads(call(f"{self.url}/v1/login", body, {"Content-Type": "application/json"}))

    def tokens(self, authorization, count):
        name, value = authorization.split(": ", 1)
        headers = {name: value, "Content-Type": "application/x-www-form-urlencoded"}
        body = b"grant_type=client_credentials"
        return [json.loads(call(f"{self.url}/oauth2/token", body, headers))["access_token"] for _ in range(count)]

    # Request classes for benches/load.rs.

    def introspection(self, gateway, tokens, weight=1):
        return {"name": "introspection", "weight": weight, "path": "/oauth2/introspect", "headers": [FORM, gateway],
                "bodies": [f"token={token}" for token in tokens]}

    def client_credentials(self, machine, weight=1):
        return {"name": "client_credentials", "weight": weight, "path": "/oauth2/token", "headers": [FORM, machine],
                "bodies": ["grant_type=client_credentials"]}

    def login(self, names, weight=1):
        return {"name": "login", "weight": weight, "path": "/v1/login", "headers": [JSON],
                "bodies": [json.dumps({"username": name, "password": PASSWORD}) for name in names]}

    def refresh(self, refresh_tokens, weight=1):
        return {"name": "refresh", "weight": weight, "path": "/v1/refresh", "headers": [JSON],
                "bodies": refresh_tokens, "before": '{"refresh_token":"', "after": '"}'}


class Postgres:
    """A temporary PostgreSQL server from tests/postgres.sh, with durability on."""

    def __init__(self, folder):
        self.folder = folder / "postgres"
        done = subprocess.run(["sh", str(ROOT / "tests/postgres.sh"), "start", str(self.folder)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        self.url = done.stdout.strip()

    def stop(self):
        subprocess.run(["sh", str(ROOT / "tests/postgres.sh"), "stop", str(self.folder)], check=False)


def start_load(binary, address, classes, folder, seconds, connections, rate=None, core=None):
    plan = tempfile.NamedTemporaryFile("w", suffix=".json", dir=folder, delete=False)
    with plan:
        json.dump(classes, plan)
    arguments = [str(binary), address, plan.name, str(seconds), str(connections)] + ([str(rate)] if rate else [])
    return subprocess.Popen(pinned(CORES - 1 if core is None else core) + arguments, stdout=subprocess.PIPE, text=True)


def end_load(process):
    text, _ = process.communicate()
    if process.returncode:
        sys.exit("the load could not be made")
    return json.loads(text)


def load(*arguments, **named):
    """Runs the load generator on the last core; returns its measurements."""
    return end_load(start_load(*arguments, **named))


def folder():
    """A temporary folder that the database server's user may enter."""
    made = Path(tempfile.mkdtemp(prefix="countersign-bench-"))
    made.chmod(0o755)
    return made
