# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace tls: handshakes of OpenSSL and of Python's ssl, against what both ends say of them."""

import json
import re
import signal
import socket
import ssl
import subprocess
import textwrap

import pytest

from lab import run, until
from trace_tls_test import certificate  # noqa: F401: a fixture

PYTHON = "/usr/bin/python3"
PORT = 4433


def trace(lab, netctl, netns, *argv):
    """Starts it for the sockets of `netns` only, and waits until it traces."""
    tracer = netctl.start(lab, "trace", "tls", *argv, netns=netns)
    tracer.expect("^netctl: tracing", timeout=60)
    return tracer


def shown(tracer):
    return [one for one in tracer.json_lines() if one["event"] == "handshake"]


def wait_for(tracer, count):
    return until(lambda: shown(tracer)[:count] if len(shown(tracer)) >= count else None, 60, f"{count} handshakes")


def finish(tracer):
    """Ends it as a user does; returns the handshakes and the last object, which counts."""
    assert tracer.stop(signal.SIGINT, timeout=60) == 0, str(tracer)
    lines = tracer.json_lines()
    assert lines[-1]["event"] == "end" and lines[-1]["shown"] == len(lines) - 1, str(tracer)
    assert lines[-1].get("lost", 0) == 0
    return lines[:-1], lines[-1]


def serve(lab, netns, certificate, *argv):  # noqa: F811
    return lab.serve(netns, "openssl", "s_server", "-quiet", "-accept", PORT, "-cert", certificate, *argv, port=PORT)


CLIENT = """
    import socket, ssl, sys, json
    given = json.loads(sys.argv[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if given.get("verify") else ssl.CERT_NONE
    for end in ("minimum_version", "maximum_version"):
        setattr(context, end, getattr(ssl.TLSVersion, given["version"]))
    if "alpn" in given:
        context.set_alpn_protocols(given["alpn"])
    if "ciphers" in given:
        context.set_ciphers(given["ciphers"])
    session = None
    for _ in range(given.get("times", 1)):
        with socket.create_connection((given["host"], given["port"])) as plain:
            try:
                with context.wrap_socket(plain, server_hostname=given.get("name"), session=session) as one:
                    one.sendall(b"ask\\n")
                    one.recv(100)
                    session = one.session
                    print(json.dumps({"version": one.version(), "cipher": one.cipher()[0], "alpn": one.selected_alpn_protocol(),
                                      "resumed": one.session_reused, "port": one.getsockname()[1]}), flush=True)
            except (ssl.SSLError, ConnectionError) as error:
                print(json.dumps({"error": str(error)}), flush=True)
"""

# Answers each line by itself, and tells what it agreed upon.
SERVER = """
    import socket, ssl, sys, json
    given = json.loads(sys.argv[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given["certificate"])
    if "alpn" in given:
        context.set_alpn_protocols(given["alpn"])
    if "ciphers" in given:
        context.set_ciphers(given["ciphers"])
    if "maximum" in given:
        context.maximum_version = getattr(ssl.TLSVersion, given["maximum"])
    listener = socket.create_server(("", given["port"]))
    print("ready", flush=True)
    while True:
        plain, _ = listener.accept()
        try:
            with context.wrap_socket(plain, server_side=True) as one:
                one.sendall(one.recv(100))
                one.recv(1)
        except (ssl.SSLError, OSError):
            plain.close()
"""


def python(source, **given):
    return PYTHON, "-c", textwrap.dedent(source), json.dumps(given)


def ask(netns, host, **given):
    """What the client says of each of its connections."""
    done = netns.run(*python(CLIENT, host=host, port=PORT, **given), timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def python_server(lab, netns, certificate, **given):  # noqa: F811
    server = netns.start(*python(SERVER, certificate=str(certificate), port=PORT, **given))
    server.expect("^ready$", timeout=60)
    return server


def named(cipher):
    """A cipher's name of IANA's registry by that of OpenSSL."""
    return run("openssl", "ciphers", "-s", "-tls1_2", "-stdname", cipher).stdout.split()[0] if not cipher.startswith("TLS_") else cipher


@pytest.mark.kernel
def test_what_both_ends_agreed_upon(lab, netctl, pair, certificate):  # noqa: F811
    client, server = pair
    python_server(lab, server.netns, certificate, alpn=["h2", "http/1.1"])
    here, there = trace(lab, netctl, client.netns), trace(lab, netctl, server.netns)
    said = []
    for version in ("TLSv1_3", "TLSv1_2"):
        said += ask(client.netns, server.ip4, version=version, alpn=["x", "http/1.1"], name="some.example", times=2)
    for tracer, role, comm in ((here, "client", "python3"), (there, "server", "python3")):
        wait_for(tracer, 4)
        events, last = finish(tracer)
        assert len(events) == 4 and last["not_decoded"] == {"dtls": [], "quic": []}
        for one, truth in zip(events, said, strict=True):
            assert one["result"] == "done" and one["role"] == role and one["process"]["comm"].startswith(comm)
            assert one["version"] == truth["version"].replace("v", " ") and one["cipher"] == named(truth["cipher"])
            assert one["server_name"] == "some.example" and one["alpn_offered"] == ["x", "http/1.1"]
            # The server of TLS 1.3 says it encrypted.
            assert one["alpn"] == (None if truth["version"] == "TLSv1.3" else truth["alpn"] == "http/1.1" and "http/1.1")
            assert one["resumed"] is truth["resumed"]
            assert one["client"] == {"address": client.ip4, "port": truth["port"]}
            assert one["server"] == {"address": server.ip4, "port": PORT}
            assert one["duration_us"] > 0 and not one["bytes_missing"] and one["alert"] is one["closed_by"] is None
        assert [one["resumed"] for one in events] == [False, True, False, True]


@pytest.mark.kernel
def test_who_gives_up_and_why(lab, netctl, pair, certificate):  # noqa: F811
    client, server = pair
    python_server(lab, server.netns, certificate, ciphers="ECDHE-RSA-AES256-GCM-SHA384", maximum="TLSv1_2")
    tracer = trace(lab, netctl, server.netns, "--failed")
    ask(client.netns, server.ip4, version="TLSv1_2")  # which does not fail
    for given in ({"version": "TLSv1_3"}, {"version": "TLSv1_2", "ciphers": "ECDHE-RSA-AES128-GCM-SHA256"},
                  {"version": "TLSv1_2", "verify": True}):  # fmt: skip
        assert "error" in ask(client.netns, server.ip4, **given)[0]
    with client.netns, socket.create_connection((server.ip4, PORT), timeout=60) as plain:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing, server_hostname="gone.example").do_handshake()
        plain.sendall(outgoing.read())
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(65536):
            pass
    wait_for(tracer, 4)
    events, _ = finish(tracer)
    assert [(one["result"], one["alert"] and (one["alert"]["by"], one["alert"]["name"]), one["closed_by"]) for one in events] == [
        ("alert", ("server", "protocol_version"), None),
        ("alert", ("server", "handshake_failure"), None),
        ("alert", ("client", "unknown_ca"), None),
        ("closed", None, "client"),
    ]  # fmt: skip
    assert events[0]["version"] is None and events[0]["offered_version"] == "TLS 1.3"
    assert events[3]["server_name"] == "gone.example"


@pytest.mark.kernel
def test_a_certificate_is_refused(lab, netctl, pair, certificate):  # noqa: F811
    """By a client that closes with the server's bytes unread: its reset comes behind the alert, which is read all the same."""
    client, server = pair
    serve(lab, server.netns, certificate)
    tracer = trace(lab, netctl, server.netns)
    assert "verify failed" in ask(client.netns, server.ip4, version="TLSv1_3", verify=True)[0]["error"]
    (one,) = wait_for(tracer, 1)
    assert one["result"] == "alert" and one["alert"] == {"by": "client", "code": 48, "name": "unknown_ca"}


def test_another_hello_is_asked_for(lab, netctl, pair, certificate):  # noqa: F811
    """By a server that takes another group than the client's first."""
    client, server = pair
    serve(lab, server.netns, certificate, "-groups", "P-384")
    tracer = trace(lab, netctl, server.netns)
    client.netns.run("openssl", "s_client", "-connect", f"{server.ip4}:{PORT}", "-groups", "X25519:P-384", "-servername", "a.example",
                     stdin=subprocess.DEVNULL, timeout=60)  # fmt: skip
    (one,) = wait_for(tracer, 1)
    assert one["result"] == "done" and one["hello_retried"] is True and one["server_name"] == "a.example"
    assert one["version"] == "TLS 1.3" and one["resumed"] is False


def test_long_hello_in_pieces_behind_another_protocol(lab, netctl, pair, certificate):  # noqa: F811
    """A ClientHello of several records and segments, sent as STARTTLS is."""
    client, server = pair
    wanted = [f"protocol-{n:03}" for n in range(1500)]
    script = """
        import socket, ssl, sys
        listener = socket.create_server(("", int(sys.argv[2])))
        print("ready", flush=True)
        plain, _ = listener.accept()
        plain.sendall(b"220 here\\r\\n")
        assert plain.recv(100).startswith(b"STARTTLS")
        plain.sendall(b"220 go ahead\\r\\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
        with context.wrap_socket(plain, server_side=True) as one:
            one.sendall(one.recv(100))
            one.recv(1)
    """
    process = server.netns.start(PYTHON, "-c", textwrap.dedent(script), certificate, PORT)
    process.expect("^ready$", timeout=60)
    tracer = trace(lab, netctl, server.netns)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(wanted)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = context.wrap_bio(incoming, outgoing, server_hostname="long.example")
    with client.netns, socket.create_connection((server.ip4, PORT), timeout=60) as plain:
        assert plain.recv(100).startswith(b"220")
        plain.sendall(b"STARTTLS\r\n")
        assert plain.recv(100).startswith(b"220")
        while True:
            try:
                one.do_handshake()
                break
            except ssl.SSLWantReadError:
                hello = outgoing.read()
                for at in range(0, len(hello), 700):
                    plain.sendall(hello[at : at + 700])
                incoming.write(plain.recv(65536))
        one.write(b"ask\n")
        plain.sendall(outgoing.read())
        plain.recv(100)
    (event,) = wait_for(tracer, 1)
    assert event["result"] == "done" and event["server_name"] == "long.example" and event["alpn_offered"] == wanted


def test_what_is_not_decoded_is_told(lab, netctl, pair, certificate):  # noqa: F811
    client, server = pair
    server.netns.start("openssl", "s_server", "-dtls", "-quiet", "-accept", PORT, "-cert", certificate)
    tracer = trace(lab, netctl, client.netns)
    secure = client.netns.start("openssl", "s_client", "-dtls", "-connect", f"{server.ip4}:{PORT}", stdin=subprocess.PIPE)
    secure.expect("Verify return code", timeout=60)
    initial = b"\xc3\x00\x00\x00\x01" + bytes(1195)
    with server.netns:
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind(("", 443))
    with client.netns, sink, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((server.ip4, 443))
        for _ in range(3):
            one.send(initial)
        one.send(b"\x43" + initial[1:])
    _, last = finish(tracer)
    assert last["not_decoded"]["dtls"] == [{"comm": "openssl", "connections": 1}]
    ((name, count),) = [one.values() for one in last["not_decoded"]["quic"]]
    assert name and count == 1
    assert re.search(r"not decoded: 1 of DTLS \(openssl 1\), 1 of QUIC \(.* 1\)", tracer.stderr), str(tracer)


def test_selection_and_text(lab, netctl, pair, certificate):  # noqa: F811
    client, server = pair
    serve(lab, server.netns, certificate)
    tracer = netctl.start(lab, "trace", "tls", "--comm", "s_client", "--port", PORT, netns=client.netns, json=False)
    other = netctl.start(lab, "trace", "tls", "--dst", "192.0.2.1", "--count", "1", netns=client.netns)
    for one in (tracer, other):
        one.expect("^netctl: tracing", timeout=60)
    link = lab.directory / "s_client"
    link.symlink_to("/usr/bin/openssl")
    for program in (link, "openssl"):
        client.netns.run(program, *(() if program == link else ("s_client",)), "-connect", f"{server.ip4}:{PORT}", "-tls1_2",
                         stdin=subprocess.DEVNULL, timeout=60)  # fmt: skip
    until(lambda: len(tracer.stdout.splitlines()) >= 2, 60, "a line")
    assert tracer.stop(signal.SIGINT, timeout=60) == other.stop(signal.SIGINT, timeout=60) == 0
    head, *lines = tracer.stdout.splitlines()
    assert head.split() == ["TIME", "PROCESS", "CLIENT", "SERVER", "TOOK", "VERSION", "CIPHER", "NAME", "PROTOCOL", "RESULT"]
    (line,) = lines
    assert re.fullmatch(rf"\S+ +s_client\[\d+\] +{client.ip4}:\d+ +{server.ip4}:{PORT} +\S+ms +TLS 1\.2 +TLS_ECDHE_RSA_\S+ +- +- +ok", line)
    assert shown(other) == []


def test_capture_files_against_tshark(lab, netctl, pair, certificate):  # noqa: F811
    client, server = pair
    python_server(lab, server.netns, certificate, alpn=["http/1.1"])
    capture = lab.directory / "tls.pcap"
    dump = server.netns.start("tcpdump", "-i", server.name, "-U", "-w", capture)
    dump.expect("listening on", timeout=60)
    said = []
    for version in ("TLSv1_3", "TLSv1_2"):
        said += ask(client.netns, server.ip4, version=version, alpn=["http/1.1"], name=f"{version}.example".replace("_", "-"), times=2)
    said += ask(client.netns, server.ip4, version="TLSv1_2", verify=True)
    fields = "tls.handshake.type tcp.srcport tls.handshake.ciphersuite tls.handshake.extensions_server_name tls.alert_message.desc".split()

    def truth():
        done = run("tshark", "-r", capture, "-d", f"tcp.port=={PORT},tls", "-Y", "tls.handshake.type==1 || tls.handshake.type==2 || tls.alert_message.desc",
                   "-T", "fields", *(word for name in fields for word in ("-e", name)), "-E", "occurrence=a", timeout=60)  # fmt: skip
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        assert len([row for row in rows if row[0].startswith("2")]) == 5 and rows[-1][4], rows
        return rows

    rows = until(truth, 60, "all captured")
    # Behind the alert are only ends.
    assert dump.stop(signal.SIGINT, timeout=60) == 0
    done = netctl("--json", "trace", "tls", "--read", capture)
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last["shown"] == 5 and last["missing_bytes"] == 0
    hellos = [row for row in rows if row[0] == "1"]
    assert [(one["server_name"], one["client"]["port"]) for one in events] == [(row[3] or None, int(row[1])) for row in hellos]
    answers = [row for row in rows if row[0].startswith("2")]
    numbers = {name: int(number, 16) for number, name in re.findall(
        r"0x(\w\w,0x\w\w) - (\S+)", run("openssl", "ciphers", "-V", "-stdname").stdout.replace(",0x", ",0x")) for number in [number.replace(",0x", "")]}  # fmt: skip
    assert [numbers[one["cipher"]] for one in events] == [int(row[2].split(",")[0], 0) for row in answers]
    assert [one["resumed"] for one in events] == [*(one["resumed"] for one in said[:4]), False]
    assert events[4]["alert"]["by"] == "client" and str(events[4]["alert"]["code"]) == rows[-1][4]
    assert all(one["process"] is None and one["role"] is None for one in events)
    only = netctl("--json", "trace", "tls", "--read", capture, "--failed", "--count", "1")
    assert [json.loads(line).get("result") for line in only.stdout.splitlines()] == ["alert", None]
    assert netctl("trace", "tls", "--read", capture, "--pid", "1", check=False).returncode == 2
