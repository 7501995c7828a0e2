"""Partitions of many lengths, in one or both directions, between one replica and the database, and a process that is stopped for
a minute: the answers of the replica during the fault, and the time until it recovers (C2, C3, C9, C11)."""

import queue
import signal
import threading
import time

import client
import parts
from client import basic
from faults import RECOVERY
from history import Disturbance, Violation
from workload import GATEWAY

# Lengths in seconds of twenty partitions; other numbers keep these proportions.
LENGTHS = [300.0] * 2 + [30.0] * 5 + [5.0] * 13

# Seconds for which a replica may judge without a new sync.
MAX_LAG = 3.0

SUSPENSION = 60.0

# Replicas with a fault at the same time; the others keep revoking.
AT_ONCE = 2

MACHINE = "machine"


def lengths(number):
    """Returns `number` lengths, the longest first."""
    return [LENGTHS[index * len(LENGTHS) // number] for index in range(number)]


class Partitions:
    """Works through all partitions, on some replicas at a time."""

    def __init__(self, ours, history, slack, report):
        self.ours, self.history, self.slack, self.report = ours, history, slack, report
        self.proof = basic(GATEWAY, ours.installation.gateway_secret)
        # Tokens that the workload never revokes.
        secret = ours.installation.make_client(ours.replicas[0].operations, {
            "client_id": MACHINE, "type": "confidential", "grants": ["client_credentials"]})
        self.machine = basic(MACHINE, secret)
        self.violations, self.asked, self.recoveries = [], 0, []
        self.lock, self.turns = threading.Lock(), threading.Semaphore(AT_ONCE)

    def run(self, number):
        waiting = queue.Queue()
        for seconds in lengths(number):
            for kind in ("whole", "one-sided"):
                waiting.put((kind, seconds))
        waiting.put(("suspended", SUSPENSION))
        threads = [threading.Thread(target=self._work, args=(index, waiting)) for index in range(len(self.ours.replicas))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.report(f"  {len(self.recoveries)} partitions and suspensions; {self.asked} questions to replicas that could not know; "
                    f"judging again {max(self.recoveries):.2f} s after the end at most")
        return self.violations

    def _work(self, index, waiting):
        turn = 0
        while True:
            with self.turns:
                try:
                    kind, seconds = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    if kind == "suspended":
                        self._suspend(index, seconds)
                    else:
                        self._part(index, kind, seconds, forget=turn % 2 == 1)
                except Exception as error:
                    self._broken("comes to its end", f"{kind}, {seconds:.0f} s: {error!r}")
            turn += 1
            # The next partition starts with a replica that is ready.
            time.sleep(RECOVERY + self.slack)

    def _part(self, index, kind, seconds, forget):
        replica, proxy = self.ours.replicas[index], self.ours.proxies[index]
        token = self._token(replica)
        fault = Disturbance("database", replica.name, time.monotonic(), float("inf"))
        self.history.disturbances.append(fault)
        if kind == "whole":
            proxy.blackhole()
        else:
            proxy.lose_answers()
        cut = time.monotonic()
        while time.monotonic() < cut + seconds:
            self._ask_one_that_is_cut_off(replica, token, cut)
            time.sleep(0.2)
        proxy.pass_on(forget)
        self._mended(replica, token, fault, f"{kind}, {seconds:.0f} s")

    def _ask_one_that_is_cut_off(self, replica, token, cut):
        """From `MAX_LAG` after the last possible sync on, the replica answers 503 to every introspection. Its JWKS stays
        available."""
        answer = self._introspect(replica, token)
        ready = client.get(replica.public, "/readyz", timeout=2.0)
        keys = client.get(replica.public, "/.well-known/jwks.json", timeout=2.0)
        if keys.status != 200:
            self._broken("the JWK set comes from memory", f"{replica.name}: {keys.status}")
        if answer.start <= cut + MAX_LAG:
            return
        with self.lock:
            self.asked += 1
        if answer.status != 503 or not answer.headers.get("retry-after"):
            self._broken("a replica that cannot know does not judge",
                         f"{replica.name}, {answer.start - cut:.2f} s after it was cut off: {answer.status} {answer.body[:60]!r}")
        if ready.start > cut + MAX_LAG and ready.status != 503:
            self._broken("a replica that cannot know is not ready", f"{replica.name}: {ready.status}")

    def _suspend(self, index, seconds):
        """Requests that arrive while the process is stopped are answered after it continues, and not from the old view."""
        replica, others = self.ours.replicas[index], self.ours.replicas[:index] + self.ours.replicas[index + 1:]
        token = self._token(replica)
        faults = [Disturbance(kind, replica.name, time.monotonic(), float("inf")) for kind in ("process", "database")]
        self.history.disturbances.extend(faults)
        replica.process.signal(signal.SIGSTOP)
        time.sleep(seconds - 5.0)
        revocations = [client.post_form(other.public, "/oauth2/revoke", {"token": token}, self.machine) for other in others]
        assert any(answer.status == 200 for answer in revocations), revocations
        answers = []
        asking = [threading.Thread(target=lambda: answers.append(self._introspect(replica, token, 20.0))) for _ in range(8)]
        for thread in asking:
            thread.start()
        time.sleep(5.0)
        replica.process.signal(signal.SIGCONT)
        end = time.monotonic()
        for thread in asking:
            thread.join()
        for answer in answers:
            if answer.status not in (200, 503) or b'"active":true' in answer.body:
                self._broken("a process that was suspended proves its freshness first",
                             f"{replica.name}: {answer.status} {answer.body[:60]!r}")
        self._close(faults)
        self._until_it_judges(replica, self._token(replica), end, f"suspended, {seconds:.0f} s")

    def _mended(self, replica, token, fault, name):
        end = time.monotonic()
        self._close([fault])
        self._until_it_judges(replica, token, end, name)

    def _until_it_judges(self, replica, token, end, name):
        """A good token is active again, and the replica is ready, within the allowed recovery time."""
        judges = lambda: b'"active":true' in self._introspect(replica, token).body and replica.is_ready()
        parts.wait_until(judges, 30, f"{replica.name} judges again")
        took = time.monotonic() - end
        with self.lock:
            self.recoveries.append(took)
        if took > RECOVERY + self.slack:
            self._broken("ready 2 s after the database's return", f"{replica.name}, {name}: {took:.2f} s")

    def _token(self, replica):
        """A token that is active on that replica."""
        made = lambda: client.post_form(replica.public, "/oauth2/token", {"grant_type": "client_credentials"}, self.machine)
        parts.wait_until(lambda: made().status == 200, 10, f"{replica.name} issues a token")
        token = made().json["access_token"]
        parts.wait_until(lambda: b'"active":true' in self._introspect(replica, token).body, 10, "a new token is active")
        return token

    def _introspect(self, replica, token, timeout=8.0):
        return client.post_form(replica.public, "/oauth2/introspect", {"token": token}, self.proof, timeout=timeout)

    def _close(self, faults):
        disturbances = self.history.disturbances
        with self.lock:
            for fault in faults:
                disturbances[disturbances.index(fault)] = fault._replace(end=time.monotonic())

    def _broken(self, rule, text):
        with self.lock:
            self.violations.append(Violation(rule, text))
