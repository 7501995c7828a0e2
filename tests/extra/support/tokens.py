"""Tokens that the service never issued, signed with its own key; a test that imported the key can sign any claims.

Signing is left to the `openssl` command, so that nothing but the standard library is needed.
"""

import base64
import hashlib
import hmac
import json
import subprocess
import time


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def header_of(token):
    return json.loads(unb64(token.split(".")[0]))


def claims_of(token):
    return json.loads(unb64(token.split(".")[1]))


def encode(header, claims):
    compact = {"separators": (",", ":")}
    return f"{b64(json.dumps(header, **compact).encode())}.{b64(json.dumps(claims, **compact).encode())}"


def sign_es256(key_file, signing_input):
    """ECDSA on P-256 in the fixed-width form of RFC 7518 §3.4; OpenSSL writes DER."""
    der = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", str(key_file)], input=signing_input.encode(), capture_output=True, check=True
    ).stdout
    position = 4 + der[3]
    r = der[4:position]
    s = der[position + 2:position + 2 + der[position + 1]]
    return b64(b"".join(int.from_bytes(part, "big").to_bytes(32, "big") for part in (r, s)))


def forge(key_file, header, claims):
    signing_input = encode(header, claims)
    return f"{signing_input}.{sign_es256(key_file, signing_input)}"


def like(token, key_file, **changes):
    """The token again with other claims, under a good signature; a claim set to None is left out."""
    claims = {name: value for name, value in {**claims_of(token), **changes}.items() if value is not None}
    return forge(key_file, header_of(token), claims)


def forgeries(token, own_key, other_key, public_pem, issuer):
    """Forgeries of `token` that must never pass. `own_key` is the service's key, which signed `token`."""
    now = int(time.time())
    header, claims = header_of(token), claims_of(token)
    head, payload, signature = token.split(".")
    flipped = bytearray(unb64(signature))
    flipped[10] ^= 1
    elevated = encode(header, {**claims, "sub": "root", "roles": ["admin"]})
    mac_input = encode({**header, "alg": "HS256"}, claims)
    mac = hmac.new(public_pem, mac_input.encode(), hashlib.sha256).digest()
    return {
        "a flipped bit in the signature": f"{head}.{payload}.{b64(bytes(flipped))}",
        "claims changed under the old signature": f"{elevated}.{signature}",
        "a foreign key under our kid": forge(other_key, header, claims),
        "a foreign key that the token brings along": forge(other_key, {**header, "jwk": {"kty": "EC"}, "kid": "other"}, claims),
        "an empty signature": f"{head}.{payload}.",
        "alg none": encode({**header, "alg": "none"}, claims) + ".",
        "alg nOnE with the old signature": encode({**header, "alg": "nOnE"}, claims) + f".{signature}",
        "HS256 keyed with the public key": f"{mac_input}.{b64(mac)}",
        "an expired token": like(token, own_key, iat=now - 420, nbf=now - 420, exp=now - 120, jti="expired"),
        "a foreign issuer": like(token, own_key, iss="https://issuer.example.net", jti="foreign"),
        "no expiry": like(token, own_key, exp=None, jti="endless"),
        "a token of text": "not-a-token",
    }
