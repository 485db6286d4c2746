"""A submission server: takes mail from any user with the right password and delivers it by LMTP.

Usage: submission.py LMTP_PORT CERTIFICATE KEY          (the password is the first line of standard input)
       submission.py LMTP_PORT CERTIFICATE KEY tokens   (the line is the key that signs access tokens)

Prints one line of JSON, {"port": n}, when it accepts connections, with TLS from the first byte. Ends when standard input does.
With tokens it is as Outlook's: STARTTLS, and AUTH XOAUTH2 alone.
"""

import asyncio
import base64
import hmac
import json
import logging
import smtplib
import ssl
import sys
import warnings

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Delivery:
    """Passes each message on to every recipient's mailbox."""

    def __init__(self, lmtp_port):
        self.lmtp_port = lmtp_port

    async def handle_DATA(self, server, session, envelope):
        try:
            await asyncio.to_thread(self.deliver, envelope)
        except (OSError, smtplib.SMTPException) as error:
            print(f"delivery: {error!r}", file=sys.stderr, flush=True)
            return "451 delivery failed"
        return "250 delivered"

    def deliver(self, envelope):
        # LMTP answers for each recipient, which smtplib does not expect: one delivery each.
        for recipient in envelope.rcpt_tos:
            with smtplib.LMTP("127.0.0.1", self.lmtp_port) as lmtp:
                lmtp.sendmail(envelope.mail_from, recipient, envelope.original_content)


class TokenDelivery(Delivery):
    """The same for users with an access token: a JSON Web Token (RFC 7519) that was signed with the key."""

    def __init__(self, lmtp_port, key):
        super().__init__(lmtp_port)
        self.key = key

    async def auth_XOAUTH2(self, server, args):
        message = base64.b64decode(args[1]) if len(args) > 1 else await server.challenge_auth("")
        kind, _, token = message.split(b"\1")[1].partition(b"=Bearer ")
        signed, _, signature = token.rpartition(b".")
        right = base64.urlsafe_b64encode(hmac.new(self.key, signed, "sha256").digest()).rstrip(b"=")
        return AuthResult(success=kind == b"auth" and hmac.compare_digest(signature, right))


def checker(password):
    def check(server, session, envelope, mechanism, login):
        right = isinstance(login, LoginPassword) and login.password == password
        return AuthResult(success=right)

    return check


async def main():
    # It warns of logins in the clear: it cannot see the TLS below it.
    warnings.simplefilter("ignore")
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    lmtp_port, certificate, key, *tokens = sys.argv[1:]
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    password = (await reader.readline()).rstrip(b"\n")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    # The one sees TLS below it, the other begins it.
    differing = (
        {"tls_context": context, "require_starttls": True, "auth_exclude_mechanism": ["LOGIN", "PLAIN"]}
        if tokens
        else {"authenticator": checker(password), "auth_require_tls": False}
    )

    def session():
        return SMTP(
            TokenDelivery(int(lmtp_port), password) if tokens else Delivery(int(lmtp_port)),
            hostname="localhost",
            auth_required=True,
            enable_SMTPUTF8=True,
            data_size_limit=64 << 20,
            **differing,
        )

    server = await loop.create_server(session, "127.0.0.1", 0, ssl=None if tokens else context)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await reader.read()


asyncio.run(main())
