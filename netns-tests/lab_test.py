# SPDX-License-Identifier: GPL-2.0-only
"""The laboratory itself: what every other test here relies on."""

import os
import socket
from pathlib import Path

import pytest

from lab import BPFFS, bpftool, run, until


def test_host_is_out_of_reach():
    outside = os.environ["NETCTL_HOST_NAMESPACES"].split()
    assert len(outside) == 2
    for kind in ("net", "mnt"):
        assert os.readlink(f"/proc/self/ns/{kind}") not in outside
    assert [name for _, name in socket.if_nameindex() if name != "lo"] == []
    # The kernel itself may put iterators into each new bpffs: progs.debug and maps.debug.
    assert not [path for path in BPFFS.iterdir() if path.suffix != ".debug"]


@pytest.mark.parametrize("family", (4, 6))
def test_ping(pair, family):
    client, server = pair
    assert client.netns.ping(server.ip(family), count=3)
    assert server.netns.ping(client.ip(family))
    assert not client.netns.ping({4: "192.0.2.77", 6: "2001:db8:1::77"}[family], timeout=0.1)


def test_silent_link(pair):
    client, server = pair
    for count, address in enumerate((server.ip4, server.ip6), start=1):
        assert client.netns.ping(address, count=10)
        assert server.counters()["rx"]["packets"] == 10 * count


@pytest.mark.parametrize("server_kind", ("nginx", "http_server"))
@pytest.mark.parametrize("family", (4, 6))
def test_server(lab, pair, server_kind, family):
    client, server = pair
    getattr(lab, server_kind)(server.netns)
    host = {4: server.ip4, 6: f"[{server.ip6}]"}[family]
    assert client.netns.run("curl", "-gsS", f"http://{host}/").stdout == "hello\n"


def test_checksums_in_the_packets(lab):
    client, server = lab.pair(checksums=False)
    with server.netns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as capture:
        capture.bind((server.name, 0x0800))
        capture.settimeout(5)
        with client.netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"x" * 18, (server.ip4, 9))
        frame = capture.recv(2000)
    pseudo = frame[26:34] + bytes((0, 17)) + frame[38:40]
    words = memoryview(pseudo + frame[34:60]).cast("H")
    total = sum(words)
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


def test_namespace_sees_bpffs(lab):
    netns = lab.namespace()
    path = BPFFS / "lab-test"
    netns.run("bpftool", "map", "create", path, "type", "hash", "key", 4, "value", 8,
              "entries", 1, "name", "lab_test")  # fmt: skip
    try:
        assert bpftool("map", "show", "pinned", path)["name"] == "lab_test"
    finally:
        path.unlink()


def test_cgroup_holds_processes(lab):
    group = lab.cgroup()
    netns = lab.namespace()
    process = netns.start("sleep", "60", cgroup=group)
    until(lambda: str(process.pid) in (group.path / "cgroup.procs").read_text().split())
    assert group.run("true").returncode == 0


def test_everything_goes_away(tmp_path):
    from lab import Lab

    with Lab(tmp_path) as lab:
        client, server = lab.pair()
        group = lab.cgroup()
        process = client.netns.start("sleep", "60")
        paths = [client.netns.path, server.netns.path, group.path]
        assert all(path.exists() for path in paths)
    assert not any(path.exists() for path in paths)
    assert not process.alive()
    assert not Path(f"/proc/{process.pid}").exists()


def test_failing_command_shows_its_output():
    with pytest.raises(AssertionError, match="No such file"):
        run("ls", "/nowhere")
