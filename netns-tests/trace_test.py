# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace http: what it shows against what the servers' own logs say, one to one.

All tracing here is limited to the namespace of the test's server, so that nobody else's traffic is
looked at.
"""

import base64
import collections
import copy
import fcntl
import gzip
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import textwrap
import threading
from pathlib import Path

import har_schema
import pytest
from pcapng import packets
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from lab import until

PYTHON = "/usr/bin/python3"
SOURCES = ("syscall", "socket")
LOAD = 2000


def nginx(lab, netns, port=80, server="", workers=1):
    """nginx with a log of one JSON object a request; returns a function that reads it."""
    root = lab.directory / f"nginx-{port}"
    (root / "www").mkdir(parents=True)
    (root / "www" / "small").write_text("hello\n")
    (root / "www" / "big").write_bytes(b"0123456789abcdef" * 65536)
    (root / "www" / "text.txt").write_text("some text that compresses well\n" * 4000)
    (root / "nginx.conf").write_text(
        f"""
        daemon off; user root; pid {root}/pid; worker_processes {workers};
        error_log stderr warn; events {{ worker_connections 512; }}
        http {{
            log_format j escape=json '{{"method":"$request_method","target":"$request_uri",'
                '"status":$status,"got":$request_length,"sent":$bytes_sent,'
                '"client":"$remote_addr:$remote_port"}}';
            access_log {root}/log j;
            default_type text/plain; types {{ }}
            sendfile on; gzip on; gzip_min_length 1; gzip_types text/plain;
            keepalive_requests 10000000; large_client_header_buffers 8 64k;
            client_max_body_size 10m; client_body_temp_path {root}/body;
            proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;
            scgi_temp_path {root}/s;
            server {{
                listen {port}; listen [::]:{port};
                root {root}/www;
                location = /hello {{ return 200 "hello world\\n"; }}
                location = /nothing {{ return 204; }}
                {server}
            }}
        }}
        """
    )
    lab.serve(netns, "nginx", "-p", root, "-e", "stderr", "-c", root / "nginx.conf", port=port)

    def log():
        text = (root / "log").read_text()
        return [json.loads(line) for line in text.splitlines()]

    return log


def trace(lab, netctl, netns, *argv, source="syscall", json=True, interface="any"):
    """Starts a tracer that looks at `netns` only, and waits until it traces."""
    words = ["trace", "http", *argv]
    if source == "socket":
        words += ["--interface", interface]
    elif source:
        words += ["--source", source]
    tracer = netctl.start(lab, *words, netns=netns, json=json)
    tracer.expect(r"netctl: tracing", timeout=20)
    return tracer


def finish(tracer):
    """Ends it as a user does; returns the transactions and the last line."""
    status = tracer.stop(signal.SIGINT, timeout=20)
    assert status == 0, str(tracer)
    return tracer.json_lines(), tracer.stderr.splitlines()[-1]


def shown(transactions):
    """As the log has them. nginx does not count bodies that nobody asked it for."""

    def head(one):
        request = one.get("request")
        return request["bytes"] - request["body_bytes"] if request and one["method"] != "POST" else None

    return collections.Counter(
        (one.get("method"), one.get("target"), one.get("status"), head(one),
         (one["response"] or {}).get("bytes"), one["client"].replace("[", "").replace("]", ""))
        for one in transactions
    )  # fmt: skip


def logged(log):
    return collections.Counter(
        (one["method"], one["target"], one["status"], one["got"] if one["method"] != "POST" else None,
         one["sent"], one["client"])
        for one in log
    )  # fmt: skip


def wait_for(tracer, count):
    """Waits until so many transactions are shown."""
    until(lambda: len(tracer.json_lines()) >= count, 20, f"{count} transactions")


def kernel_counters(tracer):
    """What its programs counted so far, on all CPUs together."""
    pins = re.search(r"settings in (\S+)", tracer.stderr).group(1)
    dump = subprocess.run(["bpftool", "--json", "map", "dump", "pinned", f"{pins}/counters"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    counted = collections.Counter()
    for cpu in json.loads(dump.stdout)[0]["formatted"]["values"]:
        counted.update(cpu["value"])
    return counted


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("family", (pytest.param(4, marks=pytest.mark.kernel), 6))
def test_curl_and_nginx_one_to_one(lab, netctl, pair, source, family):
    client, server = pair
    log = nginx(lab, server.netns)
    host = server.ip4 if family == 4 else f"[{server.ip6}]"
    url = f"http://{host}"
    tracer = trace(lab, netctl, server.netns, source=source)
    curl = lambda *argv: client.netns.run("curl", "-s", "-o", lab.directory / "out", *argv)  # noqa: E731
    curl(f"{url}/hello", f"{url}/small", f"{url}/big", f"{url}/no-such", f"{url}/nothing")
    curl("-I", f"{url}/big")
    curl("--compressed", f"{url}/text.txt")  # chunked
    curl("--http1.0", f"{url}/hello", f"{url}/big")
    body = lab.directory / "body"
    body.write_bytes(b"x" * 100000)
    curl("--data-binary", f"@{body}", f"{url}/hello")
    curl("-H", "Transfer-Encoding: chunked", "--data-binary", f"@{body}", f"{url}/hello")
    curl("-z", "1 Jan 2090", f"{url}/small")  # 304
    count = 13
    curl("-H", "X-Large: " + "v" * 40000, f"{url}/hello")
    until(lambda: len(log()) == count, what="all in the log")
    wait_for(tracer, count)
    transactions, last = finish(tracer)
    assert shown(transactions) == logged(log()), last
    assert "0 lost" in last and "hole" not in last and "unparsed" not in last
    posts = [one["request"] for one in transactions if one["method"] == "POST"]
    assert [one["body_bytes"] for one in posts] == [100000, 100000]
    assert all(one["latency_us"] > 0 for one in transactions)
    if source == "syscall":
        assert {one["server_process"]["comm"] for one in transactions} == {"nginx"}


@pytest.mark.parametrize("source", SOURCES)
def test_pipeline_and_pieces_one_to_one(lab, netctl, pair, source):
    client, server = pair
    log = nginx(lab, server.netns)
    tracer = trace(lab, netctl, server.netns, source=source)
    pipeline = b"".join(
        b"%s /%s?%d HTTP/1.1\r\nHost: x\r\n\r\n" % (method, path, number)
        for number in range(50)
        for method, path in ((b"GET", b"hello"), (b"HEAD", b"big"), (b"GET", b"small"), (b"GET", b"nothing"))
    ) + b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    pieces = b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde"
    for message, step in ((pipeline, len(pipeline)), (pipeline, 1000), (pieces, 1)):
        with client.netns.socket() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect((server.ip4, 80))
            for at in range(0, len(message), step):
                connection.sendall(message[at : at + step])
            while connection.recv(65536):
                pass
    until(lambda: len(log()) == 403, what="all in the log")
    wait_for(tracer, 403)
    transactions, last = finish(tracer)
    assert shown(transactions) == logged(log())
    assert "hole" not in last and "unparsed" not in last
    # In order, for each connection.
    order = collections.defaultdict(list)
    for one in transactions:
        order[one["client"]].append(one["target"])
    expected = collections.defaultdict(list)
    for one in log():
        expected[one["client"]].append(one["target"])
    assert order == expected


@pytest.mark.parametrize("source", SOURCES)
def test_http10_and_other_servers(lab, netctl, pair, source):
    client, server = pair
    lab.http_server(server.netns, 8000)
    script = lab.directory / "server.js"
    script.write_text(
        "require('http').createServer((q, r) => { q.resume(); q.on('end', () => {"
        " if (q.url == '/chunks') { r.write('a'.repeat(5000)); r.write('b'.repeat(70000)); r.end('c'); }"
        " else { r.setHeader('Content-Length', 4); r.end('node'); } }) }).listen(8001, '0.0.0.0');"
    )
    lab.serve(server.netns, "node", script, port=8001)
    tracer = trace(lab, netctl, server.netns, source=source)
    client.netns.run("ab", "-q", "-n", 40, "-c", 4, f"http://{server.ip4}:8000/index.html")
    client.netns.run("ab", "-q", "-k", "-n", 40, "-c", 4, f"http://{server.ip4}:8001/x")
    for _ in range(5):
        client.netns.run("curl", "-s", "-o", "/dev/null", f"http://{server.ip4}:8001/chunks")
    wait_for(tracer, 85)
    transactions, last = finish(tracer)
    counts = collections.Counter(
        (one["server"].rpartition(":")[2], one["target"], one["status"], one["response"]["body_bytes"])
        for one in transactions
    )
    assert counts == {
        ("8000", "/index.html", 200, 6): 40, ("8001", "/x", 200, 4): 40, ("8001", "/chunks", 200, 75001): 5,
    }  # fmt: skip
    assert "guessed" not in last and "hole" not in last


SERVER = textwrap.dedent(
    r"""
    # A server that uses each way there is to move bytes, by the request's path.
    import array, os, socket, sys
    from ctypes import CDLL, Structure, c_int, c_size_t, c_uint, c_void_p, addressof, create_string_buffer

    HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"

    class Vector(Structure): _fields_ = [("base", c_void_p), ("length", c_size_t)]
    class Message(Structure):
        _fields_ = [("name", c_void_p), ("name_length", c_uint), ("vectors", c_void_p),
                    ("vector_count", c_size_t), ("control", c_void_p), ("control_length", c_size_t),
                    ("flags", c_int), ("length", c_size_t)]

    class Messages:
        # Several messages for one call. The same array serves all calls, as in programs that care for speed.
        def __init__(self):
            self.array = (Message * 4)()
            self.vectors = [(Vector * 2)() for _ in range(4)]
            self.buffers = [[create_string_buffer(4096) for _ in range(2)] for _ in range(4)]
            self.libc = CDLL(None, use_errno=True)
            for m, v, pair in zip(self.array, self.vectors, self.buffers):
                m.vectors, m.vector_count = addressof(v), 2
                for one, b in zip(v, pair): one.base = addressof(b)
        def send(self, c, parts):
            for v, pair, (x, y) in zip(self.vectors, self.buffers, parts):
                for one, b, text in zip(v, pair, (x, y)): b.raw = text.ljust(4096, b"?"); one.length = len(text)
            assert self.libc.sendmmsg(c.fileno(), self.array, len(parts), 0) == len(parts)
        def receive(self, c, size):
            # As many as there are, each of up to 2 * `size` bytes; the rest of the array is left alone.
            for v in self.vectors: v[0].length = v[1].length = size
            n = self.libc.recvmmsg(c.fileno(), self.array, 4, 0x10000, None)  # MSG_WAITFORONE
            assert n > 0
            return b"".join((a.raw[:size] + b.raw[:size])[:m.length]
                            for m, (a, b) in zip(self.array[:n], self.buffers))

    messages = Messages()

    def answer(c, how):
        body = how * 100
        head = HEAD % len(body)
        if how == b"writev": os.writev(c.fileno(), [head[:7], head[7:], b"", body])
        elif how == b"sendmsg": c.sendmsg([head, body[:9], body[9:]])
        elif how == b"write": os.write(c.fileno(), head + body)
        elif how == b"sendmmsg": messages.send(c, [(head[:3], head[3:]), (body[:5], b""), (b"", body[5:300]), (body[300:], b"")])
        elif how == b"sendmmsg1": messages.send(c, [(head, body)])
        elif how == b"sendfile":
            c.sendall(head)
            with open("/tmp/sendfile-%d" % os.getpid(), "w+b") as f:
                f.write(body); f.flush(); os.sendfile(c.fileno(), f.fileno(), 0, len(body))
            os.unlink(f.name)
        elif how == b"splice":
            c.sendall(head)
            r, w = os.pipe(); os.write(w, body); os.close(w)
            os.splice(r, c.fileno(), len(body)); os.close(r)
        elif how == b"bytes":
            for at in range(len(head)): c.sendall(head[at:at+1])
            c.sendall(body)
        elif how == b"fork":
            if os.fork() == 0:
                c.sendall(head + body); os._exit(0)
            os.wait()
        elif how == b"dup":
            d = os.dup(c.fileno()); os.write(d, head + body); os.close(d)
        elif how == b"pass":
            a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            if os.fork() == 0:
                _, anc, _, _ = a.recvmsg(1, 64)
                fd = array.array("i"); fd.frombytes(anc[0][2][:4])
                os.write(fd[0], head + body); os._exit(0)
            b.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [c.fileno()]))])
            os.wait(); a.close(); b.close()
        elif how == b"close":
            c.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body); c.close()
        else: c.sendall(head + body)

    def ask(c, how):
        got = b""
        while b"\r\n\r\n" not in got:
            if how == b"peek": c.recv(4096, socket.MSG_PEEK)
            if how == b"readv":
                a, b = bytearray(5), bytearray(4000)
                n = os.readv(c.fileno(), [a, b]); piece = bytes(a + b)[:n]
            elif how == b"recvmsg": piece = c.recvmsg(3000)[0]
            elif how in (b"recvmmsg", b"recvmmsg_again"): piece = messages.receive(c, 5)
            elif how == b"read": piece = os.read(c.fileno(), 4096)
            elif how == b"bytes": piece = c.recv(1)
            elif how == b"recvinto":
                a = bytearray(4096); n = c.recv_into(a); piece = bytes(a[:n])
            elif how == b"nonblock":
                c.setblocking(False)
                while True:
                    try: piece = c.recv(4096); break
                    except BlockingIOError: pass
                c.setblocking(True)
            else: piece = c.recv(4096)
            if not piece: return None
            got += piece
        return got.split()[1][1:]

    s = socket.create_server(("", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        c, _ = s.accept()
        how = b""
        while True:
            how = ask(c, how)
            if how is None: break
            answer(c, how)
            if c.fileno() < 0: break
            # The path also says how the next request is read.
        if c.fileno() >= 0: c.close()
    """
)
WAYS = ("send", "write", "writev", "sendmsg", "sendfile", "splice", "bytes", "fork", "dup", "pass",
        "peek", "readv", "recvmsg", "read", "recvinto", "nonblock", "sendmmsg", "sendmmsg1", "recvmmsg",
        "recvmmsg_again", "sendmmsg")  # fmt: skip


@pytest.mark.kernel
def test_every_system_call(lab, netctl, pair):
    client, server = pair
    script = lab.directory / "server.py"
    script.write_text(SERVER)
    process = lab.serve(server.netns, PYTHON, script, 80, port=80)
    ways = [way for way in WAYS if way != "splice" or hasattr(os, "splice")]
    if sys.version_info < (3, 10):
        ways.remove("splice")
    tracer = trace(lab, netctl, server.netns)
    expected = collections.Counter()
    for _ in range(2):  # the second connection uses the descriptor's number again
        with client.netns.socket() as connection:
            connection.connect((server.ip4, 80))
            stream = connection.makefile("rb")
            for way in [*ways, "close"]:
                connection.sendall(f"GET /{way} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    piece = stream.readline()
                    assert piece, f"the server gave up at {way}"
                    head += piece
                if way == "close":
                    stream.read()
                else:
                    assert stream.read(len(way) * 100) == way.encode() * 100
                expected[(f"/{way}", 200, len(way) * 100)] += 1
    wait_for(tracer, expected.total())
    transactions, last = finish(tracer)
    assert "unsupported" not in last and "unreadable" not in last
    counts = collections.Counter(
        (one["target"], one["status"], one["response"]["body_bytes"]) for one in transactions
    )
    assert counts == expected
    assert all(one["response"]["end"] == "complete" for one in transactions)
    assert "hole" not in last and "unparsed" not in last
    # Forked and passed: another process spoke.
    pids = {one["target"]: one["server_process"]["pid"] for one in transactions}
    assert pids["/send"] == process.pid
    assert pids["/fork"] != process.pid and pids["/pass"] != process.pid


def ways_to_write(chunks):
    """The same bytes in writes of several kinds."""
    whole = b"".join(chunks)
    yield [whole]
    yield chunks
    for step in (5000, 40000, 300000):
        yield [whole[at : at + step] for at in range(0, len(whole), step)]


@pytest.mark.kernel
def test_chunks_of_any_size_are_followed(lab, netctl, pair):
    """A chunked answer is over when it is, whatever its size and in whatever writes, also if it looks like HTTP."""
    client, server = pair
    tracer = trace(lab, netctl, server.netns)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    inner = b"HTTP/1.1 299 Inner\r\nContent-Length: 3\r\n\r\nabc"
    chunk = lambda body: b"%x\r\n" % len(body) + body + b"\r\n"  # noqa: E731
    bodies = [[b"d" * 4096] * 100, [b"d" * 70000] * 5, [inner] * 3, [b"d" * 100] * 3000]
    answers = [[head, *writes, b"0\r\n\r\n"] for body in bodies for writes in ways_to_write([chunk(one) for one in body])]
    with server.netns.socket() as listener, client.netns.socket() as asking:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server.ip4, 80))
        listener.listen()
        asking.connect((server.ip4, 80))
        answering, _ = listener.accept()

        def read():
            while asking.recv(1 << 18):
                pass

        reader = threading.Thread(target=read)
        reader.start()
        with answering:
            for number, writes in enumerate(answers):
                asking.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
                assert answering.recv(1000)
                for one in writes:
                    answering.sendall(one)
                # Before anything else happens on the connection.
                wait_for(tracer, number + 1)
        reader.join()
    transactions, last = finish(tracer)
    sizes = [sum(map(len, body)) for body in bodies for _ in ways_to_write([b"x"])]
    assert [(one["target"], one["status"], one["response"]["body_bytes"], one["response"]["end"]) for one in transactions] == [
        (f"/{number}", 200, size, "complete") for number, size in enumerate(sizes)]  # fmt: skip
    assert "guessed" not in last and "truncated" not in last and "unparsed" not in last, last


OVERLAPPED = textwrap.dedent(
    r"""
    # Asks again while it reads, or all at once.
    import socket, sys, time
    at_once, size = sys.argv[2] == "at-once", int(sys.argv[3])
    open("/proc/self/comm", "w").write("overlapped")
    c = socket.create_connection((sys.argv[1], 80)); got = 0
    ask = lambda i: b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i
    c.sendall(b"".join(map(ask, range(6))) if at_once else ask(0))
    for i in range(6):
        while got < i * size + size // 10: got += len(c.recv(65536))
        if i < 5 and not at_once: c.sendall(ask(i + 1))
    while c.recv(65536): pass
    """
)


@pytest.mark.parametrize("how", ("at-once", "overlapped"))
@pytest.mark.parametrize("filling", ("x", "\r\n\r\n"), ids=("text", "lines"))
def test_client_with_several_requests_under_way(lab, netctl, pair, how, filling):
    """Seen from its own side only."""
    client, server = pair
    size = 600000
    script = lab.directory / "client.py"
    script.write_text(OVERLAPPED)
    body = (filling * size)[:size].encode()
    with server.netns.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server.ip4, 80))
        listener.listen()
        tracer = trace(lab, netctl, client.netns, "--comm", "overlapped")
        process = client.netns.start(PYTHON, script, server.ip4, how, size)
        answering, _ = listener.accept()
        with answering:
            asked = b""
            for number in range(6):
                while asked.count(b"\r\n\r\n") <= number:
                    asked += answering.recv(1000)
                answering.sendall(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n" % (210 + number, size) + body)
        assert process.wait() == 0
    wait_for(tracer, 6)
    transactions, last = finish(tracer)
    assert [(one["target"], one.get("status"), one["response"]["body_bytes"], one["response"]["end"]) for one in transactions] == [
        (f"/{number}", 210 + number, size, "complete") for number in range(6)]  # fmt: skip
    assert "guessed" not in last, last


def test_requests_that_hang_are_told(lab, netctl, pair):
    client, server = pair
    with server.netns.socket() as listener, client.netns.socket() as asking:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server.ip4, 80))
        listener.listen()
        tracer = trace(lab, netctl, server.netns, "--stalled", "1s")
        asking.connect((server.ip4, 80))
        answering, _ = listener.accept()
        with answering:
            asking.sendall(b"GET /hangs HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answering.recv(1000)
            wait_for(tracer, 1)
            transactions, last = finish(tracer)
    assert [(one["target"], one["waiting"], one.get("stalled", False)) for one in transactions] == [
        ("/hangs", True, True), ("/hangs", True, False)]  # fmt: skip
    assert transactions[1]["duration_us"] > transactions[0]["duration_us"] >= 1e6
    assert "1 under way at the end" in last, last


IO_URING_SERVER = textwrap.dedent(
    r"""
    # Answers each request by io_uring alone; 26 and 27 are SEND and RECV. With "thread", a thread of the
    # kernel takes what is submitted (IORING_SETUP_SQPOLL), and is woken (IORING_ENTER_SQ_WAKEUP).
    import ctypes, mmap, os, socket, struct, sys

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    params = ctypes.create_string_buffer(120)
    thread = 2 if sys.argv[2] == "thread" else 0
    struct.pack_into("I", params, 8, thread)
    struct.pack_into("I", params, 16, 1)  # it sleeps after a millisecond
    ring = libc.syscall(425, 4, params)
    if ring < 0: print("no io_uring:", os.strerror(ctypes.get_errno()), flush=True); sys.exit(0)
    sq = struct.unpack_from("10I", params.raw, 40); cq = struct.unpack_from("10I", params.raw, 80)
    entries = struct.unpack_from("I", params.raw)[0]
    submit = mmap.mmap(ring, sq[6] + entries * 4, offset=0)
    done = mmap.mmap(ring, cq[5] + struct.unpack_from("I", params.raw, 4)[0] * 16, offset=0x8000000)
    work = mmap.mmap(ring, entries * 64, offset=0x10000000)
    read = lambda area, at: struct.unpack_from("I", area, at)[0]

    def do(opcode, fd, buffer, length):
        tail = read(submit, sq[1]); slot = tail & read(submit, sq[2])
        struct.pack_into("BBHiQQIIQ", work, slot * 64, opcode, 0, 0, fd, 0, ctypes.addressof(buffer), length, 0, 7)
        struct.pack_into("I", submit, sq[6] + slot * 4, slot); struct.pack_into("I", submit, sq[1], tail + 1)
        assert libc.syscall(426, ring, 1, 1, 1 | thread, None, 0) == 1
        head = read(done, cq[0]); at = cq[5] + (head & read(done, cq[2])) * 16
        result = struct.unpack_from("i", done, at + 8)[0]
        struct.pack_into("I", done, cq[0], head + 1)
        return result

    s = socket.create_server(("0.0.0.0", int(sys.argv[1])))
    print("ready", flush=True)
    buffer = ctypes.create_string_buffer(4096)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    while True:
        c, _ = s.accept()
        if do(27, c.fileno(), buffer, 4096) > 0:
            buffer[:len(answer)] = answer
            do(26, c.fileno(), buffer, len(answer))
        c.close()
    """
)


@pytest.mark.parametrize("mover", ("process", "thread"))
def test_io_uring_is_counted(lab, netctl, pair, mover):
    """Its buffers are not known, but that it moved something is told, whoever did it for the process."""
    client, server = pair
    script = lab.directory / "uring.py"
    script.write_text(IO_URING_SERVER)
    process = server.netns.start(PYTHON, script, 80, mover)
    process.expect("ready|no io_uring")
    if "no io_uring" in process.stdout:
        pytest.skip(process.stdout.strip())
    tracer = trace(lab, netctl, server.netns)
    for _ in range(3):
        client.netns.run("curl", "-s", "-o", "/dev/null", f"http://{server.ip4}/hello")
    transactions, last = finish(tracer)
    assert not transactions
    assert "6 io_uring calls unread" in last and "unsupported" not in last, last


PROGRAM_OF_32_BITS = r"""
/* Answers one request, which standard input and output lead to: 3 and 4 are read and write. */
static void call(int number, int fd, const void *at, int size)
{
	__asm__ volatile("int $0x80" : "+a"(number) : "b"(fd), "c"(at), "d"(size) : "memory");
}

void _start(void)
{
	static char request[4096];
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

	call(3, 0, request, sizeof(request));
	call(4, 1, answer, sizeof(answer) - 1);
	call(1, 0, 0, 0);
}
"""


def test_32_bit_programs_are_counted(lab, netctl, pair):
    """Their calls have other numbers, so no buffer is found; that something was moved is told."""
    client, server = pair
    source, program = lab.directory / "small.c", lab.directory / "small"
    source.write_text(PROGRAM_OF_32_BITS)
    build = ["gcc", "-m32", "-nostdlib", "-static", "-ffreestanding", "-fno-pie", "-no-pie", "-o", program, source]
    if subprocess.run(build, capture_output=True, check=False).returncode:
        pytest.skip("no 32-bit programs can be made here")
    tracer = trace(lab, netctl, server.netns)
    with server.netns.socket() as listener, client.netns.socket() as asking:
        listener.bind((server.ip4, 80))
        listener.listen()
        asking.connect((server.ip4, 80))
        answering, _ = listener.accept()
        with answering:
            asking.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                subprocess.run([program], stdin=answering, stdout=answering, check=True, timeout=20)
            except OSError:
                pytest.skip("this kernel runs no 32-bit programs")
            assert asking.recv(4096).endswith(b"ok")
    transactions, last = finish(tracer)
    assert not transactions
    assert "2 calls unsupported" in last, last


def test_last_bytes_come_with_the_end(lab, netctl, pair):
    """One read takes the bytes and the peer's FIN, which has a sequence number of its own."""
    client, server = pair
    script = lab.directory / "server.py"
    script.write_text(SERVER)
    process = lab.serve(server.netns, PYTHON, script, 80, port=80)
    tracer = trace(lab, netctl, server.netns)
    with client.netns.socket() as connection:
        connection.connect((server.ip4, 80))
        connection.sendall(b"GET /send HTTP/1.1\r\n\r\n")
        answer = b""
        while b"send" * 100 not in answer:
            answer += connection.recv(65536)
        process.send(signal.SIGSTOP)
        connection.sendall(b"GET /write HTTP/1.1\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        process.send(signal.SIGCONT)
        while connection.recv(65536):
            pass
    wait_for(tracer, 2)
    transactions, last = finish(tracer)
    assert [one["target"] for one in transactions] == ["/send", "/write"]
    assert "hole" not in last and "missing" not in last


@pytest.mark.parametrize("source", SOURCES)
def test_connection_older_than_the_tracer(lab, netctl, pair, source):
    client, server = pair
    nginx(lab, server.netns)
    with client.netns.socket() as connection:
        connection.connect((server.ip4, 80))
        request = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.sendall(request % b"small")
        answer = b""
        while b"hello" not in answer:  # head and body may come one by one
            answer += connection.recv(65536)
        tracer = trace(lab, netctl, server.netns, source=source)
        connection.sendall(request % b"nothing")
        assert b"204" in connection.recv(65536)
    wait_for(tracer, 1)
    transactions, _ = finish(tracer)
    assert [(one["target"], one["status"]) for one in transactions] == [("/nothing", 204)]


def test_local_transaction_is_shown_once_or_from_both_sides(lab, netctl):
    netns = lab.namespace()
    nginx(lab, netns)
    for argv, views in (([], ["server"]), (["--both-sides"], ["client", "server"])):
        tracer = trace(lab, netctl, netns, *argv)
        netns.run("curl", "-s", "-o", "/dev/null", "http://127.0.0.1/hello", "http://127.0.0.1/small")
        wait_for(tracer, 2 * len(views))
        transactions, _ = finish(tracer)
        assert sorted(one["view"] for one in transactions) == sorted(views * 2)
        for one in transactions:
            assert one["client_process"]["comm"] == "curl"
            assert one["server_process"]["comm"] == "nginx"


EXCHANGE = """
import socket, sys
mine, theirs, port, target = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
listener = socket.create_server((theirs, port)) if target == "both" else None
client = socket.create_connection((theirs, port), source_address=(mine, 5566))
def ask(what):
    client.sendall(b"GET /%s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" % what.encode())
if listener:
    server, _ = listener.accept()
    ask("forged"); assert server.recv(1000)
    server.sendall(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
else:
    ask(target)
assert b"204" in client.recv(1000)
print("done", flush=True)
sys.stdin.read()
"""


def test_same_addresses_in_another_namespace_hide_nothing(lab, netctl, pair):
    """Anybody can make a namespace of his own, with the addresses of others' connections on its lo."""
    client, server = pair
    stranger = lab.namespace()
    for end in pair:
        stranger.ip("addr", "add", f"{end.ip4}/32", "dev", "lo")
    nginx(lab, server.netns, port=18099)
    probe = lab.directory / "probe"
    probe.symlink_to(PYTHON)  # by its name the tracer looks at both, and at no server
    tracer = netctl.start(lab, "trace", "http", "--source", "syscall", "--port", "18099", "--comm", "probe")
    tracer.expect(r"netctl: tracing", timeout=20)
    ends = (client.ip4, server.ip4, "18099")
    forger = stranger.start(probe, "-c", EXCHANGE, *ends, "both", stdin=subprocess.PIPE)
    forger.expect("done", timeout=20)
    real = client.netns.start(probe, "-c", EXCHANGE, *ends, "nothing", stdin=subprocess.PIPE)
    real.expect("done", timeout=20)
    wait_for(tracer, 2)
    transactions, _ = finish(tracer)
    assert sorted((one["target"], one["view"]) for one in transactions) == [
        ("/forged", "server"), ("/nothing", "client")]  # fmt: skip


def test_both_ends_in_namespaces_are_one(lab, netctl, pair):
    """Their sockets are joined by TCP's numbers, also if the client has shut its side down already."""
    client, server = pair
    nginx(lab, server.netns, port=18098)
    tracer = netctl.start(lab, "trace", "http", "--source", "syscall", "--port", "18098")
    tracer.expect(r"netctl: tracing", timeout=20)
    with client.netns.socket() as connection:
        connection.connect((server.ip4, 18098))
        connection.sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1000):
            pass
    url = f"http://{server.ip4}:18098"
    client.netns.run("curl", "-s", "-o", lab.directory / "out", f"{url}/big", f"{url}/hello")
    wait_for(tracer, 3)
    transactions, _ = finish(tracer)
    assert [(one["target"], one["view"], one["server_process"]["comm"]) for one in transactions] == [
        (target, "server", "nginx") for target in ("/nothing", "/big", "/hello")]  # fmt: skip
    assert [one["client_process"]["comm"] for one in transactions[1:]] == ["curl", "curl"]


UNIX_SERVER = """
import socket, sys, threading
def serve(connection, name):
    with connection:
        while True:
            got = b""
            while b"\\r\\n\\r\\n" not in got:
                piece = connection.recv(1000)
                if not piece: return
                got += piece
            if b"HTTP/1.0" in got:
                connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + b"x" * 3000)
                return
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello")
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1].replace("@", "\\0"))
listener.listen()
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0], 0), daemon=True).start()
"""


@pytest.mark.kernel
@pytest.mark.parametrize("argv", ([], ["--both-sides"]), ids=("server", "both"))
def test_unix_sockets(lab, netctl, argv):
    """With the path that the server is bound to, both processes, and answers that last until the end."""
    netns = lab.namespace()
    path, abstract = f"{lab.directory}/s", "@netctl-test-abstract"
    for address in (path, abstract):
        netns.start(PYTHON, "-c", UNIX_SERVER, address).expect("listening", timeout=20)
    tracer = trace(lab, netctl, netns, *argv)
    curl = ("curl", "-s", "-o", lab.directory / "out")
    netns.run(*curl, "--unix-socket", path, "http://a/1", "http://a/2")
    netns.run(*curl, "--abstract-unix-socket", abstract[1:], "http://b/3")
    netns.run(*curl, "--http1.0", "--unix-socket", path, "http://c/4")
    wait_for(tracer, 8 if argv else 4)
    transactions, last = finish(tracer)
    seen = sorted((one["target"], one["view"], one["client"], one["server"], one["response"]["body_bytes"])
                  for one in transactions)  # fmt: skip
    assert seen == [
        (target, view, "unix", f"unix:{server}", size)
        for target, server, size in (("/1", path, 5), ("/2", path, 5), ("/3", abstract, 5), ("/4", path, 3000))
        for view in (("client", "server") if argv else ("server",))
    ]
    for one in transactions:
        assert one["client_process"]["comm"] == "curl"
        assert one["server_process"]["comm"] == "python3"
        assert one["response"]["end"] == "complete"
    assert "missing" not in last and "without" not in last, last


@pytest.mark.parametrize("source", SOURCES)
def test_first_request_of_any_kind(lab, netctl, pair, source):
    """The kernel's side decides by four bytes whether a connection is HTTP."""
    client, server = pair
    with server.netns.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((server.ip4, 80))
        listener.listen()
        tracer = trace(lab, netctl, server.netns, source=source)
        lines = (b"NOTIFY /1", b"M-SEARCH *", b"SUBSCRIBE /2", b"UNSUBSCRIBE /3", b"\r\nGET /4", b"QUERY /5")
        for line in lines:
            with client.netns.socket() as asking:
                asking.connect((server.ip4, 80))
                answering, _ = listener.accept()
                with answering:
                    asking.sendall(line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert answering.recv(1000)
                    answering.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                    assert asking.recv(1000)
        wait_for(tracer, len(lines))
        transactions, _ = finish(tracer)
    assert [f"{one['method']} {one['target']}".encode() for one in transactions] == [
        line.strip() for line in lines]  # fmt: skip


def test_containers(lab, netctl):
    """By the cgroup of a process, which here has a name as Docker's have."""
    netns = lab.namespace()
    nginx(lab, netns)
    identity = "0123456789abcdef" * 4
    inside = copy.copy(lab.cgroup())
    inside.path = inside.path / f"docker-{identity}.scope"
    inside.path.mkdir()
    tracers = [trace(lab, netctl, netns, "--container", name) for name in ("any", identity[:12], "other")]
    for argv in ({}, {"cgroup": inside}):
        netns.run("curl", "-s", "-o", "/dev/null", "http://127.0.0.1/nothing", **argv)
    for tracer in tracers[:2]:
        wait_for(tracer, 1)
    shown_by = [finish(tracer)[0] for tracer in tracers]
    assert [len(shown) for shown in shown_by] == [1, 1, 0]
    assert shown_by[0][0]["client"] == shown_by[1][0]["client"]
    (one,) = shown_by[0]
    assert one["client_process"]["container"] == {
        "runtime": "docker", "id": identity, "name": None, "image": None}  # fmt: skip
    assert one["server_process"]["container"] is None


def test_loopback_frames_are_seen_once(lab, netctl):
    netns = lab.namespace()
    log = nginx(lab, netns)
    for interface in ("lo", "any"):
        tracer = trace(lab, netctl, netns, source="socket", interface=interface)
        before = len(log())
        netns.run("curl", "-s", "-o", "/dev/null", "http://127.0.0.1/hello", "http://[::1]/big")
        wait_for(tracer, 2)
        transactions, last = finish(tracer)
        assert shown(transactions) == logged(log()[before:])
        assert "missing" not in last


@pytest.mark.kernel
def test_vlan(lab, netctl, pair):
    client, server = pair
    probe = subprocess.run(["ip", "-n", server.netns.name, "link", "add", "link", server.name, "name", "probe",
                            "type", "vlan", "id", "9"], capture_output=True, text=True, check=False)  # fmt: skip
    if "Unknown device type" in probe.stderr:
        pytest.skip("this kernel has no VLAN devices")
    for end, address in ((client, "203.0.113.1/24"), (server, "203.0.113.2/24")):
        end.netns.ip("link", "add", "link", end.name, "name", "tagged", "type", "vlan", "id", "7")
        end.netns.ip("addr", "add", address, "dev", "tagged")
        end.netns.ip("link", "set", "tagged", "up")
    log = nginx(lab, server.netns)
    for interface in (server.name, "tagged", "any"):
        tracer = trace(lab, netctl, server.netns, source="socket", interface=interface)
        client.netns.run("curl", "-s", "-o", "/dev/null", "http://203.0.113.2/small")
        wait_for(tracer, 1)
        transactions, _ = finish(tracer)
        assert shown(transactions) == logged(log()[-1:]), interface


def test_selection(lab, netctl, pair):
    client, server = pair
    nginx(lab, server.netns, 80)
    node = lab.directory / "other.py"
    node.write_text(SERVER)
    group = lab.cgroup()
    other = lab.serve(server.netns, PYTHON, node, 81, port=81, cgroup=group)

    def ask():
        base = f"http://{server.ip4}"
        client.netns.run("curl", "-s", "-o", "/dev/null", f"{base}/hello", f"{base}/no", "-X", "PUT",
                         f"{base}/nothing", "--next", "-o", "/dev/null", f"{base}:81/send")  # fmt: skip

    cases = {
        ("--port", "81"): {"/send"},
        ("--port", "1-80"): {"/hello", "/no", "/nothing"},
        ("--pid", other.pid): {"/send"},
        ("--comm", "nginx"): {"/hello", "/no", "/nothing"},
        ("--cgroup", group.path): {"/send"},
        ("--cgroup", f"{group.path}/../{os.path.basename(group.path)}/"): {"/send"},
        ("--status", "4xx"): {"/no", "/nothing"},
        ("--path", "/n"): {"/no", "/nothing"},
        ("--method", "PUT"): {"/hello", "/no", "/nothing"},
        ("--host", server.ip4): {"/hello", "/no", "/nothing", "/send"},
        ("--host", "example.org"): set(),
    }
    expected = {}
    tracers = {}
    for argv, targets in cases.items():
        tracers[argv] = trace(lab, netctl, server.netns, *argv)
        expected[argv] = targets
    everything = trace(lab, netctl, server.netns)
    ask()
    wait_for(everything, 4)
    told = {argv: {one["target"] for one in finish(tracer)[0]} for argv, tracer in tracers.items()}
    status = {one["target"]: one["status"] for one in finish(everything)[0]}
    expected[("--status", "4xx")] = {target for target, code in status.items() if code // 100 == 4}
    assert told == expected


def test_settings_change_while_it_runs(lab, netctl, pair):
    client, server = pair
    nginx(lab, server.netns, 80)
    nginx(lab, server.netns, 8080)
    tracer = trace(lab, netctl, server.netns, "--port", "80")
    pins = re.search(r"settings in (\S+)", tracer.stderr).group(1)
    url = f"http://{server.ip4}:8080"
    client.netns.run("curl", "-s", "-o", "/dev/null", f"{url}/small")
    key = (8080).to_bytes(4, sys.byteorder)
    subprocess.run(["bpftool", "map", "update", "pinned", f"{pins}/ports", "key",
                    *(str(byte) for byte in key), "value", "1"], check=True)  # fmt: skip
    client.netns.run("curl", "-s", "-o", "/dev/null", f"{url}/hello")
    wait_for(tracer, 1)
    transactions, _ = finish(tracer)
    assert [one["target"] for one in transactions] == ["/hello"]
    assert not os.path.exists(pins), "the pins stayed behind"


def test_settings_that_other_tools_write(lab, netctl, pair):
    """Each writable map, with bpftool, while a tracer runs; and what a killed tracer leaves."""
    client, server = pair
    nginx(lab, server.netns, 80)
    other = lab.directory / "other.py"
    other.write_text(SERVER)
    process = lab.serve(server.netns, PYTHON, other, 81, port=81)
    tracer = trace(lab, netctl, server.netns, "--pid", os.getpid())  # which serves nothing
    pins = re.search(r"settings in (\S+)", tracer.stderr).group(1)

    def update(name, key, *value):
        words = [*(str(byte) for byte in key), "value", *(str(byte) for byte in value)]
        subprocess.run(["bpftool", "map", "update", "pinned", f"{pins}/{name}", "key", *words], check=True)

    def ask(port, path):
        client.netns.run("curl", "-s", "-o", "/dev/null", f"http://{server.ip4}:{port}/{path}")

    ask(80, "hello?unseen")
    update("pids", process.pid.to_bytes(4, sys.byteorder), 1)
    ask(81, "send")
    dump = subprocess.run(["bpftool", "--json", "map", "dump", "pinned", f"{pins}/settings"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    settings = [int(byte, 16) for byte in json.loads(dump.stdout)[0]["value"]]
    settings[4] &= ~2  # NC_HTTP_SELECT_PID
    update("settings", bytes(4), *settings)
    ask(80, "hello?seen")
    settings[8] |= 2  # NC_HTTP_PAUSED
    update("settings", bytes(4), *settings)
    ask(80, "hello?paused")
    settings[8] &= ~2
    update("settings", bytes(4), *settings)
    ask(80, "small")
    wait_for(tracer, 3)
    assert [one["target"] for one in tracer.json_lines()] == ["/send", "/hello?seen", "/small"]
    tracer.stop(signal.SIGKILL)
    assert os.path.exists(pins)
    finish(trace(lab, netctl, server.netns))
    assert not os.path.exists(os.path.dirname(pins)), "the killed tracer's pins stayed behind"


@pytest.mark.parametrize("source", SOURCES)
def test_headers_bodies_and_har(lab, netctl, pair, source):
    client, server = pair
    nginx(lab, server.netns)
    har = lab.directory / "out.har"
    tracer = trace(lab, netctl, server.netns, "--har", har, "--body", "100", source=source)
    client.netns.run("curl", "-s", "-o", "/dev/null", "-H", "X-One: 1", f"http://{server.ip4}/hello?a=b")
    client.netns.run("curl", "-s", "-o", "/dev/null", "-d", "q=1", f"http://{server.ip4}/small")
    until(lambda: len(json.loads(har.read_text())["log"]["entries"]) == 2, what="entries")
    transactions, _ = finish(tracer)
    assert transactions[0]["response"]["body"] == "hello world\n"
    entries = json.loads(har.read_text())["log"]["entries"]
    assert entries[0]["request"]["url"] == f"http://{server.ip4}/hello?a=b"
    assert {"name": "X-One", "value": "1"} in entries[0]["request"]["headers"]
    assert entries[0]["response"]["content"]["text"] == "hello world\n"
    assert entries[1]["request"]["postData"]["text"] == "q=1"
    assert entries[1]["response"]["status"] == 405


def conversation(*exchanges):
    """Frames of one connection on which each request is followed by its answer."""
    client, server, now = 1000, 5000, 1_700_000_000.0
    for request, answer in exchanges:
        for sent, back in ((request, False), (answer, True)):
            for at in range(0, len(sent), 1400):
                piece = sent[at : at + 1400]
                tcp = TCP(sport=80, dport=4000, seq=server, ack=client, flags="PA") if back else TCP(
                    sport=4000, dport=80, seq=client, ack=server, flags="PA")  # fmt: skip
                ends = {"src": "192.0.2.2", "dst": "192.0.2.1"} if back else {"src": "192.0.2.1", "dst": "192.0.2.2"}
                frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(**ends) / tcp / piece
                frame.time = now
                now += 1 / 64  # which is exact, also in microseconds
                client, server = (client, server + len(piece)) if back else (client + len(piece), server)
                yield frame


def message(start, body=b"", **fields):
    head = b"".join(b"%s: %s\r\n" % (name.replace("_", "-").encode(), value) for name, value in fields.items())
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return start + b"\r\n" + head + length + b"\r\n" + body


def pcapng(frames, resolution):
    """With an interface that counts time in 10^-resolution seconds for every second frame."""

    def block(kind, body, *options):
        for code, value in options:
            body += struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)
        body += struct.pack("<I", 0) if options else b""
        size = len(body) + 12
        return struct.pack("<II", kind, size) + body + struct.pack("<I", size)

    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    for digits in (6, resolution):
        out += block(1, struct.pack("<HHI", 1, 0, 65535), (9, bytes([digits])))
    for number, frame in enumerate(frames):
        ticks = round(frame.time * 10**6) * 10 ** ((resolution - 6) * (number % 2))
        data = bytes(frame)
        packet = struct.pack("<IIIII", number % 2, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)) + data
        out += block(6, packet + b"\0" * (-len(data) % 4))
    return out


def test_captures_may_be_compressed_or_come_from_a_pipe(lab, netctl):
    frames = list(conversation(*((message(b"GET /%d HTTP/1.1" % i, Host=b"h"), message(b"HTTP/1.1 204 No Content"))
                                 for i in range(20))))  # fmt: skip
    capture = lab.directory / "in.pcap"
    wrpcap(str(capture), frames)

    def read(path, **options):
        lines = netctl("--json", "trace", "http", "--read", path, **options).stdout.splitlines()
        return [(one["target"], one["status"], one["time"]) for one in map(json.loads, lines)]

    plain = read(capture)
    assert [target for target, _, _ in plain] == [f"/{i}" for i in range(20)]
    for name, data in (
        ("in.gz", gzip.compress(capture.read_bytes())),
        ("named.wrongly", gzip.compress(pcapng(frames, 9))),
        ("in.pcapng", pcapng(frames, 9)),
    ):
        path = lab.directory / name
        path.write_bytes(data)
        assert read(path) == plain, name
        with path.open() as file:
            assert read("-", stdin=file) == plain, name
    cut = lab.directory / "cut.gz"
    cut.write_bytes(gzip.compress(capture.read_bytes())[:-20])
    assert "its gzip data end too early" in netctl.fails("trace", "http", "--read", cut)


def test_archive_follows_the_standard(lab, netctl):
    text = b"some words that compress well " * 100
    brotli = subprocess.run(["node", "-e", "process.stdout.write(require('zlib').brotliCompressSync(require('fs')"
                             ".readFileSync(0)))"], input=text, capture_output=True, check=True).stdout  # fmt: skip
    ok = b"HTTP/1.1 200 OK"
    form = b"application/x-www-form-urlencoded"
    frames = conversation(
        (message(b"GET /gzip?a=b&c HTTP/1.1", Host=b"example.org"), message(ok, gzip.compress(text), Content_Encoding=b"gzip")),
        (message(b"GET /br HTTP/1.1", Host=b"not a host"), message(ok, brotli, Content_Encoding=b"br")),
        (message(b"POST /form HTTP/1.1", b"name=A+b&x=%3d", Host=b"h", Content_Type=form), message(ok, b"\xff\xfe")),
        (message(b"PUT /binary HTTP/1.1", b"\x89PNG\0", Host=b"h"), message(ok, b"x" * 5000)),
        (message(b"GET /odd\xff\"\x80 HTTP/1.0"), message(b"HTTP/1.0 302 ", Content_Length=b"0", Location=b"/there")),
        (message(b"GET /unanswered HTTP/1.1", Host=b"h"), b""),
    )  # fmt: skip
    capture, har = lab.directory / "in.pcap", lab.directory / "out.har"
    wrpcap(str(capture), list(frames))
    for argv in ([], ["--body", "4000"], ["--body", "4000", "--decode"]):
        netctl("trace", "http", "--read", capture, "--har", har, *argv)
        archive = json.loads(har.read_text())
        har_schema.check(archive)
        entries = archive["log"]["entries"]
        assert len(entries) == 6
        assert archive["log"]["pages"][0]["startedDateTime"] == entries[0]["startedDateTime"]
    plain, brotlied, posted, binary, odd, unanswered = entries
    for one in (plain, brotlied):
        assert one["response"]["content"]["text"] == text.decode()
        assert one["response"]["content"]["size"] == len(text)
        assert one["response"]["bodySize"] + one["response"]["content"]["compression"] == len(text)
    assert brotlied["request"]["url"] == "http://192.0.2.2:80/br"
    assert posted["request"]["postData"]["params"] == [{"name": "name", "value": "A b"}, {"name": "x", "value": "="}]
    assert base64.b64decode(posted["response"]["content"]["text"]) == b"\xff\xfe"
    assert base64.b64decode(binary["request"]["postData"]["text"]) == b"\x89PNG\0"
    assert binary["request"]["postData"]["_encoding"] == "base64"
    assert binary["response"]["content"]["comment"] == "4000 of 5000 bytes were kept"
    assert odd["request"]["url"] == "http://192.0.2.2:80/odd%FF%22%80"
    assert unanswered["response"]["status"] == 0


def test_write_and_read_a_capture(lab, netctl, pair):
    client, server = pair
    log = nginx(lab, server.netns)
    capture = lab.directory / "http.pcap"
    tracer = trace(lab, netctl, server.netns, "--write", capture, source="socket")
    url = f"http://{server.ip4}"
    client.netns.run("curl", "-s", "-o", lab.directory / "out", f"{url}/big", f"{url}/hello")
    wait_for(tracer, 2)
    transactions, _ = finish(tracer)
    assert shown(transactions) == logged(log())
    again = [json.loads(line) for line in netctl.__call__("--json", "trace", "http", "--read", capture)
             .stdout.splitlines()]  # fmt: skip
    assert shown(again) == logged(log())
    if shutil.which("tshark"):
        seen = subprocess.run(["tshark", "-r", capture, "-Y", "http.request", "-T", "fields", "-e",
                               "http.request.uri"], capture_output=True, text=True, check=True)  # fmt: skip
        assert seen.stdout.split() == ["/big", "/hello"]


@pytest.mark.parametrize("family", (4, 6))
def test_calls_are_written_as_packets(lab, netctl, pair, family):
    client, server = pair
    log = nginx(lab, server.netns)
    path = lab.directory / "s"
    server.netns.start(PYTHON, "-c", UNIX_SERVER, path).expect("listening", timeout=20)
    capture = lab.directory / "calls.pcapng"
    tracer = trace(lab, netctl, server.netns, "--write", capture)
    url = f"http://{server.ip4 if family == 4 else f'[{server.ip6}]'}"
    client.netns.run("curl", "-s", "-o", lab.directory / "out", f"{url}/big", f"{url}/text.txt", f"{url}/hello")
    server.netns.run("curl", "-s", "-o", lab.directory / "out", "--http1.0", "--unix-socket", path, "http://a/1")
    wait_for(tracer, 4)
    transactions, _ = finish(tracer)
    assert shown(transactions[:3]) == logged(log())
    again = [json.loads(line) for line in netctl("--json", "trace", "http", "--read", capture).stdout.splitlines()]
    assert shown(again[:3]) == logged(log())
    assert (again[3]["target"], again[3]["response"]["body_bytes"]) == ("/1", 3000)
    told = set(re.sub(r"\d+", "N", packet.comment) for packet in packets(capture.read_bytes()))
    unix = f", unix:{re.sub(r'[0-9]+', 'N', str(path))}"
    assert told == {"nginx[N] received", "nginx[N] sent", f"pythonN[N] received{unix}", f"pythonN[N] sent{unix}"}
    if shutil.which("tshark"):
        seen = subprocess.run(["tshark", "-r", capture, "-Y", "http.request", "-T", "fields", "-e",
                               "http.request.uri"], capture_output=True, text=True, check=True)  # fmt: skip
        assert seen.stdout.split() == ["/big", "/text.txt", "/hello", "/1"]


def test_packets_within_bodies_are_not_copied(lab, netctl, pair):
    """Once a long body is under way, its packets' lengths are enough; what follows it is seen again."""
    client, server = pair
    size = 8 << 20
    piece = b"0123456789abcdef" * 4096

    def move(sender, receiver, message):
        sender.sendall(message)
        while message:
            message = message[len(receiver.recv(len(message))) :]

    def ask(target, length):
        move(asking, answering, b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        move(answering, asking, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)

    for argv in ((), ("--body", "1000000")):
        tracer = trace(lab, netctl, server.netns, "--buffer", "2", *argv, source="socket")
        with server.netns.socket() as listener, client.netns.socket() as asking:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((server.ip4, 80))
            listener.listen()
            asking.connect((server.ip4, 80))
            answering, _ = listener.accept()
            with answering:
                ask(b"/long", size)
                moved = 0
                while not kernel_counters(tracer)["lengths"]:
                    assert moved < size // 2, "all of the body is copied"
                    move(answering, asking, piece)
                    moved += len(piece)
                # Nobody reads the ring now: what is left of the body is more than it can hold.
                tracer.send(signal.SIGSTOP)
                while moved < size:
                    move(answering, asking, piece)
                    moved += len(piece)
                assert kernel_counters(tracer)["lost"] == 0, "the body is copied"
                tracer.send(signal.SIGCONT)
                ask(b"/next", 2)
                move(answering, asking, b"ok")
        wait_for(tracer, 2)
        transactions, last = finish(tracer)
        assert [(one["target"], one.get("status"), (one["response"] or {}).get("body_bytes")) for one in transactions] == [
            ("/long", 200, size), ("/next", 200, 2)]  # fmt: skip
        assert "missing" not in last and "hole" not in last and " 0 lost" in last, last
        if argv:
            assert transactions[0]["response"]["body"] == (piece * 16).decode()[:1000000]


@pytest.mark.parametrize("source", SOURCES)
def test_load_is_shown_or_counted_as_lost(lab, netctl, source):
    netns = lab.namespace()
    log = nginx(lab, netns, workers=2)
    tracer = trace(lab, netctl, netns, source=source, interface="lo")
    netns.run("ab", "-q", "-k", "-n", LOAD * 10, "-c", 16, "http://127.0.0.1/hello", timeout=120)
    until(lambda: len(log()) == LOAD * 10, 20, "all in the log")
    transactions, last = finish(tracer)
    assert " 0 lost" in last, last
    assert shown(transactions) == logged(log())


@pytest.mark.parametrize("source", SOURCES)
def test_all_that_wrk_can_ask(lab, netctl, source):
    """At the highest rate: every request that nginx logged is shown, or the records that are missing are counted."""
    netns = lab.namespace()
    log = nginx(lab, netns, workers=2)
    tracer = trace(lab, netctl, netns, source=source, json=False, interface="lo")
    netns.run("wrk", "-t1", "-c16", "-d1s", "http://127.0.0.1/hello")
    until(lambda: tracer.stdout.count("/hello") > 0, 20, "the first lines")
    assert tracer.stop(signal.SIGINT, timeout=60) == 0
    said = tracer.stderr.splitlines()[-1]
    lost = int(re.search(r"records, (\d+) lost", said).group(1))
    # With its answer: half of a transaction is shown as well.
    shown = len(re.findall(r" 200 .*/hello$", tracer.stdout, re.MULTILINE))
    # wrk leaves when the time is over: what each connection then waits for may be in the one or the other.
    assert 0 <= len(log()) - shown + 16 <= lost + 32, said
    assert shown > 0


@pytest.mark.parametrize("source", SOURCES)
def test_full_ring_is_told_exactly(lab, netctl, source):
    netns = lab.namespace()
    nginx(lab, netns)
    tracer = trace(lab, netctl, netns, "--buffer", "1", source=source, interface="lo")
    tracer.send(signal.SIGSTOP)  # a reader that does not read
    netns.run("ab", "-q", "-k", "-n", 5000, "-c", 4, "http://127.0.0.1/hello", timeout=120)
    counted = kernel_counters(tracer)
    lost = counted["lost"]
    # A record for each request and for each response, at the least.
    assert lost > 0 and counted["sent"] + lost >= 2 * 5000, counted
    tracer.send(signal.SIGCONT)
    transactions, last = finish(tracer)
    assert f" {lost} lost" in last, last
    assert 0 < len(transactions) < 5000


def test_ends_by_itself(lab, netctl, pair):
    client, server = pair
    nginx(lab, server.netns)
    tracer = trace(lab, netctl, server.netns, "--count", "2")
    url = f"http://{server.ip4}/hello"
    client.netns.run("curl", "-s", "-o", "/dev/null", url, url, url)
    assert tracer.wait() == 0
    assert len(tracer.json_lines()) == 2
    assert trace(lab, netctl, server.netns, "--duration", "1").wait() == 0
    victim = lab.start("sleep", "1000")
    tracer = trace(lab, netctl, server.netns, "--pid", victim.pid)
    victim.stop()
    assert tracer.wait() == 0
    tracer.expect(rf"process {victim.pid} is gone")


def test_trouble_with_files_is_told(lab, netctl, pair):
    client, server = pair
    nginx(lab, server.netns)
    assert "/no/such" in netctl.fails("trace", "http", "--har", "/no/such/file")
    assert "/no/such" in netctl.fails("trace", "http", "--write", "/no/such/file", netns=server.netns)
    assert "/no/such" in netctl.fails("trace", "http", "--read", "/no/such/file")


def parsed(line):
    """Nothing if it is torn."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def test_full_disk_is_told_once(lab, netctl, pair):
    """Lines, an archive and a capture file: tracing goes on, and so does the writing once there is room."""
    client, server = pair
    nginx(lab, server.netns)
    small = lab.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], check=True)
    url = f"http://{server.ip4}/hello"
    ask = lambda count: client.netns.run("curl", "-s", "-o", "/dev/null", *[url] * count)  # noqa: E731
    # System calls that wrote or failed to.
    tried = lambda tracer: int(re.search(r"syscw: (\d+)", Path(f"/proc/{tracer.pid}/io").read_text())[1])  # noqa: E731
    filler, out, har = small / "filler", small / "out", small / "har"
    try:
        filler.write_bytes(bytes(8192))
        argv = netctl.argv("--json", "trace", "http", "--har", har, netns=server.netns)
        tracer = lab.start("sh", "-c", f'exec "$@" >{out}', "sh", *argv)
        tracer.expect("netctl: tracing", timeout=20)
        ask(30)
        tracer.expect("standard output: No space left on device; tracing goes on", timeout=20)
        tracer.expect("har: No space left on device; tracing goes on", timeout=20)
        for _ in range(3):  # it tries again, and says nothing
            before = tried(tracer)
            ask(10)
            until(lambda: tried(tracer) > before, 20, "another attempt")
        subprocess.run(["mount", "-o", "remount,size=1m", small], check=True)
        ask(1)
        until(lambda: out.read_bytes().endswith(b"}\n"), 20, "a whole line at last")
        assert tracer.stop(signal.SIGINT, timeout=20) == 1  # something is missing
        last = tracer.stderr.splitlines()[-2]  # behind it is why
        assert tracer.stderr.count("tracing goes on") == 2 and last.startswith("netctl: 61 transactions"), tracer.stderr
        whole = [one for one in map(parsed, out.read_text().splitlines()) if one]
        assert all(one["target"] == "/hello" for one in whole)
        assert int(re.search(r"(\d+) lines not written", last).group(1)) == 61 - len(whole) > 0
        entries = json.loads(har.read_text())["log"]["entries"]
        assert int(re.search(r"(\d+) archive entries not written", last).group(1)) == 61 - len(entries) > 0

        for file in (filler, out, har):
            file.unlink()
        subprocess.run(["mount", "-o", "remount,size=16k", small], check=True)
        capture = small / "pcap"
        tracer = trace(lab, netctl, server.netns, "--write", capture, source="socket")
        ask(200)
        tracer.expect("pcap: No space left on device; tracing goes on", timeout=20)
        ask(1)
        wait_for(tracer, 201)
        finish(tracer)
        assert tracer.stderr.count("tracing goes on") == 1
        said = netctl("trace", "http", "--read", capture, check=False)
        assert said.stdout.count("/hello") > 5, said
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_refusals(netctl):
    usage = {
        ("--status", "6xx"): "6xx",
        ("--port", "0"): "'0' is no port",
        ("--path", "x"): "slash",
        ("--host", "http://x/"): "no host",
        ("--method", "get"): "capitals",
        ("--comm", "a-name-that-is-too-long"): "15",
        ("--interface", "lo", "--pid", "1"): "--pid",
        ("--source", "syscall", "--interface", "lo"): "--interface",
        ("--source", "syscall", "--write", "x.pcap"): "pcapng",
        ("--read", "x", "--pid", "1"): "--read",
        ("--top",): "terminal",
        ("--buffer", "3"): "power of two",
        ("--stalled", "x"): "'x' is no number",
        ("--tunnels", "no"): "--read",
        ("--decode",): "--body",
        ("--container", "any", "--source", "socket"): "packets know no processes",
    }
    for argv, words in usage.items():
        assert words in netctl.fails("trace", "http", *argv, status=2)
    assert "no-such0" in netctl.fails("trace", "http", "--interface", "no-such0")
    assert "4194303" in netctl.fails("trace", "http", "--pid", "4194303")
    assert "no/such" in netctl.fails("trace", "http", "--cgroup", "no/such")


def test_table_in_a_terminal(lab, netctl, pair):
    client, server = pair
    nginx(lab, server.netns)
    tracer = lab.start("script", "-qfec",
                       " ".join(netctl.argv("trace", "http", "--top", netns=server.netns)),
                       "/dev/null", stdin=subprocess.PIPE)  # fmt: skip
    tracer.expect("req/s", timeout=20)
    client.netns.run("curl", "-s", "-o", "/dev/null", f"http://{server.ip4}/hello")
    tracer.expect(rf"{server.ip4}/hello", timeout=10)
    tracer.popen.stdin.write(b"q")
    tracer.popen.stdin.flush()
    assert tracer.wait() == 0


def test_table_survives_resizes(lab, netctl, pair):
    client, server = pair
    nginx(lab, server.netns)
    outside, inside = pty.openpty()

    def resize(columns, rows):
        fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    resize(100, 24)
    modes = termios.tcgetattr(outside)
    argv = netctl.argv("trace", "http", "--top", netns=server.netns)
    # The terminal controls it, or a resize would tell it nothing.
    tracer = subprocess.Popen(["setsid", "--ctty", *map(str, argv)], stdin=inside, stdout=inside,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    os.close(inside)
    os.set_blocking(outside, False)
    drawn = ""

    def frames():
        """What was drawn, frame by frame, as lines without control sequences."""
        nonlocal drawn
        try:
            drawn += os.read(outside, 65536).decode()
        except OSError:  # nothing new, or nobody there
            pass
        return [re.sub(r"\x1b\[[?\d]*\w|\r", "", one).split("\n") for one in re.findall(r"\x1b\[H(.*?)\x1b\[J", drawn, re.S)]

    def wait_for_frame(columns, rows, text):
        def there():
            last = frames()[-1:]
            return last and len(last[0]) <= rows and max(map(len, last[0])) <= columns and text in "".join(last[0])

        until(there, 20, f"{text} in {columns} x {rows}, not {frames()[-1:]}")

    try:
        wait_for_frame(100, 24, "quit: q")
        client.netns.run("curl", "-s", "-o", "/dev/null", *[f"http://{server.ip4}/hello/{i}x" for i in range(12)])
        wait_for_frame(100, 24, "/hello/11x")
        assert max(map(len, frames()[-1])) > 70 and len(frames()[-1]) > 8
        resize(66, 8)  # too narrow for the heading
        wait_for_frame(66, 8, "more")
        resize(30, 3)
        wait_for_frame(30, 3, "too small")
        resize(100, 24)
        wait_for_frame(100, 24, "/hello/11x")
        assert termios.tcgetattr(outside) != modes  # a key is a command, no line is awaited
        os.write(outside, b"q")
        assert tracer.wait(timeout=20) == 0
        frames()
        assert drawn.endswith("\x1b[?25h\x1b[?1049l"), "the terminal was not given back"
        assert termios.tcgetattr(outside) == modes, "the terminal was not given back as it was"
        for line in "".join(re.findall(r"\x1b\[H(.*?)\x1b\[J", drawn, re.S)).split("\n"):
            assert line.rstrip("\r").endswith("\x1b[K"), "what was there before is not wiped away"
    finally:
        if tracer.poll() is None:
            tracer.kill()
            tracer.wait()
        os.close(outside)
