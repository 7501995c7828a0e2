"""Promises that need their own set-up: cold starts, rotation, withdrawal, rolling restarts."""

import statistics
import threading
import time

import client
import parts
from client import basic, bearer
from history import Violation
from workload import APPLICATION, GATEWAY, PASSWORD


def together(jobs):
    """Runs all at the same time; returns their results in order."""
    gate, results = threading.Barrier(len(jobs)), [None] * len(jobs)

    def run(index, job):
        gate.wait()
        results[index] = job()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def kids(replica):
    answer = client.get(replica.public, "/.well-known/jwks.json")
    return sorted(key["kid"] for key in answer.json["keys"])


def cold_starts(binary, folder, postgres, rounds, report):
    """Five replicas start at once on an empty database: the schema is made once, and exactly one key (D1, K8, C9). In the
    last round the key is then made due: all five see that at once, exactly one rotates. Names of checks, and what they found."""
    times = []
    for number in range(rounds):
        violations = []
        database = f"cold_{number}"
        postgres.query(f"CREATE DATABASE {database} TEMPLATE template0")
        settings = parts.replica_settings(postgres.port, database, MASTER_KEY=parts.master_key())
        replicas = [parts.Replica(f"{database}_{index}", binary, folder, settings) for index in range(5)]
        try:
            began = time.monotonic()
            together([replica.start for replica in replicas])
            for replica in replicas:
                replica.wait_ready()
            times.append(time.monotonic() - began)
            rows = postgres.query("SELECT kid FROM signing_keys", database)
            sets = [kids(replica) for replica in replicas]
            if len(rows) != 1 or any(shown != [rows[0][0]] for shown in sets):
                violations.append(Violation("a cold start makes exactly one key", f"{len(rows)} keys, shown {sets}"))
            yield f"cold start {number + 1}", violations
            if number == rounds - 1:
                median, most = statistics.median(times), max(times)
                report(f"  {rounds} rounds: five replicas were ready after {median:.1f} s, {most:.1f} s at most")
                yield "rotation of a due key", automatic_rotation(postgres, database, replicas, report)
        finally:
            for replica in replicas:
                replica.stop()
        postgres.query(f"DROP DATABASE {database} WITH (FORCE)")


def automatic_rotation(postgres, database, replicas, report):
    postgres.query(
        "BEGIN; UPDATE signing_keys SET signs_from = signs_from - 2592000000, announced_at = announced_at - 2592000000;"
        "INSERT INTO changes (kind, subject, epoch, created_at, expires_at)"
        " SELECT 'keys_changed', '', 0, at, at + 3600000 FROM (SELECT (extract(epoch FROM now()) * 1000)::bigint AS at) AS now;"
        "COMMIT", database)
    count = lambda: int(postgres.query("SELECT count(*) FROM signing_keys", database)[0][0])
    began = time.monotonic()
    parts.wait_until(lambda: count() > 1, 25, "a due key is rotated")
    took = time.monotonic() - began
    # Long enough for every other replica to have looked at its keys as well.
    time.sleep(11.0)
    shown = [kids(replica) for replica in replicas]
    report(f"  a due key was rotated after {took:.1f} s; {count()} keys")
    if count() != 2 or any(len(keys) != 2 for keys in shown):
        return [Violation("of replicas that rotate at once exactly one wins", f"{count()} keys, shown {shown}")]
    return []


def key_withdrawal(installation, rounds, slack, report):
    """An administrator withdraws the signing key on one replica: gone from the JWK set, and its tokens inactive, on every
    replica within a second; the new key's tokens are good there."""
    violations, slowest = [], 0.0
    proof = basic(GATEWAY, installation.gateway_secret)
    for number in range(rounds):
        taking = installation.replicas[number % len(installation.replicas)]
        token = log_in(installation, taking.public)
        kid = client.header(token)["kid"]
        for replica in installation.replicas:
            parts.wait_until(lambda: is_active(replica, token, proof), 2, "a new token is active")
        path = f"/admin/v1/keys/{kid}/withdraw"
        answer = client.send(taking.operations, "POST", path, headers=bearer(installation.admin_key))
        assert answer.status == 204, (answer.status, answer.body)
        fresh = log_in(installation, taking.public)
        for replica in installation.replicas:
            while is_active(replica, token, proof) or kid in kids(replica) or not is_active(replica, fresh, proof):
                if time.monotonic() - answer.end > 5.0:
                    break
            took = time.monotonic() - answer.end
            slowest = max(slowest, took)
            if took > 1.0 + slack:
                violations.append(Violation("a withdrawn key is gone everywhere within the bound", f"{replica.name}: {took:.2f} s"))
    report(f"  {rounds} withdrawals, everywhere after {slowest * 1000:.0f} ms at most")
    return violations


def rotation_race(installation, rounds, report):
    """Administrators of all replicas rotate at once. Each request either made a key or says that another was faster, and
    the calendar has exactly one key without a successor."""
    violations, won = [], 0
    key = bearer(installation.admin_key)
    for _ in range(rounds):
        before = set(kids(installation.replicas[0]))
        answers = together([
            lambda replica=replica: client.post_json(replica.operations, "/admin/v1/keys/rotate", {}, key)
            for replica in installation.replicas])
        made = {answer.json["kid"] for answer in answers if answer.status == 201}
        won += len(made)
        if any(answer.status not in (201, 409) for answer in answers):
            violations.append(Violation("rotation", str([(answer.status, answer.code) for answer in answers])))
        for replica in installation.replicas:
            parts.wait_until(lambda: set(kids(replica)) == before | made, 3, f"{replica.name} shows the keys that were made")
        state = client.get(installation.replicas[0].operations, "/admin/v1/keys", key).json["keys"]
        if sum(item.get("retires_at") is None for item in state) != 1:
            violations.append(Violation("of replicas that rotate at once exactly one wins", str(state)))
        for kid in made:
            client.send(installation.replicas[0].operations, "POST", f"/admin/v1/keys/{kid}/withdraw", headers=key)
        for replica in installation.replicas:
            parts.wait_until(lambda: not made & set(kids(replica)), 3, "withdrawn keys are gone")
    report(f"  {rounds} races of {len(installation.replicas)} replicas, {won} keys made, one calendar")
    return violations


def log_in(installation, port):
    body = {"username": next(iter(installation.users)), "password": PASSWORD, "client_id": APPLICATION}
    answer = client.post_json(port, "/v1/login", body, basic(APPLICATION, installation.application_secret))
    assert answer.status == 200, (answer.status, answer.body)
    return answer.json["access_token"]


def is_active(replica, token, proof):
    answer = client.post_form(replica.public, "/oauth2/introspect", {"token": token}, proof)
    return answer.status == 200 and answer.json.get("active") is True


def lives(installation, rounds, report):
    """Sessions from the login to the logout, on two replicas that poll once a second. They learn of
    almost all ends within a quarter of the poll interval."""
    violations, waits = [], []
    proof = basic(GATEWAY, installation.gateway_secret)
    application = basic(APPLICATION, installation.application_secret)
    first, second = installation.replicas[:2]
    login = {"username": next(iter(installation.users)), "password": PASSWORD, "client_id": APPLICATION}
    for number in range(rounds):
        opened = client.post_json(first.public, "/v1/login", login, application).json
        body = {"refresh_token": opened["refresh_token"], "client_id": APPLICATION}
        refreshed = client.post_json(second.public, "/v1/refresh", body, application).json
        if not all(is_active(second, tokens["access_token"], proof) for tokens in (opened, refreshed)):
            violations.append(Violation("tokens of a live session are active", f"session {number}"))
        ended = client.post_json(first.public, "/v1/logout", {"refresh_token": refreshed["refresh_token"]})
        began = time.monotonic()
        if ended.status != 204:
            violations.append(Violation("a logout is acknowledged", f"{ended.status} {ended.body}"))
        parts.wait_until(lambda: not is_active(second, refreshed["access_token"], proof), 5, "the logout is heard of")
        waits.append(time.monotonic() - began)
    report(f"  a logout was heard of after {statistics.median(waits) * 1000:.0f} ms, {max(waits) * 1000:.0f} ms at most")
    if sorted(waits)[rounds * 8 // 10 - 1] > 0.25:
        violations.append(Violation("notifications arrive", f"{waits}"))
    return violations


def wrong_clocks(binary, folder, installation, settings, report):
    """A replica whose clock is half a minute off corrects it by the database's: its tokens are good elsewhere and others'
    tokens there, and what it revokes stays revoked. One that is further off is not ready, and says why (C7)."""
    violations, broken = [], lambda text: violations.append(Violation("a wrong clock", text))
    proof, right = basic(GATEWAY, installation.gateway_secret), installation.replicas[0]
    for offset in ("+20", "-20", "+45", "-45"):
        replica = parts.Replica(f"clock{offset}", binary, folder, settings, clock_offset=offset)
        try:
            replica.start()
            if abs(int(offset)) > 30:
                parts.wait_until(lambda: client.get(replica.public, "/readyz").status == 503, 20, "it is not ready")
                checks = client.get(replica.public, "/readyz").json["checks"]
                failing = [check["name"] for check in checks if not check["ok"]]
                if failing != ["clock"]:
                    broken(f"{offset} s: failing {failing}")
                continue
            replica.wait_ready()
            here, there = log_in(installation, replica.public), log_in(installation, right.public)
            for asked, token in ((right, here), (replica, there), (replica, here)):
                if not is_active(asked, token, proof):
                    broken(f"{offset} s: a good token is not active on {asked.name}")
            skew = client.claims(here)["iat"] - time.time()
            if abs(skew) > 2.0:
                broken(f"{offset} s: issues tokens {skew:.1f} s off")
            application = basic(APPLICATION, installation.application_secret)
            client.post_form(replica.public, "/oauth2/revoke", {"token": there}, application)
            parts.wait_until(lambda: not is_active(right, there, proof), 2, "its revocation arrives")
        finally:
            replica.stop()
    report(f"  clocks 20 s off are corrected, clocks 45 s off are out: {len(violations)} violations")
    return violations


def rolling_restart(installation, programs, report):
    """Every replica in turn is told to stop and started again as each of `programs`, under load through the balancer: no
    request fails (H15, C10)."""
    violations, stop, counted, failed = [], threading.Event(), [0], []
    token = log_in(installation, installation.balancer.port)
    proof = basic(GATEWAY, installation.gateway_secret)
    application = basic(APPLICATION, installation.application_secret)

    def introspect():
        while not stop.is_set():
            answer = client.post_form(installation.balancer.port, "/oauth2/introspect", {"token": token}, proof)
            counted[0] += 1
            if answer.status != 200 or answer.json.get("active") is not True:
                failed.append(f"introspection: {answer.status} {answer.body[:80]!r}")
            time.sleep(0.01)

    def refresh():
        body = {"username": list(installation.users)[1], "password": PASSWORD, "client_id": APPLICATION}
        answer = client.post_json(installation.balancer.port, "/v1/login", body, application)
        while not stop.is_set():
            if answer.status != 200:
                failed.append(f"login or refresh: {answer.status} {answer.body[:80]!r}")
                return
            body = {"refresh_token": answer.json["refresh_token"], "client_id": APPLICATION}
            counted[0] += 1
            answer = client.post_json(installation.balancer.port, "/v1/refresh", body, application)
            time.sleep(0.02)

    threads = [threading.Thread(target=job) for job in (introspect, introspect, introspect, refresh, refresh)]
    for thread in threads:
        thread.start()
    restarts = 0
    for program in programs:
        for replica in installation.replicas:
            code = replica.process.terminate(20)
            replica.binary = program
            if code != 0:
                violations.append(Violation("an orderly stop", f"{replica.name} ended with {code}"))
            replica.start()
            replica.wait_ready()
            restarts += 1
            time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    report(f"  {restarts} restarts under {counted[0]} requests, {len(failed)} failed")
    if failed:
        violations.append(Violation("a rolling restart fails no request", f"{len(failed)}: {sorted(set(failed))[:5]}"))
    return violations


def guesses(installation, limit, number, report):
    """`number` wrong passwords for one account at once, through all replicas: no more than the limit are looked at (L2, L3),
    a name that nobody has is treated alike (L5), and the sessions of the account go on (L4)."""
    violations, broken = [], lambda text: violations.append(Violation("guesses are limited across replicas", text))
    name, application = next(iter(installation.users)), basic(APPLICATION, installation.application_secret)
    body = {"username": name, "password": PASSWORD, "client_id": APPLICATION}
    session = client.post_json(installation.balancer.port, "/v1/login", body, application).json

    def guess(account, count):
        body = {"username": account, "password": "not the password of anybody", "client_id": APPLICATION}
        ports = [replica.public for replica in installation.replicas]
        return together([
            lambda port=ports[number % len(ports)]: client.post_json(port, "/v1/login", body, application, timeout=30.0)
            for number in range(count)])

    for account in (name, "nobody-of-this-name"):
        answers = guess(account, number)
        looked_at = [answer for answer in answers if answer.status == 401]
        turned_away = [answer for answer in answers if answer.status in (429, 503)]
        report(f"  of {len(answers)} guesses at {account!r}, {len(looked_at)} were looked at")
        if len(looked_at) > limit + len(installation.replicas) or not looked_at or len(looked_at) + len(turned_away) != len(answers):
            broken(f"{account}: {len(looked_at)} looked at, {len(turned_away)} turned away, of {len(answers)}")
        if not all(answer.headers.get("retry-after") for answer in turned_away):
            broken("turned away without Retry-After")
    for replica in installation.replicas:
        if not is_active(replica, session["access_token"], basic(GATEWAY, installation.gateway_secret)):
            broken(f"{replica.name} ended a session because of guesses")
        body = {"refresh_token": session["refresh_token"], "client_id": APPLICATION}
        answer = client.post_json(replica.public, "/v1/refresh", body, application)
        if answer.status != 200:
            broken(f"{replica.name} refuses a refresh because of guesses: {answer.status}")
        session = answer.json
    return violations


def reused_transaction_ids(ours, postgres, slack, report):
    """After a crash PostgreSQL gives out again the numbers of transactions that left no trace on the disk. A replica that was
    away meanwhile, and whose last snapshot saw those numbers used, must not take a revocation under one of them for old."""
    # Rolled-back changes must not reach the disk.
    postgres.query("ALTER SYSTEM SET wal_writer_delay = '10s'")
    postgres.query("SELECT pg_reload_conf()")
    try:
        for _ in range(10):
            reused, violations = reuse_transaction_ids(ours, postgres, slack)
            report(f"  {reused} numbers were given out again")
            if reused >= 10 or violations:
                return violations
        return [Violation("the crash was one", "ten crashes, and no number was given out again")]
    finally:
        postgres.query("ALTER SYSTEM RESET wal_writer_delay")
        postgres.query("SELECT pg_reload_conf()")


def reuse_transaction_ids(ours, postgres, slack):
    violations, (away, other) = [], ours.replicas
    proof = basic(GATEWAY, ours.installation.gateway_secret)
    application = basic(APPLICATION, ours.installation.application_secret)
    token = log_in(ours.installation, away.public)
    for replica in ours.replicas:
        parts.wait_until(lambda: is_active(replica, token, proof), 3, "a new token is active")
    before = burn_without_a_trace(postgres)
    ours.proxies[0].cut()
    postgres.crash()
    reused = before - next_transaction_id(postgres)
    parts.wait_until(other.is_ready, 20, "the other replica is ready again")
    answer = client.post_form(other.public, "/oauth2/revoke", {"token": token}, application)
    assert answer.status == 200, (answer.status, answer.body)
    burn(postgres, 600)
    ours.proxies[0].pass_on()
    mended = time.monotonic()
    while client.post_form(away.public, "/oauth2/introspect", {"token": token}, proof).json != {"active": False}:
        if time.monotonic() - mended > 3.0 + slack:
            violations.append(Violation("a revocation is honoured within the bound", "a crash of the database hides it"))
            break
        time.sleep(0.05)
    if not is_active(away, log_in(ours.installation, other.public), proof):
        violations.append(Violation("active: false only for what is not good", "after a crash of the database"))
    return reused, violations


def burn_without_a_trace(postgres):
    """Takes numbers of transactions in a way that a crash right now would give them out again, and that every replica's
    snapshot has seen; returns the next number. A concurrent commit writes them to the disk: then it tries again."""
    for _ in range(60):
        postgres.query("CHECKPOINT")
        began = log_position(postgres, "pg_current_wal_insert_lsn")
        # Few enough to fit a page, because a full page is written at once.
        burn(postgres, 60)
        # The replica polls ten times a second.
        time.sleep(0.4)
        following = next_transaction_id(postgres)
        if log_position(postgres, "pg_current_wal_lsn") <= began:
            return following
    raise TimeoutError("something commits all the time: no transaction is left without a trace")


def burn(postgres, number):
    postgres.query("BEGIN; SELECT pg_current_xact_id(); ROLLBACK;" * number)


def next_transaction_id(postgres):
    return int(postgres.query("SELECT pg_snapshot_xmax(pg_current_snapshot())")[0][0])


def log_position(postgres, function):
    """Position of the WAL: written to its file, or inserted."""
    return int(postgres.query(f"SELECT {function}() - '0/0'::pg_lsn")[0][0])
