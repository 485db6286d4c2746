"""Python's imaplib as a client: one round through a mailbox, told as JSON.

Usage: imap_client.py PORT TRUSTED_PEM USER   (the password is the first line of standard input)

The output has what a user of imaplib sees, without what differs from run to run (times, ids).
"""

import imaplib
import json
import re
import ssl
import sys

MESSAGE = b"From: bob@elsewhere.test\r\nSubject: round trip\r\n\r\n" + b"line {5}\r\n" * 2000 + "grüße\r\n".encode()


def plain(value):
    """The value as JSON can hold it, without Dovecot's times in parentheses."""
    if isinstance(value, bytes):
        return re.sub(r" \([0-9. +]+ secs?\)", "", value.decode(errors="backslashreplace"))
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def main():
    port, trusted, user = sys.argv[1:]
    password = sys.stdin.readline().rstrip("\n")
    context = ssl.create_default_context(cafile=trusted)
    # Newer Pythons want extensions that a self-signed certificate has no use for.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    imap = imaplib.IMAP4_SSL("localhost", int(port), ssl_context=context, timeout=20)

    told = {}
    try:
        imap.login(user, "wrong")
    except imaplib.IMAP4.error as error:
        told["wrong password"] = str(error)
    if user.endswith(".plain@lab.test"):
        token = f"\0{user}\0{password}".encode()
        told["login"] = imap.authenticate("PLAIN", lambda _: token)
    else:
        # imaplib quotes but does not encode.
        imap._encoding = "utf-8"
        told["login"] = imap.login(user, password)
    told["login"] = told["login"][0]
    told["capabilities"] = sorted(plain(imap.capability()[1][0]).split())
    told["append"] = [imap.append("INBOX", flag, None, MESSAGE)[0] for flag in (None, r"(\Flagged)")]
    told["append to nowhere"] = plain(imap.append("nowhere", None, None, MESSAGE))
    told["select"] = plain(imap.select("INBOX"))
    told["search"] = plain(imap.search(None, "SUBJECT", '"round trip"'))
    told["literal search"] = plain(literal_search(imap))
    told["fetch"] = plain(imap.fetch("1:*", "(FLAGS RFC822.SIZE BODY.PEEK[])"))
    told["same"] = imap.fetch("2", "(BODY.PEEK[])")[1][0][1] == MESSAGE
    told["store"] = plain(imap.store("1", "+FLAGS", r"(\Deleted)"))
    told["expunge"] = plain(imap.expunge())
    if hasattr(imap, "idle"):
        with imap.idle(duration=0.5) as idler:
            told["idle"] = plain(list(idler))
    told["no such mailbox"] = plain(imap.select("nowhere"))
    told["bad command"] = told_error(imap)
    told["logout"] = imap.logout()[0]
    print(json.dumps(told))


def literal_search(imap):
    """A synchronizing literal in a command that is passed on."""
    imap.literal = "grüße".encode()
    return imap.uid("SEARCH", "CHARSET", "UTF-8", "TEXT")


def told_error(imap):
    try:
        imap.fetch("garbage", "()")
    except imaplib.IMAP4.error as error:
        return plain(str(error).encode())
    return "no error"


main()
