"""python-jose, which supports neither PS256 nor EdDSA; its caller selects the key."""

import requests
from jose import jwt

from harness import AUDIENCE, ISSUER, across_a_rotation, bare_tokens, check, demand, forged, header_of, login, machine_token, refused

TAKEN = ("ES256", "RS256")
keys = {}


def key_of(token):
    kid = header_of(token)["kid"]
    if kid not in keys:
        keys.update({key["kid"]: key for key in requests.get(f"{ISSUER}/.well-known/jwks.json", timeout=10).json()["keys"]})
    return keys[kid]


def verify(token, audience=AUDIENCE):
    return jwt.decode(token, key_of(token), algorithms=TAKEN, audience=audience, issuer=ISSUER)


@check("offline verification of a user")
def _():
    demand(verify(login()["access_token"])["preferred_username"] == "ada", "the user is named")


for algorithm in TAKEN:

    @check(f"takes {algorithm}")
    def _():
        verify(machine_token(algorithm))


for algorithm in ("PS256", "EdDSA"):

    @check(f"does not take {algorithm}, as the table says")
    def _():
        token = machine_token(algorithm)
        refused(lambda: jwt.decode(token, key_of(token), algorithms=algorithm, audience=AUDIENCE, issuer=ISSUER), algorithm)


@check("takes tokens without optional claims")
def _():
    for token in bare_tokens():
        verify(token)


@check("a forged token and a foreign audience are refused")
def _():
    token = machine_token()
    refused(lambda: verify(forged(token)), "a forged token")
    refused(lambda: verify(token, "https://other.example.com"), "a foreign audience")


@check("offline verification across a rotation")
def _():
    across_a_rotation(verify)
