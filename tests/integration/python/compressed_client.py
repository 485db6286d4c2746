"""A client that compresses with Python's zlib (RFC 4978): rounds through a mailbox, told as JSON.

Usage: compressed_client.py PORT TRUSTED_PEM USER   (the password is the first line of standard input)

Each round flushes its compressor in another way. What is told has the same form for every server.
"""

import base64
import json
import random
import socket
import ssl
import sys
import zlib

TIMEOUT = 30


class Client:
    def __init__(self, port, trusted):
        context = ssl.create_default_context(cafile=trusted)
        # Newer Pythons want extensions that a self-signed certificate has no use for.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        tcp = socket.create_connection(("localhost", port), TIMEOUT)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(tcp, server_hostname="localhost")
        self.received = b""
        self.deflater = self.inflater = None
        self.flush = zlib.Z_SYNC_FLUSH
        self.bytewise = False
        self.wire = {"sent": 0, "heard": 0}
        self.plain = {"sent": 0, "heard": 0}

    def compress(self, flush, bytewise, level):
        self.deflater = zlib.compressobj(level, zlib.DEFLATED, -15)
        self.inflater = zlib.decompressobj(-15)
        self.flush, self.bytewise = flush, bytewise
        assert not self.received, "something was said behind the OK, uncompressed"

    def say(self, text):
        self.plain["sent"] += len(text)
        if self.deflater:
            text = self.deflater.compress(text) + self.deflater.flush(self.flush)
            self.wire["sent"] += len(text)
        for piece in [text[at : at + 1] for at in range(len(text))] if self.bytewise else [text]:
            self.socket.sendall(piece)

    def hear(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        if self.inflater:
            self.wire["heard"] += len(data)
            data = self.inflater.decompress(data)
        self.plain["heard"] += len(data)
        self.received += data

    def line(self):
        while b"\n" not in self.received:
            self.hear()
        line, self.received = self.received.split(b"\n", 1)
        return line.decode().rstrip("\r")

    def literal(self, size):
        pieces, have = [self.received], len(self.received)
        while have < size:
            self.received = b""
            self.hear()
            pieces.append(self.received)
            have += len(self.received)
        data = b"".join(pieces)
        self.received = data[size:]
        return data[:size]

    def until(self, start):
        lines = [self.line()]
        while not lines[-1].startswith(start):
            lines.append(self.line())
        return lines

    def command(self, text):
        tag = text.split(" ", 1)[0]
        self.say(text.encode() + b"\r\n")
        return self.until(tag + " ")


def message(size):
    """Half of it cannot be compressed much, half repeats from as far back as deflate can point."""
    chance = random.Random(size)
    lines = [b"From: bob@elsewhere.test", b"Subject: compressed", b""]
    noise = base64.b64encode(chance.randbytes(size * 3 // 8))
    lines += [noise[at : at + 76] for at in range(0, len(noise), 76)]
    text = bytearray(b"\r\n".join(lines) + b"\r\n")
    while len(text) < size:
        text += text[-32768:][:70].replace(b"\r", b"").replace(b"\n", b"") + b"\r\n"
    return bytes(text)


def round_trip(port, trusted, user, password, flush, bytewise, level, size):
    client = Client(port, trusted)
    client.line()
    token = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    told = {"login": client.command(f"a1 AUTHENTICATE PLAIN {token}")[-1].split()[1]}
    offered = client.command("a2 CAPABILITY")[0].split()
    told["offered"] = offered.count("COMPRESS=DEFLATE")
    told["compress"] = client.command("a4 COMPRESS DEFLATE")[-1].split()[1]
    client.compress(flush, bytewise, level)
    told["second"] = client.command("a6 COMPRESS DEFLATE")[-1].split()[1:3]
    told["noop"] = client.command("a7 NOOP")[-1].split()[1]

    body = message(size)
    client.say(b"a8 APPEND INBOX {%d}\r\n" % len(body))
    client.until("+")
    client.say(body + b"\r\n")
    told["append"] = client.until("a8 ")[-1].split()[1]
    told["select"] = client.command("a9 SELECT INBOX")[-1].split()[1]
    client.say(b"b1 FETCH * BODY.PEEK[]\r\n")
    announced = client.until("*")[-1]
    told["same"] = client.literal(int(announced[announced.index("{") + 1 : -1])) == body
    told["fetch"] = client.until("b1 ")[-1].split()[1]

    for number in range(3):
        client.say(b"i%d IDLE\r\n" % number)
        client.until("+")
        client.say(b"DONE\r\n")
        told["idle"] = client.until(f"i{number} ")[-1].split()[1]
    # In one piece: the server closes at the line's end, and what it has not read then resets the connection, with its last words.
    client.bytewise = False
    told["logout"] = [line.split()[1] for line in client.command("z LOGOUT")]
    try:
        client.line()
    except EOFError:
        told["closed"] = True
    # The dialogue is mostly the message, which shrinks to three quarters and less.
    told["shrunk"] = all(client.wire[way] < client.plain[way] * 0.9 for way in client.wire)
    return told


def main():
    port, trusted, user = sys.argv[1:]
    password = sys.stdin.readline().rstrip("\n")
    rounds = {
        "sync": (zlib.Z_SYNC_FLUSH, False, 6, 4_000_000),
        "full": (zlib.Z_FULL_FLUSH, False, 9, 300_000),
        "partial": (zlib.Z_PARTIAL_FLUSH, False, 6, 300_000),
        "byte by byte": (zlib.Z_SYNC_FLUSH, True, 6, 6_000),
    }
    told = {}
    for name, how in rounds.items():
        told[name] = round_trip(int(port), trusted, user, password, *how)
    print(json.dumps(told))


main()
