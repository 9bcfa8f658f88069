# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace http --tls: what it shows of OpenSSL's traffic against the servers' own logs, one to one."""

import collections
import concurrent.futures
import http.client
import os
import re
import shutil
import signal
import ssl
import subprocess
import textwrap
from pathlib import Path

import pytest

from lab import run, until
from trace_test import PYTHON, finish, logged, nginx, shown, trace, wait_for

PORT = 443


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A key and a certificate in one file, which nobody has to trust."""
    directory = tmp_path_factory.mktemp("certificate")
    both = directory / "both.pem"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost",
        "-keyout", directory / "key.pem", "-out", directory / "certificate.pem")  # fmt: skip
    both.write_text((directory / "certificate.pem").read_text() + (directory / "key.pem").read_text())
    return both


def secure_nginx(lab, netns, certificate, more=""):
    """trace_test's, which listens with TLS besides; returns its log."""
    return nginx(lab, netns, server=f"""
        listen {PORT} ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate}; {more}""")  # fmt: skip


def client_context():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Client:
    """An HTTPS connection out of a namespace, of this process."""

    def __init__(self, netns, address, port=PORT):
        self.socket = netns.socket()
        self.socket.settimeout(30)
        self.socket.connect((address, port))
        self.own_port = self.socket.getsockname()[1]
        self.connection = http.client.HTTPConnection(address, port)
        self.connection.sock = client_context().wrap_socket(self.socket)

    def ask(self, path, method="GET", body=None):
        self.connection.request(method, path, body=body)
        response = self.connection.getresponse()
        return response.status, response.read()

    def close(self):
        self.connection.close()


def whole(last):
    """Nothing was lost, guessed or not understood."""
    return not re.search(r"[1-9]\d* lost|hole|unparsed|guessed|truncated|missing|unreadable", last)


@pytest.mark.kernel
def test_curl_and_nginx_one_to_one(lab, netctl, pair, certificate):
    client, server = pair
    log = secure_nginx(lab, server.netns, certificate)
    url = f"https://{server.ip4}"
    tracer = trace(lab, netctl, server.netns, "--tls")
    assert re.search(r"OpenSSL in [1-9]", tracer.stderr)
    curl = lambda *argv: client.netns.run("curl", "-sk", "--http1.1", "-o", lab.directory / "out", *argv)  # noqa: E731
    curl(f"{url}/hello", f"{url}/small", f"{url}/big", f"{url}/no-such", f"{url}/nothing")
    curl("-I", f"{url}/big")
    curl("--compressed", f"{url}/text.txt")  # chunked
    curl("--tls-max", "1.2", f"{url}/hello", f"{url}/big")
    body = lab.directory / "body"
    body.write_bytes(b"x" * 100000)
    curl("--data-binary", f"@{body}", f"{url}/hello")
    curl("-H", "Transfer-Encoding: chunked", "--data-binary", f"@{body}", f"{url}/hello")
    count = 11
    until(lambda: len(log()) == count, what="all in the log")
    wait_for(tracer, count)
    transactions, last = finish(tracer)
    assert shown(transactions) == logged(log()), last
    assert whole(last), last
    assert all(one["tls"] and one["view"] == "server" and one["latency_us"] > 0 for one in transactions)
    assert {one["server_process"]["comm"] for one in transactions} == {"nginx"}
    assert {one["server"] for one in transactions} == {f"{server.ip4}:{PORT}"}
    posts = [one["request"] for one in transactions if one["method"] == "POST"]
    assert [one["body_bytes"] for one in posts] == [100000, 100000]


def test_both_ends_on_one_host_are_one(lab, netctl, certificate):
    """Both processes are named, whether the connection is of before or of after the tracer's beginning."""
    netns = lab.namespace("host")
    log = secure_nginx(lab, netns, certificate)
    early = Client(netns, "127.0.0.1")
    assert early.ask("/hello?before")[0] == 200
    tracer = trace(lab, netctl, netns, "--tls")
    late = Client(netns, "127.0.0.1")
    for number in range(10):
        assert early.ask(f"/hello?early-{number}") == (200, b"hello world\n")
        assert late.ask(f"/hello?late-{number}") == (200, b"hello world\n")
    ports = {"early": early.own_port, "late": late.own_port}
    early.close()
    late.close()
    until(lambda: len(log()) == 21, what="all in the log")
    wait_for(tracer, 20)
    transactions, last = finish(tracer)
    late_ones = [one for one in transactions if "late" in one["target"]]
    assert [one["target"] for one in late_ones] == [f"/hello?late-{number}" for number in range(10)]
    for one in late_ones:
        assert one["server_process"]["comm"] == "nginx" and one["client_process"], one
    # An older connection's first answer may be told by both, as nginx has read its request before.
    assert {one["target"] for one in transactions} == {f"/hello?{when}-{n}" for when in ports for n in range(10)}
    for one in transactions:
        when = re.search(r"early|late", one["target"])[0]
        assert one["client"] == f"127.0.0.1:{ports[when]}" and one["server"] == f"127.0.0.1:{PORT}"
    assert whole(last), last


def test_many_connections_in_one_thread_are_joined_right(lab, netctl, pair, certificate):
    """nginx's one worker serves them all; each asks for its own port, so a wrong join is seen."""
    client, server = pair
    secure_nginx(lab, server.netns, certificate)
    tracer = trace(lab, netctl, server.netns, "--tls")
    asked = collections.Counter()
    for _ in range(3):  # descriptors and SSL objects are used again
        clients = [Client(client.netns, server.ip4) for _ in range(25)]
        for number in range(4):
            for one in clients:
                assert one.ask(f"/hello?{one.own_port}-{number}")[0] == 200
                asked[one.own_port] += 1
        for one in clients:
            one.close()
    wait_for(tracer, 300)
    transactions, last = finish(tracer)
    seen = collections.Counter()
    for one in transactions:
        port = int(one["client"].rpartition(":")[2])
        assert one["target"].startswith(f"/hello?{port}-"), one
        seen[port] += 1
    assert seen == asked, last
    assert whole(last), last


SERVER = textwrap.dedent(
    """
    import http.server, ssl, sys

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def log_message(self, *_): pass
        def do_GET(self):
            body = f"{self.client_address[1]} {self.path}".encode() * 50
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    server = http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()
    """
)


def python_server(lab, netns, certificate, port=PORT):
    script = lab.directory / "server.py"
    script.write_text(SERVER)
    return lab.serve(netns, PYTHON, script, port, certificate, port=port)


def test_many_threads_are_joined_right(lab, netctl, pair, certificate):
    client, server = pair
    process = python_server(lab, server.netns, certificate)
    tracer = trace(lab, netctl, server.netns, "--tls", "--port", PORT)
    connections = [Client(client.netns, server.ip4) for _ in range(8)]

    def ask(one):
        return [one.ask(f"/{one.own_port}/{number}")[1] for number in range(20)]

    with concurrent.futures.ThreadPoolExecutor(len(connections)) as pool:
        bodies = list(pool.map(ask, connections))
    for one, answers in zip(connections, bodies):
        assert answers == [f"{one.own_port} /{one.own_port}/{number}".encode() * 50 for number in range(20)]
        one.close()
    wait_for(tracer, 160)
    transactions, last = finish(tracer)
    assert collections.Counter(one["target"] for one in transactions) == collections.Counter(
        f"/{one.own_port}/{number}" for one in connections for number in range(20))  # fmt: skip
    for one in transactions:
        assert one["target"].split("/")[1] == one["client"].rpartition(":")[2], one
        assert one["server_process"]["pid"] == process.pid
    assert whole(last), last


READER = textwrap.dedent(
    """
    # Reads an answer by pieces of so many bytes, and not at once, so that its sender has to wait.
    import socket, ssl, sys, time
    address, port, path, size = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    context = ssl._create_unverified_context()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    raw.connect((address, port))
    c = context.wrap_socket(raw)
    c.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
    total = 0
    while piece := c.recv(size):
        total += len(piece)
    print(total)
    """
)


def test_small_reads_and_full_buffers(lab, netctl, pair, certificate):
    """SSL_read of some bytes at a time, SSL_write that has to be tried again: each byte counts once, at both ends."""
    client, server = pair
    log = secure_nginx(lab, server.netns, certificate)
    script = lab.directory / "reader.py"
    script.write_text(READER)
    tracers = [trace(lab, netctl, end.netns, "--tls") for end in pair]
    small = client.netns.run(PYTHON, script, server.ip4, PORT, "/hello", 3)
    big = client.netns.run(PYTHON, script, server.ip4, PORT, "/big", 1000)
    until(lambda: len(log()) == 2, what="all in the log")
    sizes = [int(small.stdout), int(big.stdout)]
    assert sizes == [one["sent"] for one in log()]
    for tracer in tracers:
        wait_for(tracer, 2)
        transactions, last = finish(tracer)
        assert [(one["target"], one["response"]["bytes"], one["response"]["end"]) for one in transactions] == [
            ("/hello", sizes[0], "complete"), ("/big", sizes[1], "complete")], last  # fmt: skip
        assert whole(last), last


def test_memory_buffers_have_no_socket(lab, netctl, pair, certificate):
    """node encrypts into memory: what it says is shown, without an address, and not as another's."""
    client, server = pair
    script = lab.directory / "server.js"
    script.write_text(
        "const fs = require('fs'); const pem = fs.readFileSync(process.argv[2]);"
        "require('https').createServer({key: pem, cert: pem}, (q, r) => { r.end('node ' + q.url) })"
        f".listen({PORT}, '0.0.0.0')"
    )
    process = lab.serve(server.netns, "node", script, certificate, port=PORT)
    tracer = trace(lab, netctl, server.netns, "--tls")
    one = Client(client.netns, server.ip4)
    assert one.ask("/first") == (200, b"node /first") and one.ask("/second")[0] == 200
    one.close()
    wait_for(tracer, 2)
    transactions, last = finish(tracer)
    assert [(t["target"], t["status"], t["client"], t["server"]) for t in transactions] == [
        ("/first", 200, None, None), ("/second", 200, None, None)]  # fmt: skip
    assert {t["server_process"]["pid"] for t in transactions} == {process.pid}
    assert "2 transactions in TLS whose socket is not known" in last


ASYNC_SERVER = textwrap.dedent(
    """
    import asyncio, ssl, sys

    async def answer(reader, writer):
        while line := await reader.readuntil(b"\\r\\n\\r\\n"):
            body = line.split()[1] * 10
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)

    async def main():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2])
        await (await asyncio.start_server(answer, "0.0.0.0", int(sys.argv[1]), ssl=context)).serve_forever()

    asyncio.run(main())
    """
)


def test_connections_of_memory_buffers_are_not_mixed(lab, netctl, pair, certificate):
    """asyncio's, many in one thread: each answer is its own request's, and none gets another's socket."""
    client, server = pair
    script = lab.directory / "server.py"
    script.write_text(ASYNC_SERVER)
    lab.serve(server.netns, PYTHON, script, PORT, certificate, port=PORT)
    tracer = trace(lab, netctl, server.netns, "--tls")
    clients = [Client(client.netns, server.ip4) for _ in range(8)]
    for number in range(5):
        for one in clients:
            assert one.ask(f"/{one.own_port}-{number}") == (200, f"/{one.own_port}-{number}".encode() * 10)
    for one in clients:
        one.close()
    wait_for(tracer, 40)
    transactions, last = finish(tracer)
    assert collections.Counter(one["target"] for one in transactions) == collections.Counter(
        f"/{one.own_port}-{number}" for one in clients for number in range(5))  # fmt: skip
    for one in transactions:
        assert one["client"] is one["server"] is None
        assert one["response"]["body_bytes"] == 10 * len(one["target"])
    assert whole(last), last


def libssl(directory):
    """A libssl of our own, which nobody has mapped."""
    program = "import _ssl; print(*(line.split()[-1] for line in open('/proc/self/maps') if '/libssl.so' in line))"
    source = Path(run(PYTHON, "-c", program).stdout.split()[0])
    directory.mkdir()
    return Path(shutil.copy(source, directory / source.name))


@pytest.mark.parametrize("named", (False, True))
def test_libraries_that_come_later(lab, netctl, pair, certificate, named):
    """A file that nobody had mapped when tracing began, as one in a container is hooked when it is mapped; or before,
    if it is named."""
    client, server = pair
    library = libssl(lab.directory / "lib")
    argv = ("--tls-lib", library) if named else ("--tls",)
    tracer = trace(lab, netctl, server.netns, *argv)
    script = lab.directory / "server.py"
    script.write_text(SERVER)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    process = lab.serve(server.netns, PYTHON, script, PORT, certificate, port=PORT, env=environment)
    assert str(library) in Path(f"/proc/{process.pid}/maps").read_text()
    # It is some milliseconds until a new file is hooked: what was before is not seen.
    one = Client(client.netns, server.ip4)

    def shown_after_one_more():
        assert one.ask("/again")[0] == 200
        return tracer.json_lines()

    until(shown_after_one_more, 20, "a transaction")
    first = one.ask("/last")
    assert first[0] == 200
    until(lambda: tracer.json_lines()[-1]["target"] == "/last", 20, "the last transaction")
    transactions, _ = finish(tracer)
    for transaction in transactions:
        assert transaction["client"] == f"{client.ip4}:{one.own_port}"
        assert transaction["server_process"]["pid"] == process.pid


def test_what_is_not_decoded_is_told(lab, netctl, pair, certificate):
    """s_server -www goes past SSL_read; and what is encrypted is nothing that could not be parsed."""
    client, server = pair
    lab.serve(server.netns, "openssl", "s_server", "-quiet", "-accept", PORT, "-cert", certificate, "-www",
              port=PORT)  # fmt: skip
    tracer = trace(lab, netctl, server.netns, "--tls")
    for _ in range(3):
        client.netns.run("curl", "-sk", "--http1.1", "-o", "/dev/null", f"https://{server.ip4}:{PORT}/")
    transactions, last = finish(tracer)
    assert transactions == []
    assert re.search(r"3 TLS connections not decoded \(openssl 3: ", last), last
    assert whole(last), last


def test_killed_tracer_leaves_no_trace(lab, netctl, pair, certificate):
    """Its end by SIGKILL, amid calls, changes no answer."""
    client, server = pair
    secure_nginx(lab, server.netns, certificate)
    one = Client(client.netns, server.ip4)
    for number in range(3):
        tracer = trace(lab, netctl, server.netns, "--tls", "--duration", 300)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answers = pool.submit(lambda: [one.ask(f"/big?{number}") for _ in range(10)])
            wait_for(tracer, 1 + number)
            tracer.send(signal.SIGKILL)
            assert answers.result() == [(200, b"0123456789abcdef" * 65536)] * 10
        tracer.wait()
    assert one.ask("/hello") == (200, b"hello world\n")


def test_without_tls_nothing_is_hooked(lab, netctl, pair, certificate):
    client, server = pair
    log = secure_nginx(lab, server.netns, certificate)
    tracer = trace(lab, netctl, server.netns)
    assert "OpenSSL" not in tracer.stderr
    client.netns.run("curl", "-sk", "-o", "/dev/null", f"https://{server.ip4}/hello", f"http://{server.ip4}/small")
    until(lambda: len(log()) == 2, what="both in the log")
    wait_for(tracer, 1)
    transactions, _ = finish(tracer)
    assert [(one["target"], one["tls"]) for one in transactions] == [("/small", False)]


def test_words(lab, netctl, pair):
    """What it does not take, and why."""
    netns = pair[1].netns
    fails = lambda *argv, status: netctl.fails("trace", "http", *argv, netns=netns, status=status)  # noqa: E731
    assert "needs --source syscall" in fails("--tls", "-i", "lo", status=2)
    assert "exclude each other" in fails("--tls", "--read", "x.pcap", status=2)
    assert "cannot open /no/such" in fails("--tls-lib", "/no/such", status=1)
    text = fails("--tls-lib", "/usr/bin/env", status=1)
    assert "/usr/bin/env has no functions SSL_read and SSL_write" in text


def stack_depths(netctl, name):
    """{program: depths of its functions' stacks}, as the verifier tells them of the object's programs, up to the first
    that this kernel refuses."""
    pins = Path(f"/sys/fs/bpf/stacks-{os.getpid()}")
    built = Path(netctl.binary).parent / f"{name}.bpf.o"
    process = subprocess.run(["bpftool", "-d", "prog", "loadall", built, pins], capture_output=True, text=True)
    shutil.rmtree(pins, ignore_errors=True)
    logs = re.findall(r"prog '(\w+)': -- BEGIN PROG LOAD LOG --\n(.*?)-- END PROG LOAD LOG --",
                      process.stdout + process.stderr, re.DOTALL)  # fmt: skip
    return {program: [int(depth) for depth in re.search(r"stack depth ([\d+]+)", log)[1].split("+")]
            for program, log in logs if "stack depth" in log}  # fmt: skip


def test_stacks_are_small(netctl):
    """The kernel gives programs at probes a private stack for each CPU from 64 bytes on, rounded up to 16, though they may be
    preempted."""
    depths = stack_depths(netctl, "http_tls")
    # On kernels that lack one of the ways to the sockets it ends there, behind the probes' programs.
    assert {"tls_return", "tls_read", "tls_write_ex", "tls_free"} <= set(depths)
    for name in depths:
        if not re.match(r"tls_(sent|received|state)", name):
            assert max(depths[name]) <= 48, (name, depths[name])
