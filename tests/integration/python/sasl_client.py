"""A client of every SASL mechanism, made with Python's imaplib, hmac and hashlib alone: logs in, hands a token over, looks around.

Usage: sasl_client.py PORT TRUSTED_PEM USER MECHANISM WAY   (WAY: initial, challenge or cancel)

The secret is the first line of standard input: a password, or for XOAUTH2 and OAUTHBEARER the key that signs the access token.
"""

import base64
import hashlib
import hmac
import imaplib
import json
import os
import ssl
import sys
import time


class Scram:
    """The client's side of RFC 5802, which checks the server's."""

    def __init__(self, user, password, algorithm):
        self.password, self.algorithm, self.step = password, algorithm, 0
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        name = user.replace("=", "=3D").replace(",", "=2C")
        self.bare = f"n={name},r={self.nonce}"

    def first(self):
        return f"n,,{self.bare}".encode()

    def final(self, challenge):
        text = challenge.decode()
        values = dict(part.split("=", 1) for part in text.split(","))
        assert values["r"].startswith(self.nonce) and values["r"] != self.nonce, "the server's nonce is not one"
        salted = hashlib.pbkdf2_hmac(
            self.algorithm, self.password.encode(), base64.b64decode(values["s"]), int(values["i"])
        )
        without_proof = f"c=biws,r={values['r']}"
        message = f"{self.bare},{text},{without_proof}".encode()
        client_key = self.mac(salted, b"Client Key")
        signature = self.mac(hashlib.new(self.algorithm, client_key).digest(), message)
        proof = bytes(key ^ mask for key, mask in zip(client_key, signature))
        self.expected = self.mac(self.mac(salted, b"Server Key"), message)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, challenge):
        assert challenge == b"v=" + base64.b64encode(self.expected), "this is not the server that knows the password"
        return b""

    def mac(self, key, text):
        return hmac.new(key, text, self.algorithm).digest()

    def answer(self, challenge):
        self.step += 1
        if self.step == 1 and not challenge:
            self.step = 0
            return self.first()
        return self.final(challenge) if self.step == 1 else self.verify(challenge)


def access_token(user, key):
    """A JSON Web Token (RFC 7519) that a server believes which knows the key."""

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = {"sub": user, "email": user, "iat": int(time.time()) - 5, "exp": int(time.time()) + 3600}
    head = {"alg": "HS256", "typ": "JWT"}
    signed = part(json.dumps(head).encode()) + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.new(key.encode(), signed, "sha256").digest())).decode()


def main():
    port, trusted, user, mechanism, way = sys.argv[1:]
    secret = sys.stdin.readline().rstrip("\n")
    context = ssl.create_default_context(cafile=trusted)
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    imap = imaplib.IMAP4_SSL("localhost", int(port), ssl_context=context, timeout=20)

    exchange = None
    if mechanism == "PLAIN":
        messages = [f"\0{user}\0{secret}"]
    elif mechanism == "LOGIN":
        messages = [user, secret]
    elif mechanism == "XOAUTH2":
        messages = [f"user={user}\1auth=Bearer {access_token(user, secret)}\1\1", ""]
    elif mechanism == "OAUTHBEARER":
        token = access_token(user, secret)
        messages = [f"n,a={user},\1host=localhost\1port={port}\1auth=Bearer {token}\1\1", "\1"]
    else:
        exchange = Scram(user, secret, {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}[mechanism])
        messages = []
    challenges = []

    def answer(challenge):
        challenges.append(challenge.decode())
        if way == "cancel" and len(challenges) > (1 if exchange else 0):
            return None
        return exchange.answer(challenge) if exchange else messages.pop(0).encode()

    said = authenticate(imap, mechanism, answer, messages, exchange, way)
    told = {"said": said[0], "text": said[1][-1].decode() if said[1] and said[1][-1] else ""}
    told["challenges"] = len(challenges)
    told["explained"] = [text for text in challenges if "status" in text]
    if said[0] == "OK":
        imap.state = "AUTH"
        told["select"] = imap.select("INBOX")[0]
        token = imap.xatom("SETMETADATA", "INBOX", f'(/private/devicetoken "openpgp:{mechanism}")')
        told["token"] = token[0]
        imap.logout()
    print(json.dumps(told))


def authenticate(imap, mechanism, answer, messages, exchange, way):
    """AUTHENTICATE as imaplib does it, but for the initial response, which it does not know."""
    imap.literal = imaplib._Authenticator(answer).process
    arguments = [mechanism]
    if way == "initial":
        first = exchange.first() if exchange else messages.pop(0).encode()
        arguments.append(base64.b64encode(first).decode())
    try:
        return imap._simple_command("AUTHENTICATE", *arguments)
    except imaplib.IMAP4.error as error:
        return "BAD", [str(error).encode()]


main()
