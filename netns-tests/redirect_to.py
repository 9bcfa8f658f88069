#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""What a client and a proxy see of `netctl redirect to`, for redirect_test.py.

    redirect_to.py WHAT ASKED TARGET [WHAT ASKED TARGET]…

WHAT is tcp, udp, loop, or tcp:PORT for a client whose own port is that; ASKED is the ADDRESS:PORT that the client connects to, TARGET where it is to
come out, with a server of our own on it. Prints, as a JSON list, what both ends are told. With loop it is the
process with the target's socket that connects.
"""
import json
import os
import select
import socket
import struct
import sys

SO_ORIGINAL_DST = 80


def split(text):
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)


def original(sock):
    """What a proxy asks; an error's number if nobody knows."""
    level, size = (socket.SOL_IP, 16) if sock.family == socket.AF_INET else (41, 28)
    peer = sock.getpeername()[0]
    if peer.startswith("::ffff:"):
        level, size = socket.SOL_IP, 16
    try:
        data = sock.getsockopt(level, SO_ORIGINAL_DST, size)
    except OSError as error:
        return error.errno
    (port,) = struct.unpack_from("!H", data, 2)
    if len(data) == 16:
        return [socket.inet_ntop(socket.AF_INET, data[4:8]), port]
    return [socket.inet_ntop(socket.AF_INET6, data[8:24]), port]


def ask(what, asked, target):
    what, _, own_port = what.partition(":")
    family = socket.AF_INET6 if ":" in asked[0] else socket.AF_INET
    kind = socket.SOCK_DGRAM if what == "udp" else socket.SOCK_STREAM
    server = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(target)
    server.settimeout(10)
    if kind == socket.SOCK_STREAM:
        server.listen()
    if what == "loop":
        with socket.socket(family, kind) as client:
            client.settimeout(10)
            error = client.connect_ex(asked)
        server.close()
        return {"error": os.strerror(error) if error else ""}
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:  # the client does not have the server's socket
        server.close()
        with socket.socket(family, kind) as client:
            client.settimeout(10)
            if own_port:  # again at once, behind a connection that the server's side has closed
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.bind(("127.0.0.1", int(own_port)))
            if error := client.connect_ex(asked):
                os.write(write_end, json.dumps({"error": os.strerror(error)}).encode())
                os._exit(0)
            client.send(b"question")
            if kind == socket.SOCK_DGRAM:
                data, sender = client.recvfrom(100)
            else:
                data, sender = client.recv(100), [""]
            told = {"peer": client.getpeername()[:2], "data": data.decode(), "sender": sender[:2]}
        os.write(write_end, json.dumps(told).encode())
        os._exit(0)
    os.close(write_end)
    answer = {}
    if server not in select.select([server, read_end], [], [], 10)[0]:
        pass  # the client came out elsewhere
    elif kind == socket.SOCK_STREAM:
        accepted, _ = server.accept()
        answer["original"] = original(accepted)
        accepted.send(accepted.recv(100).upper())
    else:
        data, client = server.recvfrom(100)
        server.sendto(data.upper(), client)
    told = b""
    while piece := os.read(read_end, 4096):
        told += piece
    os.waitpid(child, 0)
    os.close(read_end)
    server.close()
    return answer | json.loads(told)


def main():
    words = iter(sys.argv[1:])
    print(json.dumps([ask(what, split(asked), split(target)) for what, asked, target in zip(words, words, words)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
