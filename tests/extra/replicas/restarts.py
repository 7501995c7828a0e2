"""Rolling restarts under more load than Python can produce: H15 at the size of a release."""

import json
import subprocess
import sys
import time

import client
import parts
from client import basic
from history import Violation
from workload import APPLICATION, GATEWAY, PASSWORD

CONNECTIONS = 32
USERS = 8

# Seconds for a stop with drain, a start and the pause after it, with reserve.
RESTART = 3.5

# benches/load.rs does not count the first part of its time.
UNCOUNTED = 0.2


def load_program():
    sys.path.insert(0, str(parts.REPOSITORY / "benches"))
    import support

    return support.build("load")[1]


def under_load(installation, program, folder, restarts, rate, report):
    """Restarts replicas in turn for as long as the load runs through the balancer, which is for `restarts` of them at least: no
    request fails, and none is left out."""
    violations, broken = [], lambda text: violations.append(Violation("a rolling restart fails no request", text))
    plan = folder / "plan.json"
    plan.write_text(json.dumps(classes(installation)))
    seconds = restarts * RESTART / (1.0 - UNCOUNTED)
    command = [program, f"127.0.0.1:{installation.balancer.port}", plan, str(seconds), str(CONNECTIONS), str(rate)]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(seconds * UNCOUNTED + 0.5)
        done, covered = 0, 0
        while load.poll() is None:
            restart(installation.replicas[done % len(installation.replicas)], broken)
            done += 1
            covered += load.poll() is None
        seen = json.loads(load.stdout.read())
    finally:
        load.kill()
        load.wait()
    if covered < restarts:
        broken(f"only {covered} restarts while the load ran")
    report(f"  {covered} restarts")
    answered = 0.0
    for name, figures in seen.items():
        answered += figures["per_second"]
        failed = sum(figures["failures"].values())
        report(f"  {name}: {figures['answered']} answered, {failed} failed; p50 {figures['p50'] / 1000:.1f} ms, "
               f"p99 {figures['p99'] / 1000:.1f} ms, max {figures['max'] / 1000:.0f} ms")
        if failed:
            broken(f"{name}: {figures['failures']}")
    report(f"  {answered:.0f} requests a second were answered")
    # Failed requests also lower the rate; requests that are late at the end do not.
    if answered < 0.99 * rate:
        broken(f"{answered:.0f} requests a second were answered, of {rate:.0f}")
    return violations


def restart(replica, broken):
    code = replica.process.terminate(20)
    if code != 0:
        broken(f"{replica.name} ended with {code}")
    replica.start()
    replica.wait_ready()
    time.sleep(0.5)


def classes(installation):
    """Of a hundred requests ninety are introspections, nine refreshes, and one is a login."""
    application = basic(APPLICATION, installation.application_secret)
    logins = [{"username": name, "password": PASSWORD, "client_id": APPLICATION} for name in installation.users]
    # A connection uses at most one chain.
    bodies = [logins[number % len(logins)] for number in range(CONNECTIONS)]
    answers = [client.post_json(installation.balancer.port, "/v1/login", body, application) for body in bodies]
    assert all(answer.status == 200 for answer in answers), [answer.status for answer in answers]
    line = lambda fields: [f"{name}: {value}" for name, value in fields.items()]
    form, document = "Content-Type: application/x-www-form-urlencoded", "Content-Type: application/json"
    return [
        {"name": "introspection", "weight": 90, "path": "/oauth2/introspect", "contains": '"active":true',
         "headers": [form, *line(basic(GATEWAY, installation.gateway_secret))],
         "bodies": [f"token={answer.json['access_token']}" for answer in answers]},
        {"name": "refresh", "weight": 9, "path": "/v1/refresh", "headers": [document, *line(application)],
         "bodies": [answer.json["refresh_token"] for answer in answers],
         "before": f'{{"client_id":"{APPLICATION}","refresh_token":"', "after": '"}', "contains": "access_token"},
        {"name": "login", "weight": 1, "path": "/v1/login", "headers": [document, *line(application)],
         "bodies": [json.dumps(body) for body in logins], "contains": "access_token"},
    ]
