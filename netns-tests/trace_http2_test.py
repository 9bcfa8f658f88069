# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace http: HTTP/2 and gRPC against the servers' own logs, one to one."""

import collections
import json
import re
import signal
import socket
import subprocess
import textwrap

import har_schema
import pytest

from lab import until
from trace_test import PYTHON, SOURCES, finish, nginx, trace, wait_for
from trace_tls_test import PORT as TLS_PORT
from trace_tls_test import certificate, whole  # noqa: F401: one is a fixture

PORT = 8080


def http2_nginx(lab, netns, more=""):
    """trace_test's, which speaks HTTP/2 besides; returns its log."""
    return nginx(lab, netns, server=f"listen {PORT} http2; keepalive_requests 100000; {more}")


def shown(transactions):
    return collections.Counter(
        (one["method"], one["target"], one["status"], one["response"]["bytes"], one["client"]) for one in transactions)  # fmt: skip


def logged(log):
    return collections.Counter((one["method"], one["target"], one["status"], one["sent"], one["client"]) for one in log)


@pytest.mark.parametrize("source", (pytest.param("syscall", marks=pytest.mark.kernel), "socket"))
def test_eight_streams_at_once_one_to_one(lab, netctl, pair, source):
    client, server = pair
    log = http2_nginx(lab, server.netns)
    urls = lab.directory / "urls"
    paths = ("hello", "small", "no-such", "nothing", "text.txt")
    urls.write_text("".join(f"http://{server.ip4}:{PORT}/{path}?{n}\n" for n in range(20) for path in paths))
    count = 600
    tracer = trace(lab, netctl, server.netns, source=source)
    client.netns.run("h2load", "-n", count, "-c", "3", "-m", "8", "-i", urls)
    wait_for(tracer, count)
    transactions, last = finish(tracer)
    until(lambda: len(log()) == count, what="all in the log")
    assert shown(transactions) == logged(log()), last
    assert "3 HTTP/2 connections" in last and " 0 lost" in last, last
    assert "hole" not in last and "unparsed" not in last and "not known" not in last, last
    streams = collections.defaultdict(list)
    for one in transactions:
        assert one["request"]["version"] == one["response"]["version"] == "HTTP/2"
        assert one["host"] == f"{server.ip4}:{PORT}" and one["latency_us"] > 0
        assert one["reset"] is None and one["grpc"] is None
        streams[one["client"]].append(one["stream"])
    for own in streams.values():
        assert sorted(own) == list(range(min(own), min(own) + 2 * len(own), 2))
    if source == "syscall":
        assert {one["server_process"]["comm"] for one in transactions} == {"nginx"}


@pytest.mark.parametrize("source", SOURCES)
def test_bodies_of_curl(lab, netctl, pair, source):
    client, server = pair
    log = http2_nginx(lab, server.netns)
    lab.serve(server.netns, "nghttpd", "--no-tls", "-d", lab.directory / "nginx-80" / "www", "8081", port=8081)
    url = f"http://{server.ip4}:{PORT}"
    tracer = trace(lab, netctl, server.netns, "--headers", "--body", "5", source=source)
    body = lab.directory / "body"
    body.write_bytes(b"x" * 300_000)
    curl = lambda *argv: client.netns.run("curl", "-s", "-o", lab.directory / "out", "--http2-prior-knowledge", *argv)  # noqa: E731
    for path in ("hello", "big", "small"):
        curl(f"{url}/{path}")
    curl("-I", f"{url}/big")
    curl("--data-binary", f"@{body}", f"http://{server.ip4}:8081/small")
    wait_for(tracer, 5)
    transactions, last = finish(tracer)
    until(lambda: len(log()) == 4, what="all in the log")
    assert shown(transactions[:4]) == logged(log()), last
    assert "hole" not in last and "not known" not in last, last
    assert [(one["target"], one["request"]["body_bytes"], one["response"]["body_bytes"]) for one in transactions] == [
        ("/hello", 0, 12), ("/big", 0, 1048576), ("/small", 0, 6), ("/big", 0, 0), ("/small", 300_000, 6)]  # fmt: skip
    # What sendfile moves has no buffer.
    files = ["01234", "hello"] if source == "socket" else [None, None]
    assert [one["response"].get("body") for one in transactions] == ["hello", *files, None, "hello"]
    assert transactions[4]["request"]["body"] == "xxxxx"
    assert {field["name"]: field["value"] for field in transactions[0]["response"]["headers"]}["server"].startswith("nginx")


def test_long_bodies_are_not_copied(lab, netctl, pair):
    """The ring has room for a sixth of what passes while nobody reads it."""
    client, server = pair
    root = lab.directory / "www"
    root.mkdir()
    (root / "big").write_bytes(b"0123456789abcdef" * (2 << 16))
    (root / "small").write_text("small\n")
    lab.serve(server.netns, "nghttpd", "--no-tls", "-d", root, PORT, port=PORT)
    url = f"http://{server.ip4}:{PORT}"
    tracer = trace(lab, netctl, server.netns, "--buffer", "1", "--body", "20")
    tracer.send(signal.SIGSTOP)
    client.netns.run("h2load", "-n", "4", "-c", "1", "-m", "2", f"{url}/big", f"{url}/small")
    client.netns.run("curl", "-s", "-o", lab.directory / "out", "--http2-prior-knowledge", "--data-binary",
                     f"@{root}/big", f"{url}/small")  # fmt: skip
    tracer.send(signal.SIGCONT)
    wait_for(tracer, 5)
    transactions, last = finish(tracer)
    assert whole(last) and "not known" not in last, last
    size = 2 << 20
    told = sorted((one["target"], one["request"]["body_bytes"], one["response"]["body_bytes"], one["response"]["body"],
                   one["response"]["end"]) for one in transactions)  # fmt: skip
    assert told == [("/big", 0, size, "0123456789abcdef0123", "complete")] * 2 + [
        ("/small", 0, 6, "small\n", "complete")] * 2 + [("/small", size, 6, "small\n", "complete")]  # fmt: skip


def test_a_body_that_begins_like_http2_hides_nothing(lab, netctl, pair):
    """Nobody but a connection's first bytes says that what follows is frames, of which bodies are not copied."""
    client, server = pair
    log = nginx(lab, server.netns)
    body = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("ffffff000000000001")
    requests = [
        b"GET /hello HTTP/1.1\r\nHost: one\r\n\r\n",
        b"POST /small HTTP/1.1\r\nHost: two\r\nContent-Length: %d\r\n\r\n" % len(body),
        *(b"GET /small?%d HTTP/1.1\r\nHost: more\r\n\r\n" % n for n in range(3)),
    ]
    tracer = trace(lab, netctl, server.netns)
    with client.netns, socket.create_connection((server.ip4, 80), timeout=60) as connection:
        for number, request in enumerate(requests):
            connection.sendall(request)
            if number == 1:
                connection.sendall(body)
            connection.recv(4096)
            until(lambda number=number: len(log()) == number + 1, what="in the log")
    wait_for(tracer, len(requests))
    transactions, last = finish(tracer)
    assert [(one["method"], one["target"]) for one in transactions] == [
        ("GET", "/hello"), ("POST", "/small"), *(("GET", f"/small?{n}") for n in range(3))], last  # fmt: skip


@pytest.mark.kernel
def test_inside_tls_one_to_one(lab, netctl, pair, certificate):  # noqa: F811
    client, server = pair
    log = http2_nginx(lab, server.netns, f"""listen {TLS_PORT} ssl http2;
        ssl_certificate {certificate}; ssl_certificate_key {certificate};""")
    url = f"https://{server.ip4}:{TLS_PORT}"
    count = 200
    tracer = trace(lab, netctl, server.netns, "--tls")
    client.netns.run("h2load", "-n", count, "-c", "2", "-m", "8", f"{url}/small")
    client.netns.run("curl", "-sk", "-o", lab.directory / "out", "--http2", f"{url}/big")
    wait_for(tracer, count + 1)
    transactions, last = finish(tracer)
    until(lambda: len(log()) == count + 1, what="all in the log")
    assert shown(transactions) == logged(log()), last
    assert all(one["tls"] and one["response"]["version"] == "HTTP/2" for one in transactions)
    assert transactions[-1]["response"]["body_bytes"] == 1048576
    assert whole(last) and "hole" not in last and "not known" not in last, last


def test_node_inside_tls(lab, netctl, pair, certificate):  # noqa: F811
    """Whose sockets are not known: it encrypts into memory."""
    client, server = pair
    script = lab.directory / "server.js"
    script.write_text(
        f"""const pem = require('fs').readFileSync('{certificate}');
        require('http2').createSecureServer({{ key: pem, cert: pem }}, (request, response) => {{
            request.resume(); response.setHeader('x-own', 'v'); response.end(request.url);
        }}).listen({TLS_PORT}, '0.0.0.0');"""
    )
    lab.serve(server.netns, "node", script, port=TLS_PORT)
    tracer = trace(lab, netctl, server.netns, "--tls", "--headers")
    urls = lab.directory / "urls"
    urls.write_text("".join(f"https://{server.ip4}:{TLS_PORT}/{n}\n" for n in range(100)))
    client.netns.run("h2load", "-n", "100", "-c", "1", "-m", "8", "-i", urls)
    wait_for(tracer, 100)
    transactions, last = finish(tracer)
    assert sorted(int(one["target"][1:]) for one in transactions) == list(range(100)), last
    for one in transactions:
        assert one["response"]["body_bytes"] == len(one["target"]) and one["status"] == 200
        assert {"name": "x-own", "value": "v"} in one["response"]["headers"]
        assert one["server_process"]["comm"].startswith("node") and one["client"] is None


NODE_CLIENT = """
    const http2 = require('http2');
    const session = http2.connect(process.argv[2], { rejectUnauthorized: false });
    require('readline').createInterface({ input: process.stdin }).on('line', path => {
        const stream = session.request({ ':path': path, 'x-own': 'own ' + path, 'x-same': 'same' });
        stream.resume();
        stream.on('end', () => console.log('done ' + path));
    }).on('close', () => session.close());
"""


@pytest.mark.parametrize("source", (pytest.param("syscall", marks=pytest.mark.kernel), "socket", pytest.param("tls", marks=pytest.mark.kernel)))
def test_connections_older_than_the_tracer(lab, netctl, pair, certificate, source):  # noqa: F811
    client, server = pair
    http2_nginx(lab, server.netns, f"""listen {TLS_PORT} ssl http2;
        ssl_certificate {certificate}; ssl_certificate_key {certificate};""")
    script = lab.directory / "client.js"
    script.write_text(textwrap.dedent(NODE_CLIENT))
    url = f"https://{server.ip4}:{TLS_PORT}" if source == "tls" else f"http://{server.ip4}:{PORT}"
    node = client.netns.start("node", script, url, stdin=subprocess.PIPE)

    def ask(path):
        node.popen.stdin.write(f"{path}\n".encode())
        node.popen.stdin.flush()
        node.expect(f"^done {re.escape(path)}$")

    for n in range(3):
        ask(f"/hello?{n}")
    argv = ["--tls"] if source == "tls" else []
    tracer = trace(lab, netctl, server.netns, "--headers", *argv, source="socket" if source == "socket" else "syscall")
    for n in range(3, 8):
        ask(f"/hello?{n}")
    ask("/no-such")
    wait_for(tracer, 6)
    transactions, last = finish(tracer)
    assert [(one["target"], one["status"], one["stream"]) for one in transactions] == [
        *((f"/hello?{n}", 200, 2 * n + 1) for n in range(3, 8)), ("/no-such", 404, 17)]  # fmt: skip
    assert "2 HTTP/2 header tables not known whole" in last and "1 HTTP/2 connections" in last, last
    for one in transactions:
        # What stood in the table before, as that name does, is not known, and nothing is taken for it.
        fields = {field["value"]: field["name"] for field in one["request"]["headers"]}
        assert fields["own " + one["target"]] in ("x-own", "?") and fields.get("same", "x-same") in ("x-same", "?")
        assert one["host"] in (None, f"{server.ip4}:{TLS_PORT if source == 'tls' else PORT}")
    assert transactions[0]["host"] is None and transactions[0]["request"]["headers_unknown"] > 0


@pytest.mark.parametrize("source", SOURCES)
def test_capture_files(lab, netctl, pair, source):
    client, server = pair
    http2_nginx(lab, server.netns)
    capture = lab.directory / "http2.pcapng"
    tracer = trace(lab, netctl, server.netns, "--write", capture, source=source)
    client.netns.run("h2load", "-n", "40", "-c", "2", "-m", "8", f"http://{server.ip4}:{PORT}/text.txt")
    wait_for(tracer, 40)
    live, _ = finish(tracer)
    har = lab.directory / "http2.har"
    read = netctl("--json", "trace", "http", "--read", capture, "--har", har)
    again = [json.loads(line) for line in read.stdout.splitlines()]
    assert shown(again) == shown(live)
    assert "2 HTTP/2 connections" in read.stderr
    archive = json.loads(har.read_text())
    har_schema.check(archive)
    entries = archive["log"]["entries"]
    assert len(entries) == 40
    assert {one["request"]["httpVersion"] for one in entries} == {one["response"]["httpVersion"] for one in entries} == {"HTTP/2"}
    assert {one["request"]["url"] for one in entries} == {f"http://{server.ip4}:{PORT}/text.txt"}


GRPC_SERVER = """
    import sys, time, concurrent.futures, grpc
    def fine(request, context):
        return request.upper()
    def wrong(request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: " + request.decode())
    def many(request, context):
        for n in range(int(request)):
            yield b"x" * n
        while request == b"3":
            if not context.is_active():
                return
            time.sleep(0.01)
    methods = {"Fine": grpc.unary_unary_rpc_method_handler(fine), "Wrong": grpc.unary_unary_rpc_method_handler(wrong),
               "Many": grpc.unary_stream_rpc_method_handler(many)}
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", methods),))
    server.add_insecure_port(sys.argv[1])
    server.start()
    server.wait_for_termination()
"""
GRPC_CLIENT = """
    import sys, grpc
    with grpc.insecure_channel(sys.argv[1]) as channel:
        assert channel.unary_unary("/shop.Orders/Fine")(b"abc", timeout=60) == b"ABC"
        try:
            channel.unary_unary("/shop.Orders/Wrong")(b"\\xc3\\xa9")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
        assert len(list(channel.unary_stream("/shop.Orders/Many")(b"7"))) == 7
        try:
            channel.unary_unary("/shop.Orders/None")(b"")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED
        call = channel.unary_stream("/shop.Orders/Many")(b"3")
        for _ in range(3):
            next(call)
        print("streams", flush=True)
        sys.stdin.readline()
        call.cancel()
"""


@pytest.mark.parametrize("source", SOURCES)
def test_grpc(lab, netctl, pair, source):
    client, server = pair
    scripts = {}
    for name, text in (("server", GRPC_SERVER), ("client", GRPC_CLIENT)):
        scripts[name] = lab.directory / f"{name}.py"
        scripts[name].write_text(textwrap.dedent(text))
    address = f"{server.ip4}:5000"
    lab.serve(server.netns, PYTHON, scripts["server"], address, port=5000)
    tracer = trace(lab, netctl, server.netns, "--stalled", "1s", source=source)
    failures = trace(lab, netctl, server.netns, "--grpc-status", "!0", source=source)
    caller = client.netns.start(PYTHON, scripts["client"], address, stdin=subprocess.PIPE)
    caller.expect("streams")
    # A call that goes on is told while it does.
    until(lambda: any(one["stalled"] for one in tracer.json_lines()))
    caller.popen.stdin.close()
    assert caller.wait() == 0, caller
    until(lambda: len([one for one in tracer.json_lines() if not one["stalled"]]) == 5)
    until(lambda: len(failures.json_lines()) == 3)
    transactions, last = finish(tracer)
    assert "hole" not in last and "not known" not in last, last
    stalled = next(one for one in transactions if one["stalled"])
    assert stalled["target"] == "/shop.Orders/Many" and stalled["grpc"]["messages_received"] == 3
    told = [one for one in transactions if not one["stalled"]]
    assert [(one["target"].rpartition("/")[2], one["grpc"]["name"], one["grpc"]["messages_sent"], one["grpc"]["messages_received"])
            for one in told] == [("Fine", "OK", 1, 1), ("Wrong", "NOT_FOUND", 1, 0), ("Many", "OK", 1, 7),
                                 ("None", "UNIMPLEMENTED", 1, 0), ("Many", None, 1, 3)]  # fmt: skip
    assert told[0]["grpc"]["deadline_us"] > 1e6 and told[0]["grpc"]["status"] == 0
    assert told[1]["grpc"]["message"] == "no such thing: \u00e9" and told[1]["status"] == 200
    assert told[4]["reset"] == {"by": "client", "code": 8, "name": "CANCEL", "goaway": False}
    transactions, _ = finish(failures)
    assert [one["target"].rpartition("/")[2] for one in transactions] == ["Wrong", "None", "Many"]


def test_words(netctl):
    error = netctl.fails("trace", "http", "--grpc-status", "0,NONE", status=2)
    assert "'NONE' is no status of gRPC" in error and "NOT_FOUND" in error
