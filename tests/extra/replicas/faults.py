"""Faults, applied one at a time, and the time until the replicas are ready again."""

import signal
import time

from history import Disturbance, Violation

# Seconds from a reachable database to a ready replica, plus slack for a busy machine.
RECOVERY = 2.0


class Faults:
    """Applies faults to a fleet of replicas, each behind a proxy of its own, and records them in the history. In the
    history a fault ends when the broken part works again. The checker finds a replica that refuses for longer than allowed."""

    def __init__(self, history, replicas, proxies, postgres, slack, report):
        self.history, self.replicas, self.proxies = history, replicas, proxies
        self.postgres, self.slack, self.report = postgres, slack, report

    def all(self):
        """Every fault with its name, as functions without arguments. Faults of one replica rotate over the replicas."""
        one, other = 0, 1
        return [
            ("a slow way to the database", lambda: self._proxy(one, lambda proxy: proxy.slow(0.15), 3.0)),
            ("a cut way", lambda: self._proxy(other, lambda proxy: proxy.cut(), 5.0)),
            ("a blackhole that forgets its connections", lambda: self._proxy(2, lambda proxy: proxy.blackhole(), 5.0, True)),
            ("a second of blackhole everywhere", lambda: self._proxies(lambda proxy: proxy.blackhole(), 1.0, False)),
            ("a blackhole everywhere, then all is delivered", lambda: self._proxies(lambda proxy: proxy.blackhole(), 5.0, False)),
            ("answers of the database are lost", lambda: self._proxy(one, lambda proxy: proxy.lose_answers(), 4.0, True)),
            ("connections half open", lambda: self._half_open(other)),
            ("a short blackhole that forgets", lambda: self._proxy(2, lambda proxy: proxy.blackhole(), 2.3, True)),
            ("kill -9 of a replica", lambda: self._kill_replica(other)),
            ("a replica suspended", lambda: self._suspend(2, 6.0)),
            ("kill -9 of PostgreSQL", lambda: self._restart_postgres(self.postgres.kill, 3.0)),
            ("PostgreSQL suspended", self._freeze_postgres),
            ("a crash of one of PostgreSQL's processes", self._crash_backend),
            ("a shutdown of PostgreSQL", lambda: self._restart_postgres(self.postgres.shut_down, 0.5)),
            ("a transaction held open", lambda: self._hold_transaction(5.0)),
        ]

    def named(self, wanted):
        return next(fault for fault in self.all() if fault[0] == wanted)

    def run(self, named):
        """Applies one fault and returns direct failures. The history checker finds the others."""
        self.violations = []
        name, apply = named
        started = time.monotonic()
        recovered = apply()
        took = "" if recovered is None else f", ready {recovered:.2f} s after its end"
        self.report(f"  {name}: {time.monotonic() - started:.1f} s{took}")
        if recovered is not None and recovered > RECOVERY + self.slack:
            self.violations.append(Violation("ready 2 s after the database's return", f"{name}: {recovered:.2f} s"))
        return self.violations

    def _until_ready(self, replicas):
        """Seconds from now until all replicas are ready."""
        began, waiting = time.monotonic(), list(replicas)
        while waiting and time.monotonic() - began < 20.0:
            waiting = [replica for replica in waiting if not replica.is_ready()]
            if waiting:
                time.sleep(0.02)
        return time.monotonic() - began

    def _proxy(self, index, break_it, seconds, forget=False):
        start, replica = time.monotonic(), self.replicas[index]
        open_fault = self._open("database", replica, start)
        break_it(self.proxies[index])
        time.sleep(seconds)
        self.proxies[index].pass_on(forget)
        self._close(open_fault)
        return self._until_ready([replica])

    def _proxies(self, break_it, seconds, forget):
        open_fault = self._open("database", None, time.monotonic())
        for proxy in self.proxies:
            break_it(proxy)
        time.sleep(seconds)
        for proxy in self.proxies:
            proxy.pass_on(forget)
        self._close(open_fault)
        return self._until_ready(self.replicas)

    def _half_open(self, index):
        open_fault = self._open("database", self.replicas[index], time.monotonic())
        self.proxies[index].half_open()
        # The database stays reachable, so the fault ends when it begins. The replica has to notice it, and the checker
        # counts refusals from here.
        self._close(open_fault)
        time.sleep(4.0)
        return self._until_ready([self.replicas[index]])

    def _kill_replica(self, index):
        replica = self.replicas[index]
        open_fault = self._open("process", replica, time.monotonic())
        replica.process.kill()
        time.sleep(1.0)
        replica.start()
        replica.wait_ready()
        self._close(open_fault)

    def _suspend(self, index, seconds):
        replica = self.replicas[index]
        faults = [self._open(kind, replica, time.monotonic()) for kind in ("process", "database")]
        replica.process.signal(signal.SIGSTOP)
        time.sleep(seconds)
        replica.process.signal(signal.SIGCONT)
        for fault in faults:
            self._close(fault)
        return self._until_ready([replica])

    def look_at_the_standby(self, standby):
        """A database balancer sends one replica to the standby, which may lag by any time. The replica must refuse to follow
        it."""
        replica, proxy = self.replicas[0], self.proxies[0]
        open_fault = self._open("database", replica, time.monotonic())
        primary_port, proxy.target_port = proxy.target_port, standby.port
        proxy.cut()
        proxy.pass_on()
        time.sleep(4.5)
        if replica.is_ready():
            self.violations.append(Violation("a standby is not followed", f"{replica.name} is ready on one"))
        proxy.target_port = primary_port
        proxy.cut()
        proxy.pass_on()
        self._close(open_fault)
        return self._until_ready([replica])

    def fail_over(self, standby):
        """The primary is killed and stays down; the standby is promoted and takes its place."""
        open_fault = self._open("database", None, time.monotonic())
        self.postgres.kill()
        time.sleep(1.0)
        standby.promote()
        for proxy in self.proxies:
            proxy.target_port = standby.port
            proxy.cut()
            proxy.pass_on()
        self._close(open_fault)
        return self._until_ready(self.replicas)

    def _restart_postgres(self, end, seconds):
        open_fault = self._open("database", None, time.monotonic())
        end()
        time.sleep(seconds)
        self.postgres.start()
        self._close(open_fault)
        return self._until_ready(self.replicas)

    def _crash_backend(self):
        """PostgreSQL ends every connection and recovers from its WAL; the postmaster keeps running."""
        open_fault = self._open("database", None, time.monotonic())
        self.postgres.crash()
        self._close(open_fault)
        return self._until_ready(self.replicas)

    def restart_pooler(self, pooler):
        open_fault = self._open("database", None, time.monotonic())
        pooler.stop()
        time.sleep(2.0)
        pooler.start()
        self._close(open_fault)
        return self._until_ready(self.replicas)

    def _freeze_postgres(self):
        open_fault = self._open("database", None, time.monotonic())
        self.postgres.freeze()
        time.sleep(4.5)
        self.postgres.thaw()
        self._close(open_fault)
        return self._until_ready(self.replicas)

    def _hold_transaction(self, seconds):
        """A transaction with an id of its own holds the snapshot's xmin back, in whichever database it is open. A follower
        that went by ids alone would miss later commits. This is no disturbance: the healthy bound applies."""
        with self.postgres.connect(timeout=seconds + 5) as connection:
            connection.query("BEGIN; SELECT pg_current_xact_id()")
            time.sleep(seconds)
            connection.query("ROLLBACK")

    def _open(self, kind, replica, start):
        """Records a fault from before it is applied; it has no end until it is closed."""
        fault = Disturbance(kind, replica and replica.name, start, float("inf"))
        self.history.disturbances.append(fault)
        return fault

    def _close(self, fault):
        disturbances = self.history.disturbances
        disturbances[disturbances.index(fault)] = fault._replace(end=time.monotonic())
