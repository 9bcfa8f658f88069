# SPDX-License-Identifier: GPL-2.0-only
"""The files of examples/, applied as they are but for names of interfaces and cgroups, with traffic that shows what they claim."""

import socket
from pathlib import Path

import pytest
from apply_test import write_text
from lab import run, until

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


class Example:
    """A file of examples/ with some words replaced, each of which is in it."""

    def __init__(self, netctl, directory, name, words):
        self.netctl = netctl
        text = (EXAMPLES / name).read_text()
        for word, other in words.items():
            assert word in text, f"{name} has no {word}"
            text = text.replace(word, other)
        self.path = write_text(directory / name, text)

    def apply(self, netns=None):
        self.netctl("check", EXAMPLES / self.path.name)
        self.netctl("apply", self.path, netns=netns)
        assert not self.netctl.json("apply", self.path, netns=netns)["changes"]


class Ports:
    """TCP ports that somebody listens at, and whether one gets there."""

    def __init__(self, end, *numbers, address=None):
        self.address = address or end.ip4
        self.listeners = [end.netns.socket() for _ in numbers]
        for listener, number in zip(self.listeners, numbers, strict=True):
            listener.bind((self.address, number))
            listener.listen(100)

    def reached(self, netns, number, timeout=5.0):
        with netns.socket(socket.AF_INET, socket.SOCK_STREAM) as sender:
            sender.settimeout(timeout)
            try:
                sender.connect((self.address, number))
            except TimeoutError:
                return False
            return True

    def open(self, netns, number):
        until(lambda: self.reached(netns, number))

    def shut(self, netns, number):
        assert not self.reached(netns, number, 0.3)


def test_home_gateway(netctl, link, tmp_path):
    outside, gateway = link
    netns = outside.netns
    words = {"[wan0]": f"[{gateway.name}]", "[lan0]": f"[{gateway.name}]"}
    Example(netctl, tmp_path, "home-gateway.yaml", words).apply(gateway.netns)
    ports = Ports(gateway, 22, 8080)
    ports.open(netns, 22)
    ports.shut(netns, 8080)
    Ports(outside, 8080).open(gateway.netns, 8080)  # from inside; the answer comes in
    outside.netns.ip("address", "add", "10.9.9.9/32", "dev", outside.name)
    gateway.netns.ip("route", "add", "10.9.9.9/32", "dev", gateway.name)
    assert gateway.netns.ping(outside.ip4)
    bogus = netns.run("ping", "-nqc1", "-W1", "-I", "10.9.9.9", gateway.ip4, check=False)
    assert " 0 received" in bogus.stdout
    netctl("set", "add", "grounded", outside.ip4, "--ttl", "28800")
    ports.shut(netns, 22)
    netctl("set", "delete", "grounded", outside.ip4)
    ports.open(netns, 22)


def test_host_firewall(netctl, link, tmp_path):
    outside, host = link
    netns = outside.netns
    Example(netctl, tmp_path, "host-firewall.yaml", {"[eth0]": f"[{host.name}]"}).apply(host.netns)
    ports = Ports(host, 22, 8080)
    ports.open(netns, 22)
    ports.shut(netns, 8080)  # though somebody listens
    Ports(outside, 8080).open(host.netns, 8080)
    assert netns.ping(host.ip4) and netns.ping(host.ip6) and host.netns.ping(outside.ip6)


def test_stateful_gateway(netctl, link, tmp_path):
    outside, gateway = link
    gateway.netns.run("nft", "-f", "-", input="""table inet nat {
        chain hide { type nat hook postrouting priority srcnat; oifname "none" masquerade; }
        chain seen { type filter hook prerouting priority filter; ct state new; }
    }""")
    words = {"[wan0]": f"[{gateway.name}]"}
    Example(netctl, tmp_path, "stateful-gateway.yaml", words).apply(gateway.netns)
    ports = Ports(gateway, 22, 443)
    ports.open(outside.netns, 443)
    ports.shut(outside.netns, 22)
    Ports(outside, 22).open(gateway.netns, 22)  # from inside; the answer comes in
    assert outside.netns.ping(gateway.ip4) and outside.netns.ping(gateway.ip6)


def test_mail_host(netctl, link, tmp_path):
    sender, host = link
    words = {"[eth0]": f"[{host.name}]", "192.0.2.0/28": "198.51.100.0/28"}
    example = Example(netctl, tmp_path, "mail-host.yaml", words)
    example.apply(host.netns)
    ports = Ports(host, 25, 993)
    for number in (25, 993):
        ports.open(sender.netns, number)
    netctl("set", "add", "f2b-postfix", sender.ip4, "--ttl", "600")
    ports.shut(sender.netns, 25)
    ports.open(sender.netns, 993)
    example.apply(host.netns)  # which leaves the ban alone
    ports.shut(sender.netns, 25)
    netctl("set", "add", "own", sender.ip4)
    ports.open(sender.netns, 25)


def test_ci_runner(netctl, link, lab, tmp_path):
    runner, mirror = link
    cgroup = lab.cgroup("builds")
    example = Example(netctl, tmp_path, "ci-runner.yaml", {"/builds.slice": str(cgroup.path)})
    example.apply()
    ports = Ports(mirror, 80, 8080)

    def build_reaches(number):
        words = ("bash", "-c", f"exec 3<>/dev/tcp/{ports.address}/{number}")
        return run(*runner.netns.wrap(words, cgroup), check=False).returncode == 0

    assert not build_reaches(80) and ports.reached(runner.netns, 80)  # the runner itself is free
    netctl("set", "add", "mirrors", mirror.ip4)
    until(lambda: build_reaches(80))
    assert not build_reaches(8080)


@pytest.mark.timeout(300)
def test_sidecar(netctl, link, lab, tmp_path):
    host = link[1]
    cgroup = lab.cgroup("app")
    words = {"/app.slice": f"{cgroup.path}\n  force: all"}  # the self-test is tried elsewhere
    Example(netctl, tmp_path, "sidecar.yaml", words).apply()
    assert netctl.json("redirect", "status")["enabled"]
    proxy = Ports(host, 15001, address="127.0.0.1")
    words = ("bash", "-c", "exec 3<>/dev/tcp/198.51.100.80/80")
    run(*host.netns.wrap(words, cgroup))
    proxy.listeners[0].accept()[0].close()  # it came there
