"""Shared by all programs: the address of the service, tokens of a user, and one line per check."""

import base64
import json
import os
import time

import requests

ISSUER, AUDIENCE = os.environ["ISSUER"], os.environ["AUDIENCE"]
ALGORITHMS = ("ES256", "EdDSA", "RS256", "PS256")


def secret(client):
    return os.environ["SECRET_" + client.upper().replace("-", "_")]


def login(user="ada", client="webapp"):
    """A user's tokens for a confidential client: a REST call, not part of any library."""
    body = {"username": user, "password": os.environ["PASSWORD"], "client_id": client, "audience": AUDIENCE}
    answer = requests.post(f"{ISSUER}/v1/login", json=body, auth=(client, secret(client)), timeout=10)
    answer.raise_for_status()
    return answer.json()


def bare_tokens():
    """A user's and a client's access token without any optional claim."""
    form = {"grant_type": "client_credentials", "audience": AUDIENCE}
    answer = requests.post(f"{ISSUER}/oauth2/token", data=form, auth=("bare", secret("bare")), timeout=10).json()
    tokens = [login("bob", "bare")["access_token"], answer["access_token"]]
    for token in tokens:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        empty = [name for name, value in claims.items() if value in (None, "", [], {})]
        demand(not empty and "roles" not in claims and "scope" not in claims, f"claims without a value: {claims}")
    return tokens


def machine_token(algorithm="ES256"):
    """A token of a machine, signed with `algorithm`."""
    client = f"robot-{algorithm.lower()}"
    form = {"grant_type": "client_credentials", "audience": AUDIENCE}
    return requests.post(f"{ISSUER}/oauth2/token", data=form, auth=(client, secret(client)), timeout=10).json()["access_token"]


def header_of(token):
    part = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def forged(token):
    return token[:-8] + ("BBBBBBBB" if token.endswith("AAAAAAAA") else "AAAAAAAA")


def demand(condition, text):
    if not condition:
        raise AssertionError(text)


def refused(action, what):
    try:
        action()
    except Exception:  # noqa: BLE001 - each library has exceptions of its own
        return
    raise AssertionError(f"{what} was accepted")


def check(name):
    """Runs the function at once and prints one line."""

    def run(body):
        try:
            body()
        except Exception as error:  # noqa: BLE001
            print(f"FAILED {name}: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
        else:
            print(f"ok {name}", flush=True)

    return run


def across_a_rotation(verify):
    """Calls `verify` with fresh tokens until some time after the service signs with its next key."""
    after = 0
    for _ in range(200):
        token = machine_token()
        after += header_of(token)["kid"] != os.environ["FIRST_KID"]
        verify(token)
        if after == 3:
            return
        time.sleep(0.3)
    raise AssertionError("the next key never signed")
