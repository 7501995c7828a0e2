"""The history of a run: operations and faults with their start and end times, and its check.

Times are readings of one monotonic clock, taken before a request is sent and after its answer is read. A violation is
only reported where it follows from these whatever happened in between: an answer counts as given when its request began,
an acknowledgement as given when it was read. So the checker never blames the service for a slow test program.
"""

from collections import defaultdict, namedtuple

# Seconds before its expiry from which a token is not checked.
EXPIRY_MARGIN = 2.0

Bounds = namedtuple("Bounds", "healthy faulty slack window settle")
"""`healthy`: seconds within which a revocation is applied while the database can be reached; `faulty`: under any fault;
`slack`: what a process may wait for a core on a busy machine, added to `healthy` and `settle` but not to `faulty`, which
follows from the replica's own clock; `window`: the retry window of refreshes; `settle`: how long after a fault has ended a
replica may still refuse, and need the longer bound."""

Violation = namedtuple("Violation", "rule text")


class Disturbance(namedtuple("Disturbance", "kind replica start end")):
    """A fault of one replica, or of all when `replica` is None. `kind` is "process" when the replica itself was killed,
    stopped or restarted, and "database" when its connection to the database was broken."""

    def concerns(self, replica):
        return self.replica is None or replica is None or self.replica == replica


class History:
    """Appending is atomic in CPython: the workload's threads share one."""

    def __init__(self):
        self.events, self.disturbances, self.notes = [], [], []

    def add(self, op, start, end, **fields):
        self.events.append({"op": op, "start": start, "end": end, **fields})

    def of(self, *ops):
        return [event for event in self.events if event["op"] in ops]


# Operations: login, refresh, introspect, jwks, and those that end things: revoke_token, end_session, revoke_user, withdraw_key.
ENDINGS = ("revoke_token", "end_session", "revoke_user", "withdraw_key")


# The promises; a history is checked against each of them.
RULES = (
    "a revocation is honoured within the bound",
    "honoured at once where it was taken",
    "active: false only for what is not good",
    "one live branch per session",
    "no session is lost by a retry",
    "no refresh after the end was acknowledged",
    "a stolen refresh token ends its session",
    "no 5xx but 503",
    "503 only under a fault",
    "503 names Retry-After",
    "the JWK set comes from memory",
    "no unexpected refusal",
    "every request is answered",
)


class Judge:
    """Checks a history. `violations` is empty when every promise was kept."""

    def __init__(self, history, bounds):
        self.history, self.bounds = history, bounds
        self.violations = []
        self.tokens = {}
        self.sessions = defaultdict(lambda: {"user": None, "login": None, "login_start": None})
        self.figures = defaultdict(int)
        # How long after the acknowledgement a revoked token was last found active, in seconds.
        self.latest = defaultdict(float)

    def run(self):
        self._learn_tokens()
        self._learn_endings()
        for event in self.history.events:
            self._check_status(event)
            if event["op"] == "introspect":
                self._check_introspection(event)
        self._check_branches()
        self._check_refreshes()
        return self.violations

    def _report(self, rule, text):
        assert rule in RULES, rule
        self.violations.append(Violation(rule, text))

    def _learn_tokens(self):
        for event in self.history.of("login", "refresh"):
            if event["outcome"] != "ok":
                continue
            if event["op"] == "login":
                self.sessions[event["sid"]] = {
                    "user": event["user"], "login": event["refresh"],
                    "login_start": event["start"], "login_end": event["end"],
                }
            known = self.tokens.get(event["jti"])
            if known is None or event["end"] < known["known_at"]:
                self.tokens[event["jti"]] = {
                    "sid": event["sid"], "kid": event["kid"], "expires": event["expires"], "known_at": event["end"],
                }

    def _learn_endings(self):
        """The operations that may have ended each session and token, and those that certainly did."""
        self.by_token, self.by_session = defaultdict(list), defaultdict(list)
        self.by_user, self.by_key = defaultdict(list), defaultdict(list)
        index = {"revoke_token": self.by_token, "end_session": self.by_session,
                 "revoke_user": self.by_user, "withdraw_key": self.by_key}
        for event in self.history.of(*ENDINGS):
            index[event["op"]][event["subject"]].append(event)
        for event in self._possible_reuses():
            self.by_session[event["sid"]].append({**event, "is_certain": event.get("code") == "refresh_token_reused"})

    def _endings_of_session(self, sid):
        yield from self.by_session[sid]
        session = self.sessions[sid]
        for event in self.by_user[session["user"]]:
            # A login that overlaps the revocation may come before or after it; one that began after it lives.
            if session["login_start"] is None or session["login_start"] <= event["end"]:
                is_before = session["login_start"] is not None and session["login_end"] < event["start"]
                yield event if is_before else {**event, "is_certain": False}

    def _endings_of(self, jti):
        token = self.tokens[jti]
        yield from self.by_token[jti]
        yield from self._endings_of_session(token["sid"])
        yield from self.by_key[token["kid"]]

    @staticmethod
    def _is_acknowledged(event):
        return event["outcome"] == "ok" and event.get("is_certain", True) or event.get("code") == "refresh_token_reused"

    def _was_disturbed(self, replica, start, end, kinds=("process", "database")):
        settle = self.bounds.settle + self.bounds.slack
        return any(
            fault.kind in kinds and fault.concerns(replica) and fault.start <= end and start <= fault.end + settle
            for fault in self.history.disturbances
        )

    def _check_status(self, event):
        status, replica = event.get("status", 0), event.get("replica")
        is_through_balancer = event.get("balanced", False)
        where = f"{event['op']} on {replica or 'the balancer'} at {event['start']:.3f}"
        if status >= 500 and status != 503:
            is_balancers_own = is_through_balancer and status in (502, 504)
            if not (is_balancers_own and self._was_disturbed(None, event["start"], event["end"], ("process",))):
                self._report("no 5xx but 503", f"{where}: {status}")
        if status == 503:
            self.figures["answers 503"] += 1
            if not event.get("retry_after"):
                self._report("503 names Retry-After", where)
            if not self._was_disturbed(replica, event["start"], event["end"]):
                self._report("503 only under a fault", where)
            if event["op"] == "jwks":
                self._report("the JWK set comes from memory", where)
        if event["op"] == "login" and status == 401 and self._met_a_revocation(event):
            # A login that overlaps a revocation of its user yields nothing, whichever comes first.
            return
        if 400 <= status < 500 and event["outcome"] == "unexpected":
            self._report("no unexpected refusal", f"{where}: {status} {event.get('code')}")
        if status == 0 and not self._was_disturbed(None, event["start"], event["end"], ("process",)):
            if event["outcome"] == "unknown" and not event.get("walked_away"):
                self._report("every request is answered", f"{where}: nothing after {event['end'] - event['start']:.1f} s")

    def _met_a_revocation(self, login):
        return any(event["start"] <= login["end"] and login["start"] <= event["end"] for event in self.by_user[login["user"]])

    def _check_introspection(self, event):
        token = self.tokens.get(event["jti"])
        if event["outcome"] not in ("active", "inactive") or token is None:
            return
        endings = list(self._endings_of(event["jti"]))
        self.figures[f"introspections {event['outcome']}"] += 1
        if event["outcome"] == "inactive":
            may_be = any(ending["start"] <= event["end"] for ending in endings)
            is_known = token["known_at"] < event["start"]
            if not may_be and is_known and event["end"] < token["expires"] - EXPIRY_MARGIN:
                self._report("active: false only for what is not good",
                             f"token {event['jti']} on {event['replica']} at {event['start']:.3f}")
            return
        for ending in filter(self._is_acknowledged, endings):
            late = event["start"] - ending["end"]
            if late <= 0:
                continue
            is_disturbed = self._was_disturbed(event["replica"], ending["start"], event["start"])
            kind = "under a fault" if is_disturbed else "in health"
            self.figures[f"active after a revocation, {kind}"] += 1
            self.latest[kind] = max(self.latest[kind], late)
            bound = self.bounds.faulty if is_disturbed else self.bounds.healthy + self.bounds.slack
            same = ending.get("replica") == event["replica"] is not None
            if same and ending["op"] != "refresh":
                self._report("honoured at once where it was taken",
                             f"{ending['op']} {ending.get('subject')} on {event['replica']}: active {late:.3f} s later")
            if late > bound:
                self._report("a revocation is honoured within the bound",
                             f"{ending['op']} acknowledged at {ending['end']:.3f}; token {event['jti']} active on "
                             f"{event['replica']} {late:.3f} s later, bound {bound:.1f} s")

    def _check_branches(self):
        """A session has one chain of refresh tokens. A token is answered with the current pair, so its answers move along
        the chain and never back."""
        pairs, answers, unanswered = {}, defaultdict(list), set()
        for event in self.history.of("refresh"):
            if event["outcome"] == "unknown":
                unanswered.add((event["sid"], event["presented"]))
            if event["outcome"] != "ok":
                continue
            self.figures["refreshes"] += 1
            self.figures["refreshes that were retries"] += event["attempt"] > 0
            answers[event["sid"]].append(event)
            if pairs.setdefault((event["sid"], event["refresh"]), event["jti"]) != event["jti"]:
                self._report("one live branch per session", f"session {event['sid']}: one refresh token has two access tokens")
        for sid, events in answers.items():
            self._check_chain(sid, events, unanswered)

    def _check_chain(self, sid, events, unanswered):
        edges = defaultdict(set)
        for event in events:
            edges[event["presented"]].add(event["refresh"])

        def later(token):
            """Tokens after this one in the chain."""
            seen, todo = set(), [token]
            while todo:
                for successor in edges[todo.pop()] - seen:
                    seen.add(successor)
                    todo.append(successor)
            return seen

        def may_lead_on(token):
            """Whether a lost answer hides a part of the chain after this token."""
            return any((sid, other) in unanswered for other in later(token) | {token})

        for event in events:
            for other in events:
                one, two = event["refresh"], other["refresh"]
                if event["presented"] == other["presented"] and one != two and two not in later(one) \
                        and one not in later(two) and not may_lead_on(one) and not may_lead_on(two):
                    self._report("one live branch per session", f"session {sid}: one refresh token leads to two branches")
                    return
                if other["end"] < event["start"] and two in later(one):
                    self._report("one live branch per session", f"session {sid}: a refresh was answered with a former pair")
                    return

    def _possible_reuses(self):
        """Refreshes with a token that may have been superseded too long ago: they may end their session."""
        self._uses = defaultdict(list)
        for event in self.history.of("refresh"):
            self._uses[(event["sid"], event["presented"])].append(event)
        for event in self.history.of("refresh"):
            if self._may_be_spent(event):
                yield event

    def _may_be_spent(self, event):
        first = min(use["start"] for use in self._uses[(event["sid"], event["presented"])])
        return event["end"] > first + self.bounds.window - 0.5

    def _check_refreshes(self):
        for event in self.history.of("refresh"):
            endings = list(self._endings_of_session(event["sid"]))
            if event["outcome"] == "ok" and event.get("is_stolen"):
                self._report("a stolen refresh token ends its session",
                             f"session {event['sid']}: {event['replica']} answered a token superseded before the window")
            if event["outcome"] == "ok":
                for ending in filter(self._is_acknowledged, endings):
                    if ending is not event and event["start"] > ending["end"]:
                        self._report("no refresh after the end was acknowledged",
                                     f"session {event['sid']} on {event['replica']} at {event['start']:.3f}, ended at "
                                     f"{ending['end']:.3f} by {ending['op']}")
            if event["outcome"] == "refused":
                is_explained = self._may_be_spent(event) or any(e["start"] < event["end"] for e in endings)
                if not is_explained:
                    self._report("no session is lost by a retry",
                                 f"session {event['sid']}: {event.get('code')} on {event['replica']} at "
                                 f"{event['start']:.3f}, attempt {event['attempt']}")
