"""Authlib: its OAuth client, its metadata classes, and its RFC 9068 validator."""

import os

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from authlib.oidc.discovery import OpenIDProviderMetadata

from harness import ALGORITHMS, AUDIENCE, ISSUER, across_a_rotation, bare_tokens, check, demand, forged, login, machine_token, refused, secret

well_known = f"{ISSUER}/.well-known"
metadata = requests.get(f"{well_known}/oauth-authorization-server", timeout=10).json()


class Validator(JWTBearerTokenValidator):
    def get_jwks(self):
        return requests.get(metadata["jwks_uri"], timeout=10).json()


validator = Validator(issuer=ISSUER, resource_server=AUDIENCE)


def verify(token):
    claims = validator.authenticate_token(token)
    demand(claims is not None, "the token is not taken for one")
    validator.validate_token(claims, [], None)
    return claims


def session(client):
    return OAuth2Session(client, secret(client), token_endpoint_auth_method="client_secret_basic")


@check("both metadata documents are valid in its eyes")
def _():
    AuthorizationServerMetadata(metadata).validate()
    OpenIDProviderMetadata(requests.get(f"{well_known}/openid-configuration", timeout=10).json()).validate()


@check("client_credentials")
def _():
    token = session("robot-es256").fetch_token(metadata["token_endpoint"], grant_type="client_credentials", audience=AUDIENCE)
    demand(token["token_type"] == "Bearer" and token["expires_in"] > 200, str(token))


@check("refresh, introspection and revocation")
def _():
    app, gateway = session("webapp"), session("gateway")
    token = app.refresh_token(metadata["token_endpoint"], login()["refresh_token"])
    ask = lambda: gateway.introspect_token(metadata["introspection_endpoint"], token=token["access_token"]).json()
    demand(ask()["active"] is True, "active")
    app.revoke_token(metadata["revocation_endpoint"], token=token["refresh_token"]).raise_for_status()
    demand(ask() == {"active": False}, "inactive once revoked")
    bare = session("bare").fetch_token(metadata["token_endpoint"], grant_type="client_credentials", audience=AUDIENCE)
    demand("scope" not in bare, str(bare))


TAKEN = [algorithm for algorithm in ALGORITHMS if algorithm not in os.environ.get("AUTHLIB_REFUSES", "").split()]
for algorithm in TAKEN:

    @check(f"its RFC 9068 validator takes {algorithm}")
    def _():
        verify(machine_token(algorithm))


@check("takes a user's token with every optional claim")
def _():
    claims = verify(login()["access_token"])
    demand(claims["roles"] == ["reader"] and claims["scope"] == "read write", str(dict(claims)))


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
