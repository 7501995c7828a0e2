"""Tests of the checker: small histories that each break one promise, which the checker must find."""

import copy

from history import Bounds, Disturbance, History, Judge

BOUNDS = Bounds(healthy=1.0, faulty=3.0, slack=0.0, window=10.0, settle=2.0)


def good():
    """One session on two replicas: login, refresh, a retry, a logout, and the introspection answers between them."""
    history = History()
    pair = {"sid": "s", "kid": "k", "expires": 300.0, "outcome": "ok", "status": 200}
    history.add("login", 0.0, 0.1, user="u", refresh="r0", jti="t0", replica="a", **pair)
    history.add("introspect", 0.2, 0.21, jti="t0", outcome="active", status=200, replica="b")
    spent = {"presented": "r0", "refresh": "r1", "jti": "t1", **pair}
    history.add("refresh", 1.0, 1.1, attempt=0, replica="a", **spent)
    history.add("refresh", 1.2, 1.3, attempt=1, replica="b", **spent)
    history.add("end_session", 2.0, 2.1, subject="s", outcome="ok", status=204, replica="a")
    history.add("introspect", 2.5, 2.6, jti="t1", outcome="active", status=200, replica="b")
    history.add("introspect", 3.2, 3.3, jti="t1", outcome="inactive", status=200, replica="b")
    history.add("refresh", 4.0, 4.1, sid="s", presented="r1", attempt=0, outcome="refused", status=401,
                code="invalid_refresh_token", replica="b")
    history.add("jwks", 4.0, 4.1, outcome="ok", status=200, replica="b")
    return history


def rules(history):
    return {violation.rule for violation in Judge(history, BOUNDS).run()}


def with_event(op, start, end, **fields):
    history = copy.deepcopy(good())
    history.add(op, start, end, **fields)
    return history


def run():
    pair = {"sid": "s", "kid": "k", "expires": 300.0, "outcome": "ok", "status": 200, "attempt": 1, "replica": "b"}
    active = {"jti": "t1", "outcome": "active", "status": 200}
    inactive = {"jti": "t0", "outcome": "inactive", "status": 200, "replica": "b"}
    disturbed = with_event("introspect", 4.9, 5.0, replica="b", **active)
    disturbed.disturbances.append(Disturbance("database", "b", 1.5, 6.0))
    too_late = with_event("introspect", 5.2, 5.3, replica="b", **active)
    too_late.disturbances.append(Disturbance("database", "b", 1.5, 6.0))
    elsewhere = with_event("introspect", 4.9, 5.0, replica="b", **active)
    elsewhere.disturbances.append(Disturbance("database", "a", 1.5, 6.0))
    bound = "a revocation is honoured within the bound"
    expected = [
        (good(), set()),
        (with_event("introspect", 3.2, 3.3, replica="b", **active), {bound}),
        (disturbed, set()),
        (too_late, {bound}),
        (elsewhere, {bound}),
        (with_event("introspect", 2.2, 2.3, replica="a", **active), {"honoured at once where it was taken"}),
        (with_event("introspect", 0.5, 0.6, **inactive), {"active: false only for what is not good"}),
        (with_event("refresh", 1.4, 1.5, presented="r0", refresh="r1x", jti="t1", **pair), {"one live branch per session"}),
        (with_event("refresh", 1.4, 1.5, presented="r0", refresh="r1", jti="t1x", **pair), {"one live branch per session"}),
        (with_event("refresh", 1.4, 1.5, sid="s", presented="r0", attempt=2, outcome="refused", status=401, replica="b"),
         {"no session is lost by a retry"}),
        (with_event("refresh", 5.0, 5.1, presented="r1", refresh="r2", jti="t2", **pair),
         {"no refresh after the end was acknowledged"}),
        (with_event("refresh", 1.9, 1.95, presented="r0", refresh="r1", jti="t1", is_stolen=True, **pair),
         {"a stolen refresh token ends its session"}),
        (with_event("introspect", 3.2, 3.3, jti="t1", outcome="unexpected", status=500, replica="b"), {"no 5xx but 503"}),
        (with_event("introspect", 3.2, 3.3, jti="t1", outcome="unavailable", status=503, replica="b", retry_after="1"),
         {"503 only under a fault"}),
        (with_event("introspect", 3.2, 3.3, jti="t1", outcome="unavailable", status=503, replica="b"),
         {"503 only under a fault", "503 names Retry-After"}),
        (with_event("login", 8.0, 8.1, user="u", outcome="unexpected", status=401, replica="b"), {"no unexpected refusal"}),
        (with_event("introspect", 3.2, 11.3, jti="t1", outcome="unknown", status=0, replica="b"),
         {"every request is answered"}),
        (with_event("introspect", 3.2, 3.3, jti="t1", outcome="unexpected", status=401, replica="b"),
         {"no unexpected refusal"}),
    ]
    for index, (history, rules_broken) in enumerate(expected):
        found = rules(history)
        assert found == rules_broken, f"history {index}: found {found}, expected {rules_broken}"
    # A superseded token that was answered with a former pair instead of the current one.
    history = copy.deepcopy(good())
    history.events = history.events[:4]
    history.add("refresh", 1.5, 1.6, presented="r1", refresh="r2", jti="t2", **pair)
    history.add("refresh", 1.7, 1.8, presented="r0", refresh="r1", jti="t1", **pair)
    assert rules(history) == {"one live branch per session"}, rules(history)
    # A good token of the key that took over from a withdrawn one is called inactive elsewhere.
    history = copy.deepcopy(good())
    history.add("withdraw_key", 0.11, 0.15, subject="k0", outcome="ok", status=200, replica="a")
    history.add("introspect", 0.2, 0.21, **inactive)
    assert rules(history) == {"active: false only for what is not good"}, rules(history)
    return len(expected) + 2


if __name__ == "__main__":
    print(f"{run()} histories judged as expected")
