"""The real parts: PostgreSQL, replicas, nginx, PgBouncer. Everything is on loopback, on free ports, in one temporary folder,
and is stopped by its process id."""

import base64
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import client
import postgres_wire

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = {"nginx": "nginx-light", "pgbouncer": "pgbouncer", "faketime": "faketime"}


def install_what_is_missing():
    """nginx and PgBouncer from the distribution, by name; PostgreSQL is installed by tests/postgres.sh."""
    missing = [package for program, package in PACKAGES.items() if not program_path(program)]
    if missing:
        as_root = [] if os.geteuid() == 0 else ["sudo"]
        # Nothing that is installed for a test is to start by itself.
        install = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "install", "-y", "-qq",
                   "--no-install-recommends", *missing]
        print("installing", *missing, flush=True)
        subprocess.run([*as_root, "apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
        subprocess.run([*as_root, *install], check=True, stdout=subprocess.DEVNULL)


def program_path(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


HANDED_OUT = set()


def free_port():
    """A port without a listener, below the range of outgoing connections. No port is returned twice, because the first owner may
    not listen yet."""
    while True:
        port = 20000 + secrets.randbelow(10000)
        if port in HANDED_OUT:
            continue
        HANDED_OUT.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def as_postgres():
    """Servers that refuse to run as root run as `postgres`."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Process:
    """A child process, stopped by its process id."""

    def __init__(self, command, log, env=None, **options):
        self.log = Path(log)
        with open(self.log, "ab") as output:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, **options
            )

    @property
    def runs(self):
        return self.child.poll() is None

    def signal(self, number):
        if self.runs:
            self.child.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.child.wait()

    def terminate(self, patience):
        """Sends SIGTERM; returns the exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self.child.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"did not stop within {patience} s; its log is {self.log}") from None


class Postgres:
    """A server started by tests/postgres.sh, and later by its own command line after it was killed."""

    def __init__(self, folder):
        self.folder = Path(folder) / "postgres"
        script = str(REPOSITORY / "tests/postgres.sh")
        url = subprocess.run(["sh", script, "start", str(self.folder)], check=True, capture_output=True, text=True).stdout
        self.port = int(re.search(r":(\d+)/", url).group(1))
        self.child = None
        options = (self.folder / "data/postmaster.opts").read_text()
        self.command = shlex.split(options)

    # The file that names the offset of the server's clock, once `set_clock` was used.
    clock = None

    def set_clock(self, offset):
        """Steps the wall clock of a running server, or chooses that of one that is started later."""
        self.clock = self.folder / "clock"
        self.clock.write_text(offset)
        self.clock.chmod(0o644)

    def environment(self):
        if not self.clock:
            return None
        return {**os.environ, "LD_PRELOAD": str(faketime()), "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}

    def connect(self, database="postgres", timeout=5.0):
        return postgres_wire.Connection(self.port, database, timeout=timeout)

    def query(self, sql, database="postgres"):
        with self.connect(database) as connection:
            return connection.query(sql)

    def answers(self):
        try:
            self.query("SELECT 1")
            return True
        except (OSError, postgres_wire.SqlError):
            return False

    def postmaster(self):
        return int((self.folder / "data/postmaster.pid").read_text().split()[0])

    def processes(self):
        """The postmaster and its children."""
        parent = self.postmaster()
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]

    def kill(self):
        """Power failure: every process is killed at once, and nothing is written back."""
        victims = self.processes()
        for victim in victims:
            _signal(victim, signal.SIGKILL)
        self._wait_gone(victims)

    def crash(self):
        """Kills one backend: all connections end and the server recovers. Returns when it answers again."""
        connection, children = self.connect(), self.processes()[1:]
        victim = int(connection.query("SELECT pg_backend_pid()")[0][0])
        _signal(victim, signal.SIGKILL)
        try:
            while connection.query("SELECT 1"):
                time.sleep(0.01)
        except (OSError, postgres_wire.SqlError):
            connection.close()
        # Until the postmaster has noticed, the server still answers.
        wait_until(lambda: not any(_is_alive(child) for child in children), 30, "PostgreSQL has ended all connections")
        wait_until(self.answers, 30, "PostgreSQL answers")

    def shut_down(self):
        """Fast shutdown: connections are ended with an error message."""
        victims = self.processes()
        _signal(victims[0], signal.SIGINT)
        self._wait_gone(victims)

    def freeze(self):
        self.frozen = self.processes()
        for process in self.frozen:
            _signal(process, signal.SIGSTOP)

    def thaw(self):
        for process in reversed(self.frozen):
            _signal(process, signal.SIGCONT)

    def start(self):
        """Starts it again after a kill or a shutdown; returns when it answers."""
        (self.folder / "data/postmaster.pid").unlink(missing_ok=True)
        self.child = Process(self.command, self.folder / "again.log", env=self.environment(), cwd=self.folder,
                             **as_postgres())
        wait_until(self.answers, 30, "PostgreSQL answers")

    def stop(self):
        subprocess.run(["sh", str(REPOSITORY / "tests/postgres.sh"), "stop", str(self.folder)], check=False)
        if self.child and self.child.runs:
            self.child.kill()

    def _wait_gone(self, victims):
        if self.child:
            self.child.child.wait()
        wait_until(lambda: not any(_is_alive(victim) for victim in victims), 10, "PostgreSQL is gone")


class Standby(Postgres):
    """A synchronous standby of `primary`: it has every acknowledged commit."""

    def __init__(self, primary, folder, clock=None):
        self.folder, self.port, self.child = Path(folder) / "standby", free_port(), None
        self.folder.mkdir()
        if clock:
            self.set_clock(clock)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        data, binary = self.folder / "data", Path(primary.command[0])
        copy = [binary.parent / "pg_basebackup", "-D", data, "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres",
                "-R", "-X", "stream", "--checkpoint=fast"]
        subprocess.run(copy, check=True, cwd=self.folder, **as_postgres())
        self.command = [str(binary), "-D", str(data), "-p", str(self.port), "-k", str(self.folder),
                        "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300"]
        self.start()
        primary.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.query("SELECT pg_reload_conf()")
        replicates = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: primary.query(replicates) == [("1",)], 10, "the standby follows synchronously")

    def promote(self):
        self.query("SELECT pg_promote()")
        # The promoted server has no standby to wait for.
        self.query("ALTER SYSTEM RESET synchronous_standby_names")
        self.query("SELECT pg_reload_conf()")

    def stop(self):
        if self.child.runs:
            self.kill()


def _signal(process, number):
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


def _is_alive(process):
    try:
        return "Z" != Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def faketime():
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class Replica:
    """One `countersign serve` process; started again, it keeps its ports."""

    def __init__(self, name, binary, folder, settings, clock_offset=None):
        self.name, self.binary, self.folder = name, binary, Path(folder)
        self.clock_offset = clock_offset
        self.public, self.operations = free_port(), free_port()
        self.settings = dict(settings)
        self.process = None

    def environment(self):
        ours = {
            "PUBLIC__LISTEN": f"127.0.0.1:{self.public}",
            "OPERATIONS__LISTEN": f"127.0.0.1:{self.operations}",
            **self.settings,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")}
        return {**kept, **{f"COUNTERSIGN_{name}": value for name, value in ours.items()}}

    def start(self):
        command = [str(self.binary), "serve"]
        environment = self.environment()
        if self.clock_offset:
            # Only the wall clock is wrong, as on a machine without time synchronisation.
            environment |= {"LD_PRELOAD": str(faketime()), "FAKETIME": self.clock_offset, "DONT_FAKE_MONOTONIC": "1"}
        self.process = Process(command, self.folder / f"{self.name}.log", env=environment, cwd=self.folder)

    def is_ready(self):
        return client.get(self.public, "/readyz", timeout=1.0).status == 200

    def wait_ready(self, seconds=30):
        def condition():
            if not self.process.runs:
                raise RuntimeError(f"{self.name} ended; its log: {tail(self.process.log)}")
            return self.is_ready()

        wait_until(condition, seconds, f"{self.name} is ready")

    def run_command(self, *arguments):
        """Runs another command of the program on the same database."""
        command = [str(self.binary), *arguments]
        ended = subprocess.run(command, env=self.environment(), cwd=self.folder, capture_output=True, text=True)
        if ended.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {ended.stderr}")
        return ended.stdout

    def stop(self):
        if self.process and self.process.runs:
            self.process.signal(signal.SIGCONT)
            self.process.kill()


def tail(path, lines=15):
    return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])


# Seconds; longer than the faults, so that every retry must succeed.
RETRY_WINDOW = 30.0


def replica_settings(postgres_port, database, **more):
    """Settings shared by every replica of one installation."""
    return {
        "ISSUER": "http://localhost:8080",
        "DATABASE__URL": f"postgres://postgres@127.0.0.1:{postgres_port}/{database}",
        "LIMITS__ENABLED": "false",
        "PASSWORDS__THREADS": "1",
        "REFRESH__RETRY_WINDOW": f"{RETRY_WINDOW:.0f}s",
        "SHUTDOWN__DELAY": "1s",
        "SHUTDOWN__DRAIN": "10s",
        "LOG__FORMAT": "json",
        **more,
    }


def master_key():
    return base64.b64encode(secrets.token_bytes(32)).decode()


class Nginx:
    """Round robin over the replicas' public listeners, with keep-alive connections. It retries only requests that it could not
    send, which is its default."""

    def __init__(self, folder, replicas, name):
        self.port = free_port()
        home = Path(folder) / f"nginx_{name}"
        home.mkdir()
        home.chmod(0o755)
        upstream = "\n".join(f"server 127.0.0.1:{replica.public} max_fails=0;" for replica in replicas)
        (home / "nginx.conf").write_text(f"""
daemon off;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
{"user www-data;" if os.geteuid() == 0 else ""}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    upstream countersign {{ {upstream} keepalive 16; }}
    server {{
        listen 127.0.0.1:{self.port};
        location / {{
            proxy_pass http://countersign;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_connect_timeout 1s;
            proxy_read_timeout 10s;
            add_header X-Served-By $upstream_addr always;
        }}
    }}
}}
""")
        self.process = Process([program_path("nginx"), "-p", str(home), "-c", str(home / "nginx.conf")], home / "out.log")
        wait_until(lambda: _listens(self.port), 10, "nginx listens")

    def stop(self):
        if self.process.runs:
            self.process.signal(signal.SIGTERM)
            self.process.child.wait()


class PgBouncer:
    """A pooler, in transaction mode with fewer connections to the server than the replicas open to it. Other settings keep their
    defaults, so unknown start-up parameters are refused."""

    def __init__(self, folder, postgres_port, mode="transaction", size=6):
        self.port = free_port()
        home = Path(folder) / f"pgbouncer_{mode}"
        home.mkdir()
        if os.geteuid() == 0:
            shutil.chown(home, "postgres")
        (home / "pgbouncer.ini").write_text(f"""
[databases]
* = host=127.0.0.1 port={postgres_port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
pidfile = {home}/pgbouncer.pid
""")
        self.home = home
        self.start()

    def start(self):
        command = [program_path("pgbouncer"), "-q", str(self.home / "pgbouncer.ini")]
        self.process = Process(command, self.home / "out.log", cwd=self.home, **as_postgres())
        wait_until(lambda: _listens(self.port), 10, "PgBouncer listens")

    def stop(self):
        if self.process.runs:
            self.process.kill()


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False
