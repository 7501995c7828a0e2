"""Runs each client library, in a small program of its own, against one live service with TLS, while its keys rotate."""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.processes import Failed, Process, free_port, listens, request, temporary_folder, wait_for  # noqa: E402
from support.service import ALGORITHMS, API, PASSWORD, Blueprint, Service, Tls  # noqa: E402
from support.tokens import header_of  # noqa: E402

import guide  # noqa: E402
import offline  # noqa: E402

HERE = Path(__file__).resolve().parent
# The minimum that the service accepts with `jwks_max_age = "1s"`; a library may fetch keys again after 30 s.
SETTINGS = '[keys]\nannounce_for = "34s"\njwks_max_age = "1s"\n[limits]\nenabled = false\n[refresh]\nretry_window = "0s"\n'
PROGRAM_TIMEOUT = 120
# Operations that end the session or the password that the others need.
ENDING = r"^/v1/(logout|me/password|me/sessions)"


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", help="run only programs whose names contain one of these")
    options.add_argument("--python", required=True, help="an interpreter that has the packages of python/requirements.txt")
    options.add_argument("--modules", type=Path, required=True, help="a folder with the node_modules of js/package.json")
    options.add_argument("--rust", type=Path, help="the compiled program of rust/")
    options.add_argument("--guide", type=Path, help="the compiled Rust program of the guide")
    options = options.parse_args()
    started, folder = time.monotonic(), temporary_folder()
    blueprint = Blueprint(folder / "blueprint")
    tls = Tls(folder / "tls")
    service = Service(blueprint, folder / "service", tls=tls, settings=SETTINGS)
    first = service.signing_kid()
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        "ISSUER": service.issuer, "AUDIENCE": API, "PASSWORD": PASSWORD, "FIRST_KID": first,
        "OPERATIONS": f"http://127.0.0.1:{service.operations}", "ADMIN_KEY": service.admin_key,
        "NODE_EXTRA_CA_CERTS": str(tls.authority), "REQUESTS_CA_BUNDLE": str(tls.authority), "SSL_CERT_FILE": str(tls.authority),
        "AUTHLIB_REFUSES": "EdDSA PS256", "PYTHONDONTWRITEBYTECODE": "1",
        **{"SECRET_" + client.upper().replace("-", "_"): secret for client, secret in blueprint.secrets.items() if secret},
    }
    sources = folder / "js"
    shutil.copytree(HERE / "js", sources)
    (sources / "node_modules").symlink_to(options.modules / "node_modules")
    jobs = {f"js {path.stem}": lambda path=path: program(["node", path.name], sources, environment)
            for path in sorted(sources.glob("*.mjs")) if path.stem != "harness"}
    jobs |= {f"python {path.stem.removesuffix('_client')}": lambda path=path: program([options.python, path], HERE / "python", environment)
             for path in sorted((HERE / "python").glob("*_client.py"))}
    if options.rust:
        jobs["rust openidconnect"] = lambda: program([options.rust], folder, environment)
    jobs["typescript generated from the document"] = lambda: generated(service, sources, environment)
    jobs["redocly lint"] = lambda: redocly(service, sources, environment)
    jobs["idwcc, strict"] = lambda: idwcc(blueprint, folder / "idwcc")
    jobs["guide: protect your service"] = lambda: guide_programs(blueprint, folder / "guide", options)
    jobs["guide: verify offline"] = lambda: offline_programs(blueprint, folder / "offline", options)
    jobs["schemathesis"] = lambda: schemathesis(blueprint, folder / "schemathesis", options.python)
    chosen = {name: job for name, job in jobs.items() if not options.names or any(part in name for part in options.names)}
    announced = service.rotate()
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(len(chosen) or 1) as pool:
        for name, run in {name: pool.submit(job) for name, job in chosen.items()}.items():
            try:
                lines = run.result()
            except (Failed, OSError, subprocess.SubprocessError) as error:
                lines = [f"FAILED {type(error).__name__}: {error}"]
            print(name)
            for line in lines:
                passed += line.startswith("ok ")
                failed += line.startswith("FAILED ")
                print(f"  {line}")
    if not options.names and header_of(service.client_token())["kid"] != announced:
        failed += 1
        print("FAILED the keys did not rotate")
    print(f"in {time.monotonic() - started:.0f} s")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def program(command, folder, environment):
    """Runs a program that prints one line per check."""
    done = subprocess.run([str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=PROGRAM_TIMEOUT, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok ", "FAILED ", "skipped "))]
    if done.returncode != 0 or not lines:
        lines.append(f"FAILED exit {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}")
    return lines


def generated(service, sources, environment):
    folder = sources.parent / "generated"
    folder.mkdir()
    (folder / "node_modules").symlink_to((sources / "node_modules").resolve())
    shutil.copy(sources / "generated.ts", folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "openapi.json").write_bytes(service.ask("/openapi.json").body)
    tools = sources / "node_modules/.bin"
    steps = [[tools / "openapi-typescript", "openapi.json", "-o", "api.d.ts"],
             [tools / "tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "generated.ts"]]
    for step in steps:
        done = subprocess.run([str(part) for part in step], cwd=folder, env=environment, capture_output=True, text=True, timeout=90, check=False)
        if done.returncode != 0:
            return [f"FAILED {step[0].name}: {(done.stdout + done.stderr).strip()[-800:]}"]
    return program(["node", "generated.js"], folder, environment)


def guide_programs(blueprint, folder, options):
    """The programs that docs/how-to/protect-your-service.md shows."""

    def express(place):
        (place / "app.mjs").write_text(guide.program("express"))
        (place / "node_modules").symlink_to(options.modules / "node_modules")
        return ["node", "app.mjs"]

    def fastapi(place):
        (place / "app.py").write_text(guide.program("fastapi"))
        return ["sh", "-c", f'exec {options.python} -m uvicorn app:app --host 127.0.0.1 --port "$PORT"']

    commands = {"express": express, "fastapi": fastapi}
    if options.guide:
        commands["rust"] = lambda _: [options.guide]
    return list(guide.check(blueprint, folder, commands, {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}))


def offline_programs(blueprint, folder, options):
    """The programs that docs/how-to/verify-offline.md shows."""

    def python(place, text):
        (place / "app.py").write_text(text)
        return [options.python, "app.py"]

    def javascript(place, text):
        (place / "app.mjs").write_text(text)
        (place / "node_modules").symlink_to(options.modules / "node_modules")
        return ["node", "app.mjs"]

    commands = {"python": python, "js": javascript}
    return list(offline.check(blueprint, folder, commands, {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}))


def redocly(service, sources, environment):
    document = sources.parent / "redocly.json"
    document.write_bytes(service.ask("/openapi.json").body)
    command = [str(sources / "node_modules/.bin/redocly"), "lint", str(document), "--format", "json"]
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    done = subprocess.run(command, cwd=sources.parent, env={**environment, **quiet}, capture_output=True, text=True,
                          timeout=PROGRAM_TIMEOUT, check=False)
    try:
        found = json.loads(done.stdout[done.stdout.index("{"):])
        errors = found["totals"]["errors"]
    except (ValueError, KeyError):
        return [f"FAILED exit {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}"]
    if errors or done.returncode != 0:
        problems = [problem["message"] for problem in found["problems"] if problem["severity"] == "error"]
        return [f"FAILED {errors} errors: {problems[:5]}"]
    return [f"ok 0 errors in the served document ({found['totals']['warnings']} warnings)"]


def schemathesis(blueprint, folder, python):
    """A separate service, because the generated requests delete clients and withdraw keys."""
    service = Service(blueprint, folder, settings=SETTINGS)
    command = [str(Path(python).parent / "schemathesis"), "run", f"http://127.0.0.1:{service.public}/openapi.json",
               "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
               "--phases", "examples,coverage,fuzzing", "--seed", "1", "--max-examples", "25", "--workers", "2",
               "--request-timeout", "10", "--warnings", "off"]
    bearer, client = ["-H", f"Authorization: Bearer {service.login()['access_token']}"], ["-a", f"gateway:{service.secrets['gateway']}"]
    admin = ["-H", f"Authorization: Bearer {service.admin_key}"]
    public, operations = f"http://127.0.0.1:{service.public}", f"http://127.0.0.1:{service.operations}"
    runs = {
        "what people call": [*bearer, "--url", public, "--include-path-regex", "^/(v1|livez|readyz|docs|.well-known)",
                             "--exclude-path-regex", f"{ENDING}|^/v1/introspect"],
        "what clients call": [*client, "--url", public, "--include-path-regex", "^/(oauth2|v1/introspect)"],
        "what ends sessions": [*bearer, "--url", public, "--include-path-regex", ENDING],
        # idwcc cannot write JSON lines.
        "administration": [*admin, "--url", operations, "--include-path-regex", "^/(admin|metrics|livez|readyz)",
                           "--exclude-path", "/admin/v1/users/import"],
    }
    lines = []
    try:
        for name, more in runs.items():
            done = subprocess.run(command + more, cwd=folder, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT, check=False)
            cases = re.search(r"(\d+) generated", done.stdout)
            count = f" ({cases[1]} cases)" if cases else ""
            if done.returncode == 0:
                lines.append(f"ok {name}: no undocumented status or body, no 5xx{count}")
            else:
                findings = done.stdout[done.stdout.find("= FAILURES"):][:3000]
                lines.append(f"FAILED {name}{count}: {findings}")
    finally:
        service.process.stop()
    return lines


def idwcc(blueprint, folder):
    """idwcc, driven through the API of its own web page, in its strict mode; on plain http, as it trusts no authority of ours."""
    if not shutil.which("idwcc"):
        return ["skipped: idwcc is not installed"]
    service = Service(blueprint, folder)
    port = free_port()
    process = Process("idwcc", ["idwcc", "--port", port], folder, stdin=subprocess.PIPE)
    lines = []

    def ask(method, path, document=None):
        headers, body = [("Content-Type", "application/json")], b"" if document is None else json.dumps(document).encode()
        answer = request(port, f"/api/{path}", method=method, headers=headers, body=body)
        if answer.status != 200:
            raise Failed(f"{method} {path}: {answer.status} {answer.body[:200]!r}")
        return json.loads(answer.body) if answer.body else {}

    try:
        wait_for("idwcc listens", lambda: listens(port))
        for algorithm in ALGORITHMS:
            client = f"robot-{algorithm.lower()}"
            try:
                ask("POST", "session", {
                    "client_id": client, "client_secret": service.secrets[client], "token_method": 1,
                    "response_type": 0x10000, "additional_parameters": {"audience": API}, "openid_config_strict": True,
                    "openid_config_endpoint": f"{service.issuer}/.well-known/openid-configuration",
                })
                ask("POST", "configDownload")
                ask("PUT", "token")
                ask("POST", "accessTokenVerify")
                payload = ask("GET", "session").get("access_token_payload", {})
                if payload.get("client_id") != client:
                    raise Failed(f"verified nothing: {payload}")
            except (Failed, OSError, ValueError) as error:
                lines.append(f"FAILED strict discovery, client_credentials and verification with {algorithm}: {error}")
            else:
                lines.append(f"ok strict discovery, client_credentials and verification with {algorithm}")
    finally:
        process.stop()
        service.process.stop()
    return lines


if __name__ == "__main__":
    sys.exit(main())
