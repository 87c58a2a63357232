"""A tool that verifies Transaction Tokens with PyJWT, as docs/tools-identity.md has it.

    python3 verify.py < ASKED

ASKED and the answer are as verify.mjs has them. The packages of requirements.txt lie in packages/ beside this file.
"""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "packages"))

import jwt


class Keys:
    """The key set of one tool, read again every minute, and for a key that is not known yet."""

    def __init__(self, url):
        self.client = jwt.PyJWKClient(url)
        self.known, self.read = {}, 0

    def find(self, kid):
        age = time.monotonic() - self.read
        if age > 60 or (kid not in self.known and age > 1):
            self.known = {key["kid"]: key for key in self.client.fetch_data()["keys"]}
            self.read = time.monotonic()
        if kid not in self.known:
            raise jwt.InvalidKeyError("no such key serves this tool")
        return self.known[kid]


def verify(token, keys, tool):
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "txntoken+jwt":
        raise jwt.InvalidTokenError("`typ` is another")
    key = keys.find(header.get("kid"))
    claims = jwt.decode(
        token,
        jwt.PyJWK(key),
        algorithms=["EdDSA", "ES256"],
        audience=tool,
        leeway=5,
        options={"require": ["iss", "sub", "aud", "iat", "exp", "txn", "tenant", "tctx"]},
    )
    if claims["exp"] - claims["iat"] > 60:
        raise jwt.InvalidTokenError("it lives too long")
    if claims["iss"] != key["iss"]:
        raise jwt.InvalidIssuerError("the key is not that of `iss`")
    return claims


def attempt(token, keys, tool):
    try:
        return verify(token, keys, tool)
    except jwt.PyJWTError as error:
        return {"refused": f"{type(error).__name__}: {error}"}


asked = json.load(sys.stdin)
served = Keys(f"{asked['authority']}/jwks/tools/{asked['tool']}.json")
json.dump({name: attempt(token, served, asked["tool"]) for name, token in asked["tokens"].items()}, sys.stdout)
