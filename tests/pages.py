#!/usr/bin/env python3
"""Runs the commands of documentation pages as a reader would: python3 tests/pages.py PROGRAM [PAGE ...]

Each page gets an empty folder, a shell and free ports. What the words after the language of a code block mean:

    ```sh                 run, in one shell for the whole page
    ```sh background      started, and left running until the page ends
    ```sh skip            not run: it builds the program, or needs a terminal
    ```nginx file=NAME    written to NAME

A `json` or `text` block after an `sh` block is its expected output: `…` stands for any text, a decimal fraction
and a lifetime in seconds may differ, and white space is ignored.
A block without one must not print an error.
"""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["docs/api.md", "docs/how-to/administer-with-curl.md", "docs/how-to/backup-and-restore.md", "docs/how-to/import-users.md",
         "docs/how-to/master-key.md", "docs/how-to/monitor.md", "docs/how-to/protect-your-service.md", "docs/how-to/signing-keys.md",
         "docs/how-to/tls.md", "docs/tutorials/quickstart.md", "docs/tutorials/service-to-service.md"]
# Programs that a page needs, and that a machine may lack.
NEEDS = {
    "docs/api.md": "openssl", "docs/how-to/backup-and-restore.md": "sqlite3", "docs/how-to/master-key.md": "openssl",
    "docs/how-to/signing-keys.md": "openssl", "docs/tutorials/quickstart.md": "nginx",
}
# Pages that run the service themselves.
OWN_SERVICE = {"quickstart.md", "service-to-service.md"}
PORTS = ("8080", "8081", "8082", "9090")
BLOCK_TIMEOUT = 60
TROUBLE = re.compile(r'"error":|"code":"|^error:|curl: \(|command not found|Traceback', re.M)


class Failed(Exception):
    """A page that does not hold."""


def short(text):
    return text if len(text) < 2000 else f"{text[:2000]} [...]"


def blocks(text):
    """(language, words, content) of each code block, also of those in lists."""
    for indent, language, words, content in re.findall(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```", text, flags=re.M | re.S):
        yield language, words.split(), re.sub(rf"^{indent}", "", content, flags=re.M)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Shell:
    """One bash for a page; the output of a block ends with a line that only the shell prints."""

    def __init__(self, folder, environment):
        self.process = subprocess.Popen(["bash"], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True)

    def run(self, content):
        mark = f"end-of-block-{time.monotonic_ns()}"
        self.process.stdin.write(f"{content}\nprintf '\\n%s\\n' {mark}\n".encode())
        self.process.stdin.flush()
        output, deadline = b"", time.monotonic() + BLOCK_TIMEOUT
        while mark.encode() not in output:
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Failed(f"no end after {BLOCK_TIMEOUT} s:\n{content}\n{short(output.decode())}")
            part = os.read(self.process.stdout.fileno(), 65536)
            if not part:
                raise Failed(f"the shell ended:\n{content}\n{short(output.decode())}")
            output += part
        return output.decode().replace(mark, "").strip()

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def matches(expected, output):
    def plain(text):
        text = re.sub(r'(expires_in":)\d+', r"\g<1>0", "".join(text.split()))
        return re.sub(r"-?\d+\.\d+", "0.0", text)

    return re.fullmatch(".*".join(re.escape(plain(part)) for part in expected.split("…")), plain(output), flags=re.S)


def wait_for(port):
    for _ in range(200):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", int(port))) == 0:
                return
        time.sleep(0.05)
    raise Failed(f"nothing listens on {port}")


def run(page, program):
    ports = dict(zip(PORTS, free_ports(len(PORTS))))

    def moved(text):
        return re.sub(r"(?<=:)(" + "|".join(PORTS) + r")\b", lambda found: ports[found[1]], text)

    checked = 0
    with tempfile.TemporaryDirectory(prefix="countersign-page-") as folder:
        # Workers of nginx that root started run as another user.
        Path(folder).chmod(0o755)
        environment = {
            "PATH": f"{Path(program).resolve().parent}:{os.environ['PATH']}:/usr/sbin", "HOME": folder, "LANG": "C.UTF-8",
            "COUNTERSIGN_PUBLIC__LISTEN": f"127.0.0.1:{ports['8080']}", "COUNTERSIGN_OPERATIONS__LISTEN": f"127.0.0.1:{ports['9090']}",
            "COUNTERSIGN_ISSUER": f"http://localhost:{ports['8080']}",
        }
        shell = Shell(folder, environment)
        try:
            if page.name not in OWN_SERVICE:
                shell.run("countersign serve >service.log 2>&1 &")
                wait_for(ports["9090"])
                shell.run(f"until curl -sSf http://127.0.0.1:{ports['9090']}/readyz; do sleep 0.05; done")
                if page.name != "api.md" and "ADMIN_KEY" in page.read_text() and "ADMIN_KEY=$" not in page.read_text():
                    shell.run("ADMIN_KEY=$(countersign admin-key create pages)")
            output = content = None
            for language, words, content_now in [*blocks(page.read_text()), ("sh", ["skip"], "")]:
                if language in ("json", "text") and output is not None:
                    if not matches(moved(content_now), output):
                        raise Failed(f"{content}\nprinted\n{short(output)}\ninstead of\n{content_now}")
                    checked, output = checked + 1, None
                    continue
                if language == "sh" and output and TROUBLE.search(output):
                    raise Failed(f"{content}\nprinted\n{short(output)}")
                for word in words:
                    if word.startswith("file="):
                        (Path(folder) / word.removeprefix("file=")).write_text(moved(content_now))
                if language != "sh":
                    continue
                output, content = None, content_now
                if "skip" in words:
                    continue
                if "background" in words:
                    shell.run(f"{{ {moved(content).strip()}\n}} >>background.log 2>&1 &")
                    for port in re.findall(r"waits=(\d+)", " ".join(words)):
                        wait_for(ports[port])
                else:
                    output = shell.run(moved(content))
        finally:
            shell.stop()
    return checked


def main():
    program, chosen = sys.argv[1], sys.argv[2:]
    failed = 0
    for name in chosen or PAGES:
        if name in NEEDS and not shutil.which(NEEDS[name], path=f"{os.environ['PATH']}:/usr/sbin"):
            print(f"SKIPPED {name}: {NEEDS[name]} is not installed")
            continue
        try:
            print(f"ok {name}: {run(ROOT / name, program)} outputs hold", flush=True)
        except Failed as error:
            failed += 1
            print(f"FAILED {name}: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
