"""PyJWT with PyJWKClient."""

import jwt

from harness import ALGORITHMS, AUDIENCE, ISSUER, across_a_rotation, bare_tokens, check, demand, forged, login, machine_token, refused

keys = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json")


def verify(token, audience=AUDIENCE):
    key = keys.get_signing_key_from_jwt(token)
    return jwt.decode(token, key, algorithms=ALGORITHMS, audience=audience, issuer=ISSUER, options={"require": ["exp", "iat", "sub"]})


@check("offline verification of a user")
def _():
    demand(verify(login()["access_token"])["preferred_username"] == "ada", "the user is named")


for algorithm in ALGORITHMS:

    @check(f"takes {algorithm}")
    def _():
        verify(machine_token(algorithm))


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
