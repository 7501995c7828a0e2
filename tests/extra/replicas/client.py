"""HTTP requests with their times, one connection each."""

import base64
import http.client
import json
import socket
import time
from urllib.parse import quote, urlencode


class Answer:
    """The result of a request. `status` is 0 without an answer; `was_sent` is false when the request cannot have arrived."""

    def __init__(self, status=0, headers=None, body=b"", was_sent=True, start=0.0, end=0.0):
        self.status, self.headers, self.body = status, headers or {}, body
        self.was_sent, self.start, self.end = was_sent, start, end

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def code(self):
        """The `code` of a problem or the `error` of an OAuth error."""
        body = self.json
        return body.get("code") or body.get("error") if isinstance(body, dict) else None


def send(port, method, path, body=None, headers=None, timeout=8.0, walk_away_after=None):
    """Sends a request to loopback. With `walk_away_after`, the connection is closed after that many seconds, before the
    answer is read. The answer is lost; the request may have been carried out."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    start = time.monotonic()
    try:
        connection.connect()
    except OSError:
        connection.close()
        return Answer(was_sent=False, start=start, end=time.monotonic())
    try:
        connection.request(method, path, body, headers or {})
        if walk_away_after is not None:
            time.sleep(walk_away_after)
            return Answer(start=start, end=time.monotonic())
        response = connection.getresponse()
        received = response.read()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, received, True, start, time.monotonic())
    except (OSError, http.client.HTTPException, socket.timeout):
        return Answer(start=start, end=time.monotonic())
    finally:
        connection.close()


def get(port, path, headers=None, **options):
    return send(port, "GET", path, headers=headers, **options)


def post_json(port, path, body, headers=None, **options):
    headers = {"Content-Type": "application/json", **(headers or {})}
    return send(port, "POST", path, json.dumps(body).encode(), headers, **options)


def post_form(port, path, form, headers=None, **options):
    headers = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
    return send(port, "POST", path, urlencode(form).encode(), headers, **options)


def basic(name, secret):
    pair = f"{quote(name, safe='')}:{quote(secret, safe='')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def claims(token):
    """The claims of a JWT, without verification; only the service judges tokens."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def header(token):
    part = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
