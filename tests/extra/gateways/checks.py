"""Checks that must hold behind every gateway. Each function is one check, named after its claim; they run in this order."""

import base64
import concurrent.futures
import json
import threading
import time

from gateway import ANNOUNCED, is_from_application, seen_by_application
from support.processes import Failed, wait_for
from support.service import ALGORITHMS, OTHER_API, USER
from support.tokens import claims_of, forgeries, header_of, like

PREFIX = "x-auth-request-"
# Tolerance of measured times: the duration of a request and the pause between two requests.
SLACK = 0.5


def demand(condition, text):
    if not condition:
        raise Failed(text)


def demand_refused(bench, token, what, **more):
    """401 or 403, and the request does not reach the application."""
    answer = bench.ask(token, **more)
    demand(answer.status in (401, 403), f"{what}: answered {answer.status}")
    demand(not is_from_application(answer), f"{what}: reached the application")
    return answer


def identity(answer):
    """The identity headers at the application, in any spelling; empty ones are left out."""
    found = {}
    for name, value in seen_by_application(answer):
        name = name.replace("_", "-")
        if name.startswith(PREFIX) and value:
            found.setdefault(name.removeprefix(PREFIX), []).append(value)
    return found


def expected_identity(bench, token):
    claims = claims_of(token)
    values = {
        "user": claims["sub"], "preferred-username": claims.get("preferred_username"), "client-id": claims["client_id"],
        "scopes": claims.get("scope"), "roles": ",".join(claims.get("roles", [])) or None, "session": claims.get("sid"),
        "expires": str(claims["exp"]),
    }
    return {name: [value] for name, value in values.items() if value and name in bench.recipe.promise.identity}


def a_valid_token_passes_and_identity_headers_arrive(bench):
    token = bench.service.login()["access_token"]
    demand(claims_of(token)["preferred_username"] == USER, "the token names the user")
    answer = bench.ask(token)
    demand(identity(answer) == expected_identity(bench, token), f"the application saw {identity(answer)}")
    posted = bench.ask(token, method="POST", body=b"x" * 3000)
    demand(json.loads(posted.body)["body"] == 3000, "the body arrives whole")


def without_a_token_there_is_a_challenge(bench):
    answer = demand_refused(bench, None, "no token")
    demand(answer.status == 401, f"answered {answer.status}")
    demand((answer.header("WWW-Authenticate") or "").startswith("Bearer"), f"challenge: {answer.header('WWW-Authenticate')}")


def forged_and_expired_tokens_do_not_pass(bench):
    good = bench.service.client_token()
    plan = bench.blueprint
    demand(bench.ask(good).status == 200, "the token that they are made of passes")
    own = like(good, plan.key, jti="made-by-the-test")
    demand(bench.ask(own).status == 200, "one that the test signed itself passes")
    for what, token in forgeries(good, plan.key, plan.other_key, plan.public_pem, bench.service.issuer).items():
        if what != "no expiry" or bench.recipe.promise.demands_expiry:
            demand_refused(bench, token, what)


def other_tokens_of_the_service_do_not_pass(bench):
    service = bench.service
    demand_refused(bench, service.client_token(audience=OTHER_API), "a token for another audience")
    demand_refused(bench, service.login()["refresh_token"], "a refresh token")
    body = f"token={service.client_token()}".encode()
    gateway = base64.b64encode(f"gateway:{service.secrets['gateway']}".encode()).decode()
    headers = [("Authorization", f"Basic {gateway}"), ("Accept", "application/token-introspection+jwt"),
               ("Content-Type", "application/x-www-form-urlencoded")]
    signed = service.ask("/oauth2/introspect", method="POST", headers=headers, body=body).body.decode()
    demand(header_of(signed)["typ"] == "token-introspection+jwt", "a signed introspection answer was obtained")
    demand_refused(bench, signed, "a signed introspection answer")


def the_callers_own_identity_headers_never_arrive(bench):
    token = bench.service.client_token()
    names = ("User", "Preferred-Username", "Client-Id", "Scopes", "Roles", "Session", "Expires")
    plain = [(f"{prefix}{name}", "admin") for prefix in ("X-Auth-Request-", "x-auth-request-") for name in names]
    for _ in range(2):  # The second is answered from the gateway's cache, where it has one.
        answer = bench.ask(token, headers=plain)
        demand(identity(answer) == expected_identity(bench, token), f"the application saw {identity(answer)}")
    demand_refused(bench, None, "identity headers without a token", headers=plain)
    # To a CGI or WSGI application, these are the same headers.
    for prefix in ("X_Auth_Request_", "X-Auth_Request-", "x_auth-request_"):
        for spelling in (str, str.upper, lambda name: name.replace("-", "_")):
            answer = bench.ask(token, headers=[(prefix + spelling(name), "admin") for name in names])
            if is_from_application(answer):
                demand(identity(answer) == expected_identity(bench, token), f"the application saw {identity(answer)}")
            else:
                demand(answer.status in (400, 401, 403), f"answered {answer.status}")


def of_two_authorization_headers_only_a_judged_one_arrives(bench):
    good, bad = f"Bearer {bench.service.client_token()}", "Bearer forged.by.hand"
    for pair in ((good, bad), (bad, good)):
        answer = bench.ask(headers=[("Authorization", value) for value in pair])
        if answer.status == 200:
            arrived = [value for name, value in seen_by_application(answer) if name == "authorization"]
            demand(set(arrived) <= {good}, "a token that nobody judged reached the application")
        else:
            demand(answer.status in (400, 401, 403), f"answered {answer.status}")
            demand(not is_from_application(answer), "a refused request reached the application")


def answers_are_kept_as_the_recipe_says(bench):
    promise = bench.recipe.promise
    count = bench.service.key_fetches if bench.recipe.offline else bench.service.judgements
    token, bad = bench.service.client_token(), bench.service.client_token()[:-8] + "AAAAAAAA"
    with bench.quiet:
        before = count()
        for _ in range(20):
            demand(bench.ask(token).status == 200, "refused")
        good_calls = count() - before
        before = count()
        for _ in range(20):
            demand_refused(bench, bad, "a forged token")
        bad_calls = count() - before
    bench.measured["calls for 20 good"], bench.measured["calls for 20 bad"] = good_calls, bad_calls
    for calls, (least, most), what in ((good_calls, promise.calls_of_20, "good"), (bad_calls, promise.refused_calls_of_20, "bad")):
        demand(least <= calls <= most, f"20 requests with a {what} token made {calls} calls, not {least} to {most}")


def it_takes_the_algorithms_and_types_that_the_table_says(bench):
    taken = set()
    for algorithm in ALGORITHMS:
        if bench.ask(bench.service.client_token(f"robot-{algorithm.lower()}")).status == 200:
            taken.add(algorithm)
    bench.measured["algorithms"] = " ".join(name for name in ALGORITHMS if name in taken)
    takes_jwt = bench.ask(bench.service.client_token("robot-jwt")).status == 200
    bench.measured["typ"] = "at+jwt, JWT" if takes_jwt else "at+jwt"
    demand(taken == set(bench.recipe.promise.algorithms), f"takes {sorted(taken)}")
    demand(takes_jwt == bench.recipe.promise.takes_typ_jwt, f"typ JWT taken: {takes_jwt}")


def a_revoked_token_dies_within_the_stated_bound(bench):
    bound = bench.recipe.promise.revoked_for
    service = bench.service
    session = service.login(client="webapp")
    tokens = {"revoked": service.client_token(), "logged out": session["access_token"]}
    for token in tokens.values():
        demand(bench.ask(token).status == 200, "refused before it was revoked")
    if bound is None:
        service.revoke(tokens["revoked"], "robot-es256")
        service.log_out(session["refresh_token"])
        demand(all(bench.ask(token).status == 200 for token in tokens.values()),
               "an offline verifier refused a revoked token: the page says that it cannot")
        bench.measured["revoked token lives"] = "until exp"
        return
    died = {}
    service.revoke(tokens["revoked"], "robot-es256")
    service.log_out(session["refresh_token"])
    started = time.monotonic()
    while len(died) < len(tokens) and time.monotonic() - started < bound + SLACK + 2:
        for name, token in tokens.items():
            if name not in died and bench.ask(token).status in (401, 403):
                died[name] = time.monotonic() - started
        time.sleep(0.02)
    demand(len(died) == len(tokens), f"still passing after {bound + SLACK + 2:.1f} s: {set(tokens) - set(died)}")
    bench.measured["revoked token lives"] = f"{max(died.values()):.2f} s"
    demand(max(died.values()) <= bound + SLACK, f"died after {died}, the bound is {bound} s")
    for _ in range(10):
        for token in tokens.values():
            demand_refused(bench, token, "a token that had died")


def an_expired_token_dies_with_its_exp(bench):
    plan, now = bench.blueprint, int(time.time())
    end = now + 3
    token = like(bench.service.client_token(), plan.key, iat=now - 1, nbf=now - 1, exp=end, jti=f"short-{now}")
    demand(bench.ask(token).status == 200, "refused before its end")
    limit = bench.recipe.promise.beyond_expiry
    while bench.ask(token).status == 200:
        demand(time.time() - end < limit + SLACK + 1, f"still passing {time.time() - end:.1f} s after its exp")
        time.sleep(0.03)
    lag = time.time() - end
    bench.measured["beyond exp"] = f"{lag:.2f} s"
    demand(lag <= limit + SLACK, f"passed until {lag:.2f} s after its exp; the page says {limit} s")
    demand(lag > -1, f"refused {-lag:.2f} s before its exp")
    for _ in range(5):
        demand_refused(bench, token, "an expired token")


class Rotation:
    """Keys rotate while the other checks run: requests with a fresh token and with one from before, until the new key signs.

    A new key is announced for `ANNOUNCED` seconds, the least that the service accepts, before it signs.
    """

    def __init__(self, bench):
        self.bench, self.asked, self.refused, self.kids, self.fault = bench, 0, [], [], None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            self._rotate()
        except Exception as error:  # noqa: BLE001 - told by `finish`
            self.fault = error

    def _rotate(self):
        bench, service = self.bench, self.bench.service
        old = service.client_token()
        announced = service.rotate()
        deadline, after, synced = time.monotonic() + ANNOUNCED + 10, 0, 0.0
        while time.monotonic() < deadline and after < 10:
            if bench.recipe.sync and time.monotonic() - synced > 5:
                bench.recipe.sync(bench)
                synced = time.monotonic()
            with bench.quiet:
                fresh = service.client_token()
                kid = header_of(fresh)["kid"]
                if kid not in self.kids:
                    self.kids.append(kid)
                after += kid == announced
                for token in (fresh, old):
                    self.asked += 1
                    status = bench.ask(token).status
                    if status != 200:
                        self.refused.append((status, "new key" if header_of(token)["kid"] == announced else "old key"))
            time.sleep(0.2)

    def finish(self):
        self.thread.join(ANNOUNCED + 15)
        if self.fault:
            raise Failed(f"{type(self.fault).__name__}: {self.fault}")
        demand(len(self.kids) == 2, f"signed with {len(self.kids)} keys, not with two")
        demand(not self.refused, f"{len(self.refused)} of {self.asked} refused: {self.refused[:5]}")
        self.bench.measured["rotation"] = f"{self.asked} requests, 0 refused"


def keys_rotate_without_one_refusal(bench):
    bench.rotation.finish()


def a_hanging_service_opens_no_door(bench):
    _outage(bench, bench.service.freeze, bench.service.thaw)


def a_dead_service_opens_no_door(bench):
    _outage(bench, bench.service.stop, bench.service.start)


def _outage(bench, begin, end):
    promise, plan = bench.recipe.promise, bench.blueprint
    unseen = [bench.service.client_token() for _ in range(2)]
    forged = like(unseen[0], plan.other_key, jti="outage")
    limit = promise.gives_up_after
    begin()
    try:
        started = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda token: bench.ask(token, timeout=limit + 5), [*unseen, forged]))
        took = time.monotonic() - started
        for answer in answers[:2]:
            demand(answer.status in promise.outage, f"answered {answer.status}, not one of {sorted(promise.outage)}")
            demand(answer.status == 200 or not is_from_application(answer), "reached the application unjudged")
        demand(answers[2].status in {401, 403} | (promise.outage - {200}), f"a forged token: answered {answers[2].status}")
        demand(not is_from_application(answers[2]), "a forged token reached the application")
        demand(took < limit, f"took {took:.1f} s")
        bench.measured["outage"] = f"{answers[0].status}"
    finally:
        end()
    fresh = wait_for("the service gives tokens again", lambda: _token_or_none(bench.service), 8)
    wait_for("a token passes again after the outage", lambda: bench.ask(fresh).status == 200, 8, every=0.2)


def _token_or_none(service):
    try:
        return service.client_token()
    except (Failed, OSError):
        return None


ALL = [
    a_valid_token_passes_and_identity_headers_arrive,
    without_a_token_there_is_a_challenge,
    forged_and_expired_tokens_do_not_pass,
    other_tokens_of_the_service_do_not_pass,
    the_callers_own_identity_headers_never_arrive,
    of_two_authorization_headers_only_a_judged_one_arrives,
    answers_are_kept_as_the_recipe_says,
    it_takes_the_algorithms_and_types_that_the_table_says,
    a_revoked_token_dies_within_the_stated_bound,
    an_expired_token_dies_with_its_exp,
    keys_rotate_without_one_refusal,
    a_hanging_service_opens_no_door,
    a_dead_service_opens_no_door,
]
