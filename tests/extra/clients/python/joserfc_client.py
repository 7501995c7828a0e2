"""joserfc, which fetches the keys again for an unknown `kid`."""

import requests
from joserfc import jwt
from joserfc.jwk import KeySet

from harness import ALGORITHMS, AUDIENCE, ISSUER, across_a_rotation, bare_tokens, check, demand, forged, header_of, login, machine_token, refused

REGISTRY = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": AUDIENCE}, exp={"essential": True})
keys = {}


def key_set(kid):
    if kid not in keys:
        published = requests.get(f"{ISSUER}/.well-known/jwks.json", timeout=10).json()
        keys.update({key["kid"]: KeySet.import_key_set({"keys": [key]}) for key in published["keys"]})
    return keys[kid]


def verify(token):
    decoded = jwt.decode(token, key_set(header_of(token)["kid"]), algorithms=list(ALGORITHMS))
    REGISTRY.validate(decoded.claims)
    return decoded


@check("offline verification of a user")
def _():
    demand(verify(login()["access_token"]).claims["preferred_username"] == "ada", "the user is named")


for algorithm in ALGORITHMS:

    @check(f"takes {algorithm}")
    def _():
        demand(verify(machine_token(algorithm)).header["typ"] == "at+jwt", "typ")


@check("takes tokens without optional claims")
def _():
    for token in bare_tokens():
        verify(token)


@check("a forged token is refused")
def _():
    token = machine_token()
    refused(lambda: verify(forged(token)), "a forged token")


@check("offline verification across a rotation")
def _():
    across_a_rotation(verify)
