# SPDX-License-Identifier: GPL-2.0-only
"""netctl metrics: the page, by file and by HTTP, against its table (docs/metrics.md) and promtool."""

import fcntl
import http.client
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from commands import Stage
from lab import run, until
from traffic import Filter, bpftool, pins

REPO = Path(__file__).resolve().parent.parent
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse(text):
    """{(name, {labels}): value} of a page, with labels as a frozenset of pairs."""
    samples = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
        pairs = frozenset(LABEL.findall(labels or ""))
        assert (name, pairs) not in samples, line
        samples[name, pairs] = float(value)
    return samples


def values(samples, name, **labels):
    """Values of the samples of a metric that have these labels."""
    return [value for (each, pairs), value in samples.items() if each == name and labels.items() <= dict(pairs).items()]


def value(samples, name, **labels):
    (only,) = values(samples, name, **labels)
    return only


def promtool(*words, **options):
    return run("promtool", *words, timeout=100, **options)


@pytest.fixture
def scrape(netctl, tmp_path):
    """Reads a page by file; `status` is what the command's is to be."""
    path = tmp_path / "netctl.prom"

    def read(*options, status=0):
        done = netctl("metrics", "--textfile", path, "--once", *options, check=False)
        assert done.returncode == status, done
        return parse(path.read_text())

    read.path = path
    return read


@pytest.fixture
def server(netctl, lab):
    """Starts `metrics --listen` with options; returns what asks it: (method, path) -> (status, headers, body)."""

    def start(*options, words=()):
        process = lab.start(*netctl.argv("metrics", "--listen", "127.0.0.1:0", *words, options=options))
        port = int(process.expect(r"^listening: http://127\.0\.0\.1:(\d+)/metrics$", 30)[1])

        def ask(method="GET", path="/metrics", **keywords):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
            try:
                connection.request(method, path, **keywords)
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read().decode()
            finally:
                connection.close()

        ask.port, ask.process = port, process
        return ask

    return start


def table():
    """{name: (type, labels)} of docs/metrics.md."""
    rows = re.findall(r"^\| `(netctl_\w+)` \| (\w+) \| ([^|]*) \|", (REPO / "docs/metrics.md").read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_the_page_is_what_the_table_says(netctl, lab, tmp_path, scrape):
    stage = Stage(netctl, lab, tmp_path, comment='quotes " and \\ and \x1b[31m').build()
    stage.run("tc", "rule", "add", stage.server.name, "ingress", "dport", "98", "limit", "3/s", "pass")
    stage.run("policy", "rule", "add", "dport", "97", "limit", "3/s", "allow")
    stage.run("redirect", "to", "add", "dst", "192.0.2.9", "target", "127.0.0.1:80", "health", "tcp")
    samples = scrape()
    text = scrape.path.read_text()
    promtool("check", "metrics", input=text)
    assert dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)) == {name: kind for name, (kind, _) in table().items()}
    for name, pairs in samples:
        assert {label for label, _ in pairs} == table()[name][1], name
    assert set(values(samples, "netctl_part_up")) == {1}
    face = stage.server.name
    where = {"hook": "xdp", "netns": stage.server.netns.name, "interface": face, "direction": "ingress"}
    assert value(samples, "netctl_point_rules", **where) == 1 and value(samples, "netctl_point_healthy", **where) == 1
    assert value(samples, "netctl_set_elements", set="stage", type="cidr") == 1
    assert value(samples, "netctl_policy_layer_live", layer="cgroup") == 1
    # Strangers' text reaches nobody's terminal through it.
    (info,) = [dict(pairs)["text"] for name, pairs in samples if name == "netctl_policy_rule_info" and "99" in dict(pairs)["text"]]
    assert "quotes" in info and "\x1b" not in text


def test_counters_are_the_kernels_and_do_not_go_back(netctl, link, scrape):
    client, server = link
    filter = Filter(netctl, server, "--mode", "generic")
    rule = filter.add("proto udp dport 9 drop")
    with client.netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def send(count):
            for _ in range(count):
                sender.sendto(b"x", (server.ip4, 9))

        def packets():
            return value(scrape(), "netctl_rule_packets_total", hook="xdp", rule=str(rule))

        assert packets() == 0
        send(5)
        until(lambda: packets() == 5)
        other = filter("rule insert", "proto udp dport 10 drop")["rule_id"]
        assert packets() == 5
        filter("set", "--log-rate", "7")
        send(2)
        until(lambda: packets() == 7)
        samples = scrape()
        assert value(samples, "netctl_point_packets_total", verdict="drop") == 7
        assert value(samples, "netctl_rule_bytes_total", rule=str(rule)) > 7
        filter("rule delete", str(other))
        samples = scrape()
        assert not values(samples, "netctl_rule_packets_total", rule=str(other))
        assert value(samples, "netctl_rule_packets_total", rule=str(rule)) == 7


def test_many_rules_have_no_metrics_of_their_own(netctl, link, scrape):
    _, server = link
    filter = Filter(netctl, server, "--mode", "generic")
    filter.replace("dport 1 drop", "dport 2 drop comment named", "dport 3 drop", "dport 4 drop comment named")
    assert len(values(scrape(), "netctl_rule_packets_total")) == 4
    for most, told in ((4, 4), (3, 2), (1, 1), (0, 0)):
        samples = scrape("--max-rules", most)
        assert len(values(samples, "netctl_rule_packets_total")) == told, most
        assert value(samples, "netctl_point_rules_omitted") == 4 - told
        assert value(samples, "netctl_point_rules") == 4


def test_a_filter_that_is_gone_is_not_healthy(netctl, link, scrape):
    _, server = link
    Filter(netctl, server, "--mode", "generic")
    assert value(scrape(), "netctl_point_healthy") == 1
    server.netns.run("ip", "link", "delete", server.name)
    samples = scrape()
    assert value(samples, "netctl_point_healthy") == 0
    assert value(samples, "netctl_part_up", part="xdp") == 1


def test_what_cannot_be_read_is_told_and_no_zero(netctl, link, scrape):
    _, server = link
    filter = Filter(netctl, server, "--mode", "generic")
    filter.add("dport 9 drop")
    Filter(netctl, server, attach=False)
    netctl("tc", "attach", server.name, "ingress", netns=server.netns)
    # Another layout, as of another version, in the place of the point's settings.
    (entry,) = bpftool("map", "dump", "pinned", pins(filter) / "point")
    size = len(entry["value"])
    bpftool("map", "update", "pinned", pins(filter) / "point", "key", "0", "0", "0", "0", "value", *(["255"] * size))
    samples = scrape(status=4)
    assert value(samples, "netctl_part_up", part="xdp") == 0 and value(samples, "netctl_part_up", part="tc") == 1
    assert value(samples, "netctl_point_healthy", hook="xdp") == 0
    assert not values(samples, "netctl_point_packets_total", hook="xdp")
    assert not values(samples, "netctl_rule_packets_total", hook="xdp")
    assert values(samples, "netctl_point_packets_total", hook="tc")


def test_the_file_is_replaced_whole(netctl, scrape, tmp_path):
    scrape()
    assert scrape.path.stat().st_mode & 0o777 == 0o644
    with scrape.path.open() as reader:
        inode = os.fstat(reader.fileno()).st_ino
        old = scrape.path.read_text()
        netctl("set", "create", "s", "--type", "host")
        samples = scrape()
        assert scrape.path.stat().st_ino != inode and reader.read() == old
    assert value(samples, "netctl_set_elements", set="s") == 0
    assert [file.name for file in tmp_path.iterdir()] == [scrape.path.name]
    before = scrape.path.read_text()
    # What is in the way of the new one leaves nothing.
    (tmp_path / "folder.prom").mkdir()
    (tmp_path / "folder.prom" / "file").touch()
    netctl.fails("metrics", "--textfile", tmp_path / "folder.prom", "--once")
    netctl.fails("metrics", "--textfile", tmp_path / "none" / "x.prom", "--once")
    assert {file.name for file in tmp_path.iterdir()} == {scrape.path.name, "folder.prom"}
    assert scrape.path.read_text() == before


def test_without_once_it_goes_on(netctl, lab, tmp_path):
    path = tmp_path / "netctl.prom"
    writer = netctl.start(lab, "metrics", "--textfile", path, "--interval", "1")
    until(path.exists, 30)
    assert not values(parse(path.read_text()), "netctl_set_max_elements")
    netctl("set", "create", "s", "--type", "host")
    until(lambda: values(parse(path.read_text()), "netctl_set_max_elements", set="s"), 30)
    writer.send(signal.SIGTERM)
    assert writer.wait(30) == 0


def test_http(netctl, server):
    ask = server()
    status, headers, body = ask()
    assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert value(parse(body), "netctl_part_up", part="root") == 1
    netctl("set", "create", "s", "--type", "host")
    assert value(parse(ask(path="/metrics?name=x")[2]), "netctl_set_elements", set="s") == 0
    status, headers, body = ask("HEAD")
    assert status == 200 and int(headers["Content-Length"]) > 0 and body == ""
    assert ask(path="/")[0] == 404
    status, headers, _ = ask("POST", body=b"x" * 100000)
    assert status == 405 and headers["Allow"] == "GET, HEAD"
    assert ask(headers={"X": "x" * 10000})[0] == 431
    with socket.create_connection(("127.0.0.1", ask.port), timeout=100) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    ask.process.send(signal.SIGTERM)
    assert ask.process.wait(30) == 0


def test_slow_clients_keep_nobody_waiting(netctl, link, server):
    """One that asks slowly, one that does not take its response: not the next client, nor a writer."""
    _, end = link
    filter = Filter(netctl, end, "--mode", "generic")
    filter.replace(*(f"dport {port} drop comment {'x' * 100}" for port in range(1, 1001)))
    netctl("set", "create", "s", "--type", "host")
    ask = server()
    with socket.socket() as asks, socket.socket() as takes:
        asks.connect(("127.0.0.1", ask.port))
        asks.sendall(b"GET /metrics HT")
        takes.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        takes.connect(("127.0.0.1", ask.port))
        takes.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert takes.recv(1) == b"H"
        assert len(values(parse(ask()[2]), "netctl_rule_packets_total")) == 1000
        netctl("--lock-timeout", "0", "set", "add", "s", "192.0.2.1")
        asks.sendall(b"TP/1.1\r\n\r\n")
        assert asks.recv(1) == b"H"


def test_a_lock_that_is_not_to_be_had_is_told(netctl, server):
    netctl("set", "create", "s", "--type", "host")
    ask = server("--lock-timeout", "0")
    lock = os.open(netctl.root / "lock", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    status, _, body = ask()
    assert status == 200 and value(parse(body), "netctl_part_up", part="root") == 0
    assert "netctl_set" not in body and value(parse(body), "netctl_scrape_duration_seconds") >= 0
    os.close(lock)
    assert value(parse(ask()[2]), "netctl_part_up", part="root") == 1


def test_what_is_refused(netctl, server, tmp_path):
    file = tmp_path / "x.prom"
    for words in (
        (),
        ("--textfile", file, "--listen", "127.0.0.1:0"),
        ("--textfile", tmp_path / "x.txt", "--once"),
        ("--textfile", file, "--once", "--interval", "3"),
        ("--textfile", file, "--listen-anyway"),
        ("--listen", "127.0.0.1:0", "--once"),
        ("--listen", "9435"),
        ("--listen", ":9435"),
        ("--listen", "127.0.0.1:65536"),
        ("--listen", "127.0.0.1:x"),
        ("--listen", "::1:9435"),
        ("--listen", "[127.0.0.1]:9435"),
    ):
        netctl.fails("metrics", *words, status=2)
    for address in ("0.0.0.0:0", "192.0.2.1:0", "[::]:0", "[::ffff:127.0.0.1]:0"):
        assert "--listen-anyway" in netctl.fails("metrics", "--listen", address, status=2)
    assert not list(tmp_path.glob("x.*"))
    taken = server().port
    assert f":{taken}" in netctl.fails("metrics", "--listen", f"127.0.0.1:{taken}")


def test_told_twice_it_listens_everywhere(netctl, lab):
    for address, at in (("0.0.0.0", r"0\.0\.0\.0"), ("[::1]", r"\[::1\]")):
        process = lab.start(*netctl.argv("metrics", "--listen", f"{address}:0", "--listen-anyway"))
        process.expect(rf"^listening: http://{at}:\d+/metrics$", 30)
        process.stop()


def test_alerts():
    promtool("check", "rules", REPO / "docs/netctl.rules.yml")
    promtool("test", "rules", REPO / "netns-tests/metrics_alerts.yml")
    named = set(re.findall(r"\bnetctl_\w+", re.sub(r"^ *#.*$", "", (REPO / "docs/netctl.rules.yml").read_text(), flags=re.MULTILINE)))
    assert named and named <= table().keys(), named - table().keys()
