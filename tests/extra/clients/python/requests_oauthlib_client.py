"""requests-oauthlib: client_credentials, and automatic refresh."""

from oauthlib.oauth2 import BackendApplicationClient, InvalidGrantError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from harness import AUDIENCE, ISSUER, check, demand, login, secret

TOKEN = f"{ISSUER}/oauth2/token"


@check("client_credentials")
def _():
    session = OAuth2Session(client=BackendApplicationClient(client_id="robot-es256"))
    token = session.fetch_token(TOKEN, auth=HTTPBasicAuth("robot-es256", secret("robot-es256")), audience=AUDIENCE)
    demand(token["token_type"] == "Bearer" and token["expires_in"] > 200, str(token))


@check("an expired token is refreshed by itself")
def _():
    saved = []
    present = {**login(), "expires_in": -1}
    session = OAuth2Session(
        "webapp", token=present, auto_refresh_url=TOKEN, token_updater=saved.append,
        auto_refresh_kwargs={"client_id": "webapp", "client_secret": secret("webapp")})
    answer = session.get(f"{ISSUER}/v1/verify", timeout=10)
    demand(answer.status_code == 200, f"{answer.status_code} {answer.text}")
    demand(saved and saved[0]["refresh_token"] != present["refresh_token"], "the new refresh token was handed over")


@check("reuse of an old refresh token is invalid_grant and ends the session")
def _():
    first = login()
    session = OAuth2Session("webapp")
    refresh = lambda token: session.refresh_token(TOKEN, refresh_token=token, auth=HTTPBasicAuth("webapp", secret("webapp")))
    second = refresh(first["refresh_token"])
    third = refresh(second["refresh_token"])
    for token in (first, third):
        try:
            refresh(token["refresh_token"])
        except InvalidGrantError:
            continue
        raise AssertionError("accepted")
