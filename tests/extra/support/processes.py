"""Child processes, ports and folders. Every process started here is stopped here by its process id."""

import atexit
import http.client
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

_running = []
_lock = threading.Lock()


class Failed(Exception):
    """A check that did not hold, or something that did not start."""


class Process:
    """A program in the foreground, its output in a file."""

    def __init__(self, name, command, folder, *, env=None, as_nobody=False, stdin=subprocess.DEVNULL):
        self.name = name
        self.log = Path(folder) / f"{name}.log"
        identity = {}
        if as_nobody and os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.log.touch()
            os.chown(self.log, nobody.pw_uid, nobody.pw_gid)
            identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        environment = {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "HOME": str(folder), "LANG": "C.UTF-8", **(env or {})}
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [str(part) for part in command], cwd=folder, env=environment, stdin=stdin,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **identity,
            )
        with _lock:
            _running.append(self)

    def is_running(self):
        return self.child.poll() is None

    def send(self, number):
        if self.is_running():
            self.child.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        """Stops the process and every process of its session."""
        if self.is_running():
            self.child.send_signal(number)
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()
        with _lock:
            if self in _running:
                _running.remove(self)

    def tail(self, lines=15):
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {self.name}: {line}" for line in text[-lines:])


@atexit.register
def stop_all():
    for process in list(_running):
        process.stop(signal.SIGKILL)


def free_port():
    """A free port of the loopback interface; no port is returned twice."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        with _lock:
            if port not in _handed_out:
                _handed_out.add(port)
                return port


_handed_out = set()


def temporary_folder(prefix="countersign-test-"):
    """A temporary folder that other users may enter, because gateways run as another user."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    if not os.environ.get("KEEP"):
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def give_to_nobody(folder):
    """Hands a folder to the user that gateways run as."""
    if os.geteuid() != 0:
        return
    nobody = pwd.getpwnam("nobody")
    for path in [Path(folder), *Path(folder).rglob("*")]:
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def wait_for(what, condition, seconds=10.0, every=0.05):
    """Waits until `condition` is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(every)


def listens(port):
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Answer:
    """An HTTP answer, read to its end."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def request(port, path, *, method="GET", headers=(), body=None, trust=None, timeout=10.0):
    """One request on a connection of its own. `headers` is a list of pairs, sent as they are, repeats included."""
    if trust:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=timeout, context=ssl.create_default_context(cafile=str(trust)))
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.putrequest(method, path, skip_host=any(name == "Host" for name, _ in headers), skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())
    finally:
        connection.close()
