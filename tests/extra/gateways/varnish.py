"""Varnish in front of what everyone may read: calls are spared, new keys arrive in time, everything else passes through."""

import json
import time
from pathlib import Path

from gateway import ANNOUNCED, RECIPES
from support.processes import Failed, Process, free_port, give_to_nobody, listens, request, wait_for
from support.service import Service
from support.tokens import header_of

NAME = "Varnish: in front of the JWKS"
MAX_AGE, GRACE = 2, 10


def run_varnish(blueprint, folder):
    folder, passed, failed, measured, lines = Path(folder), 0, 0, {}, [NAME]
    cache = None
    try:
        cache = Cache(blueprint, folder)
        for check in CHECKS:
            name = check.__name__.replace("_", " ")
            try:
                check(cache, measured)
            except (Failed, OSError, KeyError, ValueError) as error:
                failed += 1
                lines.append(f"  FAILED  {name}: {type(error).__name__}: {error}")
            else:
                passed += 1
                lines.append(f"  ok      {name}")
    except (Failed, OSError) as error:
        failed += 1
        lines.append(f"  FAILED to start: {error}")
    finally:
        if cache:
            cache.stop()
    print("\n".join(lines), flush=True)
    return NAME, passed, failed, measured


class Cache:
    def __init__(self, blueprint, folder):
        self.service = Service(blueprint, folder / "service",
                               settings=f'[keys]\nannounce_for = "{ANNOUNCED}s"\njwks_max_age = "{MAX_AGE}s"\n')
        self.port = free_port()
        here = folder / "varnish"
        here.mkdir()
        recipe = (RECIPES / "varnish/jwks.vcl").read_text()
        if '.port = "8080"' not in recipe:
            raise Failed("the recipe has no port any more")
        (here / "jwks.vcl").write_text(recipe.replace('.port = "8080"', f'.port = "{self.service.public}"'))
        give_to_nobody(here)
        command = ["varnishd", "-F", "-j", "none", "-n", here / "work", "-f", here / "jwks.vcl",
                   "-a", f"127.0.0.1:{self.port}", "-T", "none", "-s", "malloc,16m"]
        self.process = Process("varnishd", command, here, as_nobody=True)

        def is_up():
            if not self.process.is_running():
                raise Failed(f"varnishd does not start:\n{self.process.tail()}")
            return listens(self.port)

        wait_for("varnishd listens", is_up, 20)

    def stop(self):
        self.process.stop()
        self.service.stop()

    def kids(self):
        answer = request(self.port, "/.well-known/jwks.json")
        if answer.status != 200:
            raise Failed(f"answered {answer.status}")
        return {key["kid"] for key in json.loads(answer.body)["keys"]}


def twenty_requests_make_one_call(cache, measured):
    before = cache.service.key_fetches()
    for _ in range(20):
        cache.kids()
    calls = cache.service.key_fetches() - before
    measured["calls for 20 good"] = calls
    if not 1 <= calls <= 2:
        raise Failed(f"made {calls} calls")


def a_validator_is_answered_from_the_cache(cache, _):
    answer = request(cache.port, "/.well-known/jwks.json")
    again = request(cache.port, "/.well-known/jwks.json", headers=[("If-None-Match", answer.header("ETag"))])
    if again.status != 304:
        raise Failed(f"answered {again.status}")


def judgements_and_tokens_are_never_kept(cache, _):
    service = cache.service
    token = service.client_token()
    bearer = [("Authorization", f"Bearer {token}")]
    before = service.judgements()
    for _ in range(5):
        if request(cache.port, "/v1/verify", headers=bearer).status != 200:
            raise Failed("a good token was refused")
    if service.judgements() - before != 5:
        raise Failed(f"{service.judgements() - before} of 5 judgements were asked for")
    service.revoke(token, "robot-es256")
    if request(cache.port, "/v1/verify", headers=bearer).status != 401:
        raise Failed("a revoked token passes")
    if request(cache.port, "/v1/verify").status != 401:
        raise Failed("a request without a token passes")


def a_withdrawn_key_goes_within_max_age_and_grace(cache, measured):
    gone = header_of(cache.service.client_token("robot-ps256"))["kid"]
    if gone not in cache.kids():
        raise Failed("the key was not there")
    cache.service.admin(f"/keys/{gone}/withdraw", "POST", {})
    started = time.monotonic()
    wait_for("the withdrawn key is gone", lambda: gone not in cache.kids(), MAX_AGE + GRACE + 1)
    measured["withdrawn key lives"] = f"{time.monotonic() - started:.2f} s with max-age={MAX_AGE}"


def a_new_key_is_there_before_it_signs(cache, measured):
    service = cache.service
    announced = service.rotate()
    started = time.monotonic()
    wait_for("the new key is published", lambda: announced in cache.kids(), MAX_AGE + GRACE + 1)
    measured["new key visible after"] = f"{time.monotonic() - started:.2f} s, signs after {ANNOUNCED} s"
    if service.signing_kid() == announced:
        raise Failed("it signed before")


def an_outage_keeps_the_keys_no_longer_than_stated(cache, measured):
    cache.kids()
    cache.service.freeze()
    started = time.monotonic()
    try:
        while time.monotonic() - started < MAX_AGE + GRACE + 4:
            answer = request(cache.port, "/.well-known/jwks.json")
            if answer.status != 200:
                break
            time.sleep(0.25)
        lasted = time.monotonic() - started
        measured["keys outlast an outage by"] = f"{lasted:.1f} s"
        if answer.status == 200 or lasted > MAX_AGE + GRACE + 3.5:
            raise Failed(f"still handed out after {lasted:.1f} s")
    finally:
        cache.service.thaw()
    wait_for("the keys are back", lambda: request(cache.port, "/.well-known/jwks.json").status == 200, 5)


CHECKS = [
    twenty_requests_make_one_call, a_validator_is_answered_from_the_cache, judgements_and_tokens_are_never_kept,
    a_withdrawn_key_goes_within_max_age_and_grace, a_new_key_is_there_before_it_signs,
    an_outage_keeps_the_keys_no_longer_than_stated,
]
