"""Clients of the service: users with sessions, gateways that introspect, administrators. Each is a thread that sends requests to
random replicas, sometimes through the balancer, and records requests and answers."""

import random
import secrets
import threading
import time

import client
import parts
from client import basic, bearer

APPLICATION, GATEWAY, PASSWORD = "application", "gateway", "correct horse battery staple 7"

# Seconds for which an operation is retried before the client gives up; below the retry window.
PERSISTENCE = 24.0

# Seconds after which a superseded refresh token counts as stolen; a little more than the retry window.
STOLEN_AFTER = parts.RETRY_WINDOW + 2.0


class Installation:
    """A database with replicas, and the credentials that the workload needs."""

    def __init__(self, replicas, balancer, admin_key):
        self.replicas, self.balancer, self.admin_key = replicas, balancer, admin_key
        self.users = {}

    def prepare(self, users):
        """Creates users and clients through the administration of one replica."""
        port = self.replicas[0].operations
        self.application_secret = self.make_client(port, {
            "client_id": APPLICATION, "type": "confidential", "grants": ["password_login", "refresh_token"]})
        self.gateway_secret = self.make_client(port, {
            "client_id": GATEWAY, "type": "confidential", "introspect": "any"})
        for number in range(users):
            name = f"user{number}"
            body = {"username": name, "password": PASSWORD, "roles": []}
            answer = client.post_json(port, "/admin/v1/users", body, bearer(self.admin_key))
            assert answer.status == 201, (answer.status, answer.body)
            self.users[name] = answer.json["id"]
        # The other replicas learn of the clients with their next poll.
        for replica in self.replicas:
            proof = basic(GATEWAY, self.gateway_secret)
            form = {"token": "none"}
            parts.wait_until(lambda: client.post_form(replica.public, "/oauth2/introspect", form, proof).status == 200,
                             5, "every replica knows the gateway")

    def make_client(self, port, body):
        answer = client.post_json(port, "/admin/v1/clients", body, bearer(self.admin_key))
        assert answer.status == 201, (answer.status, answer.body)
        return answer.json["client_secret"]

    def someone(self, dice):
        """A replica asked directly (its name and port), or the balancer."""
        if self.balancer and dice.random() < 0.3:
            return None, self.balancer.port
        replica = dice.choice(self.replicas)
        return replica.name, replica.public

    def served_by(self, name, answer):
        """The replica that answered, if the balancer named it."""
        if name is not None:
            return name
        address = answer.headers.get("x-served-by", "").split(",")[-1].strip()
        return next((replica.name for replica in self.replicas if address.endswith(f":{replica.public}")), None)


class Tokens:
    """Access tokens for the gateways' introspections: live ones, and those that were just revoked."""

    def __init__(self):
        self.lock, self.live, self.ended = threading.Lock(), {}, []

    def add(self, jti, token, sid):
        with self.lock:
            self.live[jti] = (token, sid, time.monotonic())

    def end(self, sid=None, jti=None):
        """Introspects a token, or all tokens of a session, more often from now on."""
        with self.lock:
            chosen = [key for key, (_, owner, _) in self.live.items() if key == jti or owner == sid]
            for key in chosen[-4:]:
                self.ended.append((time.monotonic(), key, self.live[key][0]))
            for key in chosen:
                del self.live[key]

    def pick(self, dice):
        """A recently revoked token, or a live one."""
        with self.lock:
            now = time.monotonic()
            self.ended = [entry for entry in self.ended if now - entry[0] < 6.0]
            for key in [key for key, entry in self.live.items() if now - entry[2] > 240.0]:
                del self.live[key]
            if self.ended and (dice.random() < 0.6 or not self.live):
                _, jti, token = dice.choice(self.ended)
                return jti, token
            if self.live:
                jti = dice.choice(list(self.live))
                return jti, self.live[jti][0]
        return None


class Workload:
    """All threads. Their pauses between two requests are divided by `pace`."""

    def __init__(self, installation, history, people=6, gateways_per_replica=2, seed=0, pace=1.0):
        self.installation, self.history, self.pace = installation, history, pace
        self.tokens, self.stop = Tokens(), threading.Event()
        self.failures = []
        users = list(installation.users)
        jobs = [Person(self, seed * 1000 + number, users[number % len(users)]).run for number in range(people)]
        for replica in [*installation.replicas, *([None] if installation.balancer else [])]:
            jobs += [Gateway(self, replica, seed).run for _ in range(gateways_per_replica)]
        jobs += [Administrator(self, seed).run, Reader(self, seed).run]
        self.threads = [threading.Thread(target=self._guarded, args=(job,), daemon=True) for job in jobs]

    def start(self):
        for thread in self.threads:
            thread.start()

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        if self.failures:
            raise self.failures[0]

    def _guarded(self, job):
        try:
            while not self.stop.is_set():
                job()
        except Exception as error:
            self.failures.append(error)
            self.stop.set()
            raise

    def record(self, op, answer, replica, balanced, outcome, **fields):
        fields.setdefault("end_at", answer.end)
        end = fields.pop("end_at")
        self.history.add(
            op, answer.start, end, replica=replica, balanced=balanced, outcome=outcome, status=answer.status,
            code=answer.code, retry_after=answer.headers.get("retry-after"), **fields,
        )

    def ended(self, op, subject, answer, name, good, **fields):
        """Records an operation that ends a token or session; true when it was acknowledged."""
        outcome = outcome_of(answer, good)
        end = answer.end if outcome == "ok" else float("inf")
        replica = self.installation.served_by(name, answer)
        self.record(op, answer, replica, name is None, outcome, subject=subject, end_at=end, **fields)
        return outcome == "ok"


def outcome_of(answer, good, refused=()):
    """The outcome that an answer stands for."""
    if answer.status in good:
        return "ok"
    if answer.status in refused:
        return "refused"
    if not answer.was_sent:
        return "not sent"
    if answer.status == 503:
        return "unavailable"
    return "unexpected" if answer.status and answer.status not in (502, 504) else "unknown"


class Person:
    """Opens one session after the other and uses it like a user with several devices."""

    def __init__(self, workload, seed, user):
        self.workload, self.dice, self.user = workload, random.Random(seed), user
        self.installation, self.history = workload.installation, workload.history

    def run(self):
        session = self.log_in()
        if session is None:
            self.pause(0.3)
            return
        for _ in range(self.dice.randint(4, 16)):
            if self.workload.stop.is_set():
                return
            self.pause(0.25)
            action = self.dice.choices(
                [self.refresh, self.refresh_and_lose, self.refresh_twice, self.revoke_token], [50, 20, 12, 12])[0]
            if not action(session):
                return
        ending = self.dice.choice([self.log_out, self.log_out, self.end_by_administrator, self.reuse])
        ending(session)
        # Another attempt with the session must fail.
        self.try_refresh(session, session["chain"][-1], 0)

    def pause(self, seconds):
        time.sleep(seconds * self.dice.uniform(0.5, 1.5) / self.workload.pace)

    def log_in(self):
        name, port = self.installation.someone(self.dice)
        body = {"username": self.user, "password": PASSWORD, "client_id": APPLICATION}
        proof = basic(APPLICATION, self.installation.application_secret)
        answer = client.post_json(port, "/v1/login", body, proof)
        outcome = outcome_of(answer, (200,))
        # A login that met a revocation of its user is refused. Nothing is lost: the login was not acknowledged.
        fields = self.learn(answer) if outcome == "ok" else {}
        replica = self.installation.served_by(name, answer)
        self.workload.record("login", answer, replica, name is None, outcome, user=self.user, **fields)
        if outcome != "ok":
            return None
        return {"sid": fields["sid"], "chain": [fields["refresh"]], "jti": fields["jti"], "token": answer.json["access_token"]}

    def learn(self, answer):
        body = answer.json
        access = client.claims(body["access_token"])
        expires = time.monotonic() + access["exp"] - time.time()
        self.workload.tokens.add(access["jti"], body["access_token"], body["session_id"])
        return {
            "sid": body["session_id"], "refresh": body["refresh_token"], "jti": access["jti"], "expires": expires,
            "kid": client.header(body["access_token"])["kid"],
        }

    def try_refresh(self, session, presented, attempt, walk_away_after=None, is_stolen=False):
        """One attempt; returns its outcome."""
        name, port = self.installation.someone(self.dice)
        body = {"refresh_token": presented, "client_id": APPLICATION}
        proof = basic(APPLICATION, self.installation.application_secret)
        answer = client.post_json(port, "/v1/refresh", body, proof, walk_away_after=walk_away_after)
        outcome = outcome_of(answer, (200,), (401,))
        fields = {"sid": session["sid"]}
        if outcome == "ok":
            fields = self.learn(answer)
            if presented == session["chain"][-1]:
                session["chain"].append(fields["refresh"])
                session["jti"], session["token"] = fields["jti"], answer.json["access_token"]
        end = float("inf") if outcome in ("unknown", "unavailable") else answer.end
        replica = self.installation.served_by(name, answer)
        walked_away = walk_away_after is not None
        self.workload.record("refresh", answer, replica, name is None, outcome, presented=presented, attempt=attempt,
                             end_at=end, walked_away=walked_away, is_stolen=is_stolen, **fields)
        return outcome

    def refresh(self, session, attempt=0):
        """Refreshes, and retries on other replicas until an answer arrives. False when the session has ended."""
        presented, deadline = session["chain"][-1], time.monotonic() + PERSISTENCE
        while time.monotonic() < deadline:
            outcome = self.try_refresh(session, presented, attempt)
            if outcome == "ok":
                return True
            if outcome in ("refused", "unexpected"):
                return False
            attempt += 1
            self.pause(0.2)
        return False

    def refresh_and_lose(self, session):
        """The answer is lost on its way; the retry goes elsewhere."""
        self.try_refresh(session, session["chain"][-1], 0, walk_away_after=self.dice.choice([0.0, 0.002, 0.01, 0.05]))
        return self.refresh(session, attempt=1)

    def refresh_twice(self, session):
        """Two tabs refresh with the same token in the same moment."""
        presented, outcomes = session["chain"][-1], []
        tabs = [threading.Thread(target=lambda: outcomes.append(self.try_refresh(session, presented, 0))) for _ in range(2)]
        for tab in tabs:
            tab.start()
        for tab in tabs:
            tab.join()
        if "ok" in outcomes:
            return True
        return "refused" not in outcomes and self.refresh(session, attempt=1)

    def revoke_token(self, session):
        """RFC 7009, for the access token alone: the session lives on."""
        name, port = self.installation.someone(self.dice)
        proof = basic(APPLICATION, self.installation.application_secret)
        answer = client.post_form(port, "/oauth2/revoke", {"token": session["token"]}, proof)
        self.workload.ended("revoke_token", session["jti"], answer, name, (200,))
        self.workload.tokens.end(jti=session["jti"])
        return True

    def log_out(self, session):
        name, port = self.installation.someone(self.dice)
        answer = client.post_json(port, "/v1/logout", {"refresh_token": session["chain"][-1]})
        self.workload.ended("end_session", session["sid"], answer, name, (204,))
        self.workload.tokens.end(sid=session["sid"])

    def end_by_administrator(self, session):
        replica = self.dice.choice(self.installation.replicas)
        path, key = f"/admin/v1/sessions/{session['sid']}", bearer(self.installation.admin_key)
        answer = client.send(replica.operations, "DELETE", path, headers=key)
        # 404: the session has already ended.
        self.workload.ended("end_session", session["sid"], answer, replica.name, (204, 404))
        self.workload.tokens.end(sid=session["sid"])

    def reuse(self, session):
        """A stolen token comes back after the retry window: the session ends, everywhere."""
        if len(session["chain"]) >= 3 and not self.workload.stop.wait(STOLEN_AFTER):
            self.try_refresh(session, session["chain"][-3], 0, is_stolen=True)
            self.workload.tokens.end(sid=session["sid"])


class Gateway:
    """Introspects, on one replica or through the balancer."""

    def __init__(self, workload, replica, seed):
        self.workload, self.replica, self.dice = workload, replica, random.Random(f"{seed} {secrets.token_hex(4)}")
        self.installation = workload.installation

    def run(self):
        picked = self.workload.tokens.pick(self.dice)
        if picked is None:
            time.sleep(0.05)
            return
        name, port = (self.replica.name, self.replica.public) if self.replica else (None, self.installation.balancer.port)
        proof = basic(GATEWAY, self.installation.gateway_secret)
        jti, token = picked
        answer = client.post_form(port, "/oauth2/introspect", {"token": token}, proof)
        outcome = outcome_of(answer, (200,))
        if outcome == "ok":
            outcome = "active" if answer.json.get("active") is True else "inactive"
            if outcome == "inactive" and answer.body != b'{"active":false}':
                outcome = "unexpected"
        replica = self.installation.served_by(name, answer)
        self.workload.record("introspect", answer, replica, name is None, outcome, jti=jti)
        time.sleep(0.03 / self.workload.pace if answer.status else 0.1)


class Administrator:
    """Logs a user out everywhere from time to time."""

    def __init__(self, workload, seed):
        self.workload, self.dice, self.installation = workload, random.Random(seed + 7), workload.installation

    def run(self):
        self.workload.stop.wait(self.dice.uniform(1.5, 4.0))
        replica = self.dice.choice(self.installation.replicas)
        name = self.dice.choice(list(self.installation.users))
        body, key = {"user": self.installation.users[name]}, bearer(self.installation.admin_key)
        answer = client.post_json(replica.operations, "/admin/v1/revocations", body, key)
        self.workload.ended("revoke_user", name, answer, replica.name, (200, 201, 204))


class Reader:
    """Fetches the JWK set, as every verifier does."""

    def __init__(self, workload, seed):
        self.workload, self.dice, self.installation = workload, random.Random(seed + 8), workload.installation

    def run(self):
        name, port = self.installation.someone(self.dice)
        answer = client.get(port, "/.well-known/jwks.json")
        replica = self.installation.served_by(name, answer)
        self.workload.record("jwks", answer, replica, name is None, outcome_of(answer, (200,)))
        self.workload.stop.wait(0.2)
