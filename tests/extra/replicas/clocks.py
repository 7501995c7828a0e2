"""The database's clock is stepped, a standby with another clock takes over, and a database process is suspended (C7): no
token is revived, refused or minted at another time, and the replicas stay ready."""

import signal
import time

import client
import parts
from client import basic
from history import Violation
from scenarios import is_active, log_in
from workload import GATEWAY

# Life of the access tokens, in seconds.
LIFE = 30

STEPS = ("-25", "-60", "-600", "+25", "+60", "+600")


class Watch:
    """What must hold while clocks differ."""

    def __init__(self, installation, expired):
        self.installation, self.expired = installation, expired
        self.proof = basic(GATEWAY, installation.gateway_secret)
        self.violations = []

    def broken(self, text):
        self.violations.append(Violation("a wrong clock", text))

    def hold(self, seconds, when):
        """Asks every replica, again and again."""
        good, until = log_in(self.installation, self.installation.replicas[0].public), time.monotonic() + seconds
        while time.monotonic() < until:
            for replica in self.installation.replicas:
                if not is_active(replica, good, self.proof):
                    self.broken(f"{when}: a good token is not active on {replica.name}")
                if is_active(replica, self.expired, self.proof):
                    self.broken(f"{when}: an expired token is active on {replica.name}")
                if client.get(replica.public, "/readyz").status != 200:
                    self.broken(f"{when}: {replica.name} is not ready")
            time.sleep(0.05)
        for replica in self.installation.replicas:
            skew = client.claims(log_in(self.installation, replica.public))["iat"] - time.time()
            if abs(skew) > 2.0:
                self.broken(f"{when}: {replica.name} issues tokens {skew:.1f} s off")


def expired_token(installation):
    token = log_in(installation, installation.replicas[0].public)
    parts.wait_until(lambda: time.time() > client.claims(token)["exp"], LIFE + 5, "the token has expired")
    return token


def stepped(installation, postgres, report):
    watch = Watch(installation, expired_token(installation))
    for step in STEPS:
        postgres.set_clock(step)
        watch.hold(2.0, f"the database's clock was stepped by {step} s")
        postgres.set_clock("+0")
        watch.hold(1.0, f"the database's clock was set right after {step} s")
    for replica in installation.replicas:
        if "the database's clock was stepped" not in replica.process.log.read_text():
            watch.broken(f"{replica.name} does not log which clock was stepped")
    report(f"  the database's clock was stepped {len(STEPS)} times: {len(watch.violations)} violations")
    return watch.violations


def suspended(installation, postgres, database, report):
    watch, pids = Watch(installation, expired_token(installation)), []
    # A statement during which its process is suspended read the clock before or after that.
    feed = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE '%pg_current_snapshot%' AND pid <> pg_backend_pid()"
    for _ in range(10):
        pids = [int(pid) for (pid,) in postgres.query(feed)]
        for pid in pids:
            parts._signal(pid, signal.SIGSTOP)
        time.sleep(0.8)
        for pid in pids:
            parts._signal(pid, signal.SIGCONT)
        watch.hold(0.3, "a database process was suspended")
    if not pids:
        watch.broken("no process that follows the feed was found")
    report(f"  database processes were suspended ten times: {len(watch.violations)} violations")
    return watch.violations


def promoted(ours, postgres, standby, report):
    """The standby's clock is 20 s ahead."""
    watch = Watch(ours.installation, expired_token(ours.installation))
    postgres.kill()
    standby.promote()
    for proxy in ours.proxies:
        proxy.target_port = standby.port
        proxy.cut()
        proxy.pass_on()
    for replica in ours.replicas:
        replica.wait_ready(20)
    watch.hold(3.0, "a standby whose clock is 20 s ahead was promoted")
    report(f"  a standby with another clock was promoted: {len(watch.violations)} violations")
    return watch.violations
