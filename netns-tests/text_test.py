# SPDX-License-Identifier: GPL-2.0-only
"""What netctl prints, over all of its commands: strangers' text is shown and never obeyed (I12), a write that
fails is an error (I13), JSON has one form, and the exit status tells the truth."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from commands import Stage, leaves
from lab import IN_VM, Cgroup, Namespace, bpftool, run, until
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

# Names that a terminal would obey, or that would be more than one word or line where names belong.
HOSTILE = "\x1b]0;owned\x07\x1b[2J"
LINE = "x\nallow"
NAMES = ['a"b', "a\nb", "a b", "a\\b", "a\\x41", "a#b", "a{b,c}", HOSTILE, "\u009b2J", "\u202etxt", "@set", "ä名"]


def raw(text):
    """What of a text a terminal would obey: controls (line feeds aside), direction marks, bytes that are no UTF-8."""
    text = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
    return re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", text)


@pytest.fixture
def stage(netctl, lab, tmp_path):
    return Stage(netctl, lab, tmp_path).build()


def test_every_command_is_on_stage(netctl, stage):
    assert {leaf for leaf, _ in stage.commands()} == set(leaves(netctl))


# ---- A3: a write that fails ----


def full(argv):
    with open("/dev/full", "wb") as out:
        return subprocess.run([str(word) for word in argv], stdout=out, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, text=True, timeout=120)  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_output_that_is_not_written_is_an_error(stage, options):
    prints = 0
    for leaf, words in stage.commands():
        if words is None:
            continue
        done = full(stage.argv((*leaf, *words), *options))
        # Commands that print nothing have nothing to lose: they say so by ending well.
        if done.returncode == 0:
            again = run(*stage.argv((*leaf, *words), *options), check=False).stdout
            assert not again, f"{leaf} has text to print, and ended well on a full disk"
            continue
        prints += 1
        assert done.returncode == 1, (leaf, done)
        assert "cannot write to standard output: No space left on device" in done.stderr, (leaf, done)
    assert prints > 20


def test_long_output_that_is_not_written_is_an_error(stage):
    """Beyond the buffer of stdio the first writes fail long before the end."""
    face = stage.server.name
    stage.run("xdp", "rule", "replace", face, input="".join(f"dport {n} drop\n" for n in range(1, 2000)))
    stage.run("set", "import", "stage", input="".join(f"10.{n >> 8}.{n & 255}.1\n" for n in range(5000)))
    for words in (("xdp", "rule", "list", face), ("xdp", "status", face), ("set", "list", "stage")):
        for options in ((), ("--json",)):
            done = full(stage.argv(words, *options))
            assert done.returncode == 1 and "No space left on device" in done.stderr, (words, done)


def test_help_that_is_not_written_is_an_error(netctl):
    for leaf in leaves(netctl):
        assert full([netctl.binary, *leaf, "--help"]).returncode == 1, leaf
    assert full([netctl.binary, "--version"]).returncode == 1


def test_a_reader_that_has_seen_enough_ends_a_stream_well(stage):
    """head closes the pipe, and whoever runs the command may have told it to ignore SIGPIPE."""
    def ignore():
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(stage.argv(("trace", "http", "--read", str(stage.capture))), stdout=writer,
                          stderr=subprocess.PIPE, text=True, preexec_fn=ignore)  # fmt: skip
    os.close(writer)
    assert done.returncode == 0 and "cannot write" not in done.stderr, done


# ---- JSON ----

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def keys_of(value):
    """What is checked to be the same whatever the state: the names of a document's members."""
    if isinstance(value, dict):
        return {name: keys_of(one) for name, one in value.items()}
    if isinstance(value, list):
        return [keys_of(value[0])] if value else []
    return None


def members(value, path=""):
    """(name, value, path) of all members of a document, however deep."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield name, one, f"{path}.{name}"
            yield from members(one, f"{path}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from members(one, f"{path}[]")


def documents(text):
    try:
        return [json.loads(text)] if text.strip() else []
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


# Tables whose members are named after what is counted, in the words that netctl has for it elsewhere.
COUNTED = {"unparsed", "on_tcp", "verdicts"}


def check_convention(document, leaf):
    for name, value, path in members(document):
        if path.rsplit(".", 2)[-2].removesuffix("[]") in COUNTED:
            assert isinstance(value, int), (leaf, path)
            continue
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name), (leaf, path)
        if name == "time":
            assert TIME.fullmatch(value), (leaf, path, value)
        if name in ("rule_id", "generation", "packets", "bytes", "rule_count", "program_id"):
            assert value is None or (isinstance(value, int) and not isinstance(value, bool)), (leaf, path)
        if name == "rule_text":
            assert value is None or isinstance(value, str), (leaf, path)
        if name == "rules":
            assert isinstance(value, (list, int)), (leaf, path)
        assert name not in ("rule", "id") or path.endswith((".tcx[].id",)), (leaf, path, "rule_id and rule_text")
        if isinstance(value, str):
            assert not re.fullmatch(r"\d+(\.\d+)?", value), (leaf, path, value, "a number as text")


def test_json_follows_the_convention(stage):
    checked = 0
    for leaf, words in stage.commands():
        if words is None:
            continue
        done = run(*stage.argv((*leaf, *words), "--json"))
        assert not raw(done.stdout)
        for document in documents(done.stdout):
            check_convention(document, leaf)
            checked += 1
    assert checked > 20


def test_json_has_the_same_members_with_and_without_traffic(stage):
    """Of rules, events, elements and points: what there is not is null, 0 or empty."""
    face = stage.server.name
    rules = ["dport 7 drop", "src 192.0.2.0/24 dport 9 pass limit 5/s burst 5 log comment \"x\""]
    stage.run("xdp", "rule", "replace", face, input="\n".join(rules))
    (one, other) = json.loads(run(*stage.argv(("xdp", "rule", "list", face), "--json")).stdout)
    assert keys_of(one) == keys_of(other)
    stage.run("set", "add", "stage", "198.51.100.0/24")
    elements = json.loads(run(*stage.argv(("set", "list", "stage"), "--json")).stdout)
    assert len(elements) == 2 and keys_of(elements[0]) == keys_of(elements[1])
    told = documents(run(*stage.argv(("xdp", "simulate", face, str(stage.capture)), "--json")).stdout)
    assert len(told) == 5 and all(keys_of(line) == keys_of(told[0]) for line in told)
    judged = [json.loads(run(*stage.argv(("policy", "test", address, "80", "tcp"), "--json"), check=False).stdout)
              for address in ("192.0.2.99", "192.0.2.1")]  # fmt: skip
    assert judged[0]["rule_id"] and judged[1]["rule_id"] is None
    assert keys_of(judged[0]) == keys_of(judged[1])
    points = json.loads(run(*stage.argv(("tc", "status"), "--json")).stdout)
    # Of lists the first member is compared, and a point without rules has none.
    same = [{key for key in point} for point in points]
    assert len(same) == 2 and same[0] == same[1]


def test_what_is_off_says_so(netctl, lab):
    for feature in ("policy", "redirect"):
        assert netctl.json(feature, "status") == {"enabled": False}
    for words in (("xdp", "status"), ("tc", "status"), ("set", "list")):
        assert netctl.json(*words) == []


# ---- exit statuses ----


def test_the_exit_status_tells_yes_no_and_unknown(netctl, stage):
    face, netns = stage.server.name, stage.server.netns

    def status(*words, **options):
        return netctl(*words, netns=netns if words[0] != "policy" else None, check=False, **options).returncode

    assert status("set", "test", "stage", "192.0.2.1") == 0
    assert status("set", "test", "stage", "203.0.113.1") == 1
    assert status("set", "test", "nosuch", "192.0.2.1") == 4
    assert status("set", "test", "stage", "no-address") == 2
    assert status("set", "test", "stage") == 2

    stage.run("policy", "enable", "--mode", "enforce")
    assert status("policy", "test", "192.0.2.1", "80", "tcp") == 0
    assert status("policy", "test", "192.0.2.99", "80", "tcp") == 1
    assert status("policy", "test", "192.0.2.99", "no-port", "tcp") == 2
    stage.run("policy", "enable", "--mode", "audit")
    assert status("policy", "test", "192.0.2.99", "80", "tcp") == 0  # it would be let through
    stage.run("policy", "disable")
    assert status("policy", "test", "192.0.2.1", "80", "tcp") == 4

    assert status("xdp", "simulate", face, stage.capture, "--expect", "pass") == 0
    assert status("xdp", "simulate", face, stage.capture, "--expect", "drop") == 1
    assert status("xdp", "simulate", face, stage.capture, "--expect", "dorp") == 2
    assert status("xdp", "simulate", face, "/no/such/file", "--expect", "pass") == 4
    assert status("xdp", "simulate", "nosuch", stage.capture, "--expect", "pass") == 4
    assert status("tc", "simulate", face, "ingress", stage.capture, "--expect", "next", "--summary") == 0
    assert status("tc", "simulate", face, "ingress", stage.capture, "--expect", "drop", "--summary") == 1
    assert status("xdp", "simulate", face, "/no/such/file") == 1

    nobody = ("setpriv", "--reuid", "65534", "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all")
    done = run(*nobody, *netctl.argv("set", "test", "stage", "192.0.2.1"), check=False)
    assert done.returncode == 4, done


def test_what_is_missing_has_the_same_status_in_every_command(netctl, stage):
    for words in (("policy", "rule", "add", "cgroup /no/such deny"),
                  ("redirect", "rule", "add", "cgroup", "/no/such"),
                  ("trace", "http", "--cgroup", "/no/such"),
                  ("xdp", "attach", "nosuch0"), ("tc", "attach", "nosuch0", "ingress"),
                  ("trace", "http", "--interface", "nosuch0"),
                  ("set", "add", "nosuch", "192.0.2.1")):  # fmt: skip
        netns = None if words[0] == "policy" else stage.server.netns
        done = netctl(*words, netns=netns, check=False)
        assert done.returncode == 1, (words, done)


def test_nothing_replaces_what_is_there_unless_it_is_told_to(stage, tmp_path):
    """What comes of a download that failed: no input, or nothing in it, in every command that replaces."""
    face = stage.server.name
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n\n")
    places = {  # what replaces: where, and what else; what lists it; what comes to be there before
        ("xdp", "rule", "replace"): ((face,), (), ("xdp", "rule", "list", face), ("xdp", "rule", "add", face, "dport 7 drop")),
        ("tc", "rule", "replace"): ((face, "ingress"), (), ("tc", "rule", "list", face, "ingress"),
                                    ("tc", "rule", "add", face, "ingress", "dport 7 drop")),
        ("policy", "rule", "replace"): ((), (), ("policy", "rule", "list"), ("policy", "rule", "add", "dst 192.0.2.9 deny")),
        ("set", "import"): (("kept",), ("--replace",), ("set", "list", "kept"), ("set", "add", "kept", "192.0.2.9")),
    }  # fmt: skip
    assert {leaf for leaf in leaves(stage.netctl) if "--allow-empty" in stage.netctl(*leaf, "--help").stdout} == set(places)
    stage.run("set", "create", "kept", "--type", "host")
    for leaf, (where, options, lists, add) in places.items():
        stage.run(*add)
        before = stage.run(*lists).stdout
        assert before
        for source in (empty, "/dev/null"):
            done = run(*stage.argv((*leaf, *where, str(source), *options)), check=False)
            assert done.returncode == 2 and "--allow-empty" in done.stderr, (leaf, source, done)
        done = run(*stage.argv((*leaf, *where, *options)), check=False, input="")
        assert done.returncode == 2 and "--allow-empty" in done.stderr, (leaf, done)
        assert stage.run(*lists).stdout == before, leaf
        stage.run(*leaf, *where, str(empty), *options, "--allow-empty")
        assert json.loads(run(*stage.argv(lists, "--json")).stdout) == [], leaf


def test_a_capture_of_another_link_type_has_the_same_status_in_every_command(netctl, stage, tmp_path):
    header = bytes.fromhex("d4c3b2a1 0200 0400 00000000 00000000 ffff0000")
    capture = tmp_path / "wifi.pcap"
    capture.write_bytes(header + (105).to_bytes(4, "little"))  # IEEE 802.11
    face, netns = stage.server.name, stage.server.netns
    for words in (("xdp", "simulate", face, capture), ("tc", "simulate", face, "ingress", capture),
                  ("trace", "http", "--read", capture)):  # fmt: skip
        assert "802_11" in netctl.fails(*words, netns=netns)


# ---- A2, F12: strangers' text ----

TALKER = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* talker PORT NAME: as user nobody, under that name, connects to PORT of 127.0.0.1 and tells whether it could;
 * again for each line of standard input. */
int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	char line[64];

	if (argc != 3 || setuid(65534) || prctl(PR_SET_NAME, argv[2]))
		return 1;
	do {
		int s = socket(AF_INET, SOCK_STREAM, 0);

		puts(connect(s, (struct sockaddr *)&to, sizeof to) ? "refused" : "connected");
		fflush(stdout);
		close(s);
	} while (fgets(line, sizeof line, stdin));
	return 0;
}
"""


@pytest.fixture(scope="session")
def talker(tmp_path_factory):
    directory = tmp_path_factory.mktemp("talker")
    for parent in (directory, *directory.parents):
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    source = directory / "talker.c"
    source.write_text(TALKER)
    built = directory / "talker"
    run("gcc", "-O1", "-o", built, source)
    return built


class Talker:
    """A process in a cgroup that connects at once, and again when it is asked to."""

    def __init__(self, talker, group, path, port, comm):
        path.write_bytes(talker.read_bytes())
        path.chmod(0o755)
        self.path = path
        self.process = subprocess.Popen(group.wrap([path, str(port), comm]), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.first = self.process.stdout.readline().strip()

    def again(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.communicate()


def test_learnt_rules_mean_what_was_seen_whatever_it_is_called(netctl, lab, talker, tmp_path):
    cgroup = lab.cgroup("policy")
    netctl("policy", "enable", "--cgroup", cgroup.path, "--layer", "cgroup", "--default", "deny",
           "--mode", "audit")  # fmt: skip
    directory = tmp_path / "exes"
    directory.mkdir()
    names = [*NAMES, os.fsdecode(b"a\xff\xfeb")]
    talkers = []
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:
        port = server.getsockname()[1]
        for name in names:
            talkers.append(Talker(talker, cgroup, directory / name, port, LINE))
            stack.callback(talkers[-1].close)
            assert talkers[-1].first == "connected", name
        text = netctl("policy", "learn").stdout
        assert not raw(text), text
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert len(lines) == len(names) and all(line.startswith("dst 127.0.0.1 ") for line in lines), text
        learnt = tmp_path / "learnt"
        learnt.write_text(text)
        netctl("policy", "rule", "replace", learnt)
        assert not raw(netctl("policy", "rule", "list").stdout)
        assert [rule["rule_text"] for rule in netctl.json("policy", "rule", "list")] == lines
        netctl("policy", "enable", "--mode", "enforce")
        for one in talkers:
            assert one.again() == "connected", one.path
        other = Talker(talker, cgroup, directory / "other", port, LINE)
        stack.callback(other.close)
        assert other.first == "refused"


@pytest.fixture
def hostile_namespace(lab):
    """A network namespace and an interface whose names a terminal would obey."""
    name = f"n\x1b[7m\u009b{lab._tag}"
    made = Namespace(lab, name)
    yield made
    made.close()


def hostile_capture(path):
    ends, back = {"src": "192.0.2.1", "dst": "192.0.2.2"}, {"src": "192.0.2.2", "dst": "192.0.2.1"}
    text = f"{HOSTILE}\u009b\u202e".encode() + b"\xff\x9b"
    request = b"GET /" + text + b" HTTP/1.1\r\nHost: h" + text + b"\r\nX-" + b"A: " + text + b"\r\n\r\n"
    answer = b"HTTP/1.1 200 " + text + b"\r\nContent-Type: " + text + b"\r\nContent-Length: 20\r\n\r\n" + text[:20].ljust(20)
    wrpcap(str(path), [
        Ether() / IP(**ends) / TCP(sport=4000, dport=80, flags="S", seq=99),
        Ether() / IP(**back) / TCP(sport=80, dport=4000, flags="SA", seq=499, ack=100),
        Ether() / IP(**ends) / TCP(sport=4000, dport=80, flags="PA", seq=100, ack=500) / request,
        Ether() / IP(**back) / TCP(sport=80, dport=4000, flags="PA", seq=500, ack=100 + len(request)) / answer,
    ])  # fmt: skip


def test_no_command_prints_strangers_text_raw(netctl, lab, stage, talker, hostile_namespace, tmp_path):
    face, peer = "e\x1b[7m", "p\u009b"
    run("ip", "link", "add", face, "netns", stage.server.netns, "type", "veth", "peer", peer,
        "netns", hostile_namespace.name)  # fmt: skip
    stage.server.netns.ip("link", "set", "dev", face, "alias", HOSTILE, "up")
    inner = Cgroup.__new__(Cgroup)
    inner.path = stage.cgroup.path / f"g{HOSTILE}"  # the kernel takes no line feed here
    inner.path.mkdir()
    outside = []

    def shows(*words, netns=stage.server.netns, statuses=(0,), **options):
        for more in ((), ("--json",), ("-v",)):
            argv = netctl.argv(*map(str, words), netns=None if words[0] == "policy" else netns, options=more)
            done = subprocess.run(argv, capture_output=True, timeout=60, stdin=subprocess.DEVNULL, **options)
            assert done.returncode in statuses, (words, done)
            for stream in (done.stdout, done.stderr):
                assert not raw(stream), (words, stream)
                assert not re.search(rb"^(allow$|owned)", stream, re.MULTILINE), (words, stream)
            outside.append(done.stdout + done.stderr)

    # Interfaces, comments, and what is stored of them.
    comment = f"{HOSTILE}\u202e"
    for hook, at in (("xdp", (face,)), ("tc", (face, "ingress"))):
        shows(hook, "attach", *at, statuses=(0, 1))
        stage.run(hook, "rule", "add", *at, "dport", "7", "drop", "log", "comment", comment)
        for verb in (("status",), ("status", *at), ("rule", "list", *at), ("simulate", *at, stage.capture),
                     ("simulate", *at, stage.capture, "--summary")):  # fmt: skip
            shows(hook, *verb)
        before = netctl(hook, "rule", "list", *at, netns=stage.server.netns).stdout
        rules = netctl.json(hook, "rule", "list", *at, netns=stage.server.netns)
        stage.run(hook, "rule", "replace", *at, input="\n".join(rule["rule_text"] for rule in rules))
        assert netctl(hook, "rule", "list", *at, netns=stage.server.netns).stdout == before
    # A rule's text that another program wrote into the map.
    written = 0
    for path in (path for hook in ("xdp", "tc") for path in sorted((netctl.root / hook).rglob("rules"))):
        size = bpftool("map", "show", "pinned", path)["bytes_value"]
        text = f"drop comment {LINE}{HOSTILE}\u202e".encode()
        (entry, *_) = bpftool("map", "dump", "pinned", path)
        value = bytes(int(byte, 16) for byte in entry["value"])
        at = 12  # behind id, counter, length and flag
        if not value[at]:
            continue  # a point without rules
        written += 1
        value = (value[: at] + text).ljust(size, b"\0")[:size]
        run("bpftool", "map", "update", "pinned", path, "key", "hex", *[byte[2:] for byte in entry["key"]],
            "value", "hex", *[f"{byte:02x}" for byte in value])  # fmt: skip
    assert written >= 3
    for words in (("xdp", "status"), ("xdp", "rule", "list", face), ("tc", "status"),
                  ("tc", "rule", "list", face, "ingress"), ("set", "list")):  # fmt: skip
        shows(*words)

    # Processes, executables, cgroups.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        stage.run("policy", "rule", "add", "dport", str(port), "audit", "log", "comment", comment)
        exe = tmp_path / f"exe{LINE}{HOSTILE}"
        exe.write_bytes(talker.read_bytes())
        exe.chmod(0o755)
        for _ in range(3):
            subprocess.run(inner.wrap([exe, str(port), f"{LINE}\x1b[7m"]), check=True, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL)  # fmt: skip
    shows("policy", "log")
    shows("policy", "learn")
    shows("policy", "status")
    shows("policy", "rule", "add", f"cgroup \"{LINE}\" deny", statuses=(1, 2))
    shows("policy", "test", "192.0.2.1", "80", "tcp", "--exe", exe, "--cgroup", f"/{LINE}{HOSTILE}", statuses=(0, 1))
    shows("redirect", "list")
    shows("redirect", "rule", "add", "cgroup", f"/{LINE}{HOSTILE}", statuses=(1, 2))

    # Files, words, sets, namespaces in errors.
    for words in (("xdp", "rule", "replace", face, HOSTILE), ("set", "import", "stage", LINE),
                  ("trace", "http", "--read", HOSTILE), ("xdp", "attach", HOSTILE), (HOSTILE,), ("xdp", LINE),
                  ("xdp", "status", f"--{HOSTILE}"), ("set", "list", HOSTILE), ("set", "test", "stage", LINE),
                  ("xdp", "rule", "add", face, HOSTILE), ("xdp", "rule", "add", face, f"comment \"{LINE}\" {LINE}"),
                  ("xdp", "simulate", face, HOSTILE)):  # fmt: skip
        shows(*words, statuses=(1, 2, 4))
    shows("xdp", "status", netns=hostile_namespace)
    shows("xdp", "attach", peer, netns=hostile_namespace, statuses=(0, 1))
    shows("xdp", "status")

    # What goes over connections.
    capture, archive = tmp_path / "hostile.pcap", tmp_path / "hostile.har"
    hostile_capture(capture)
    shows("trace", "http", "--read", capture, "--headers", "--body", "100")
    shows("trace", "http", "--read", capture, "--har", archive, "--body", "100")
    assert not raw(archive.read_bytes())
    json.loads(archive.read_text())
    assert any(b"owned" in text for text in outside)  # strangers' text was there to be seen


def test_what_is_about_the_host_prints_no_strangers_text_raw(netctl, lab, hostile_namespace, tmp_path):
    """apply and its kin, status, metrics, doctor, and what compares sets."""
    stage = Stage(netctl, lab, tmp_path, comment=f"{HOSTILE}\u202e").build()
    face = "e\x1b[7m"
    run("ip", "link", "add", face, "netns", stage.server.netns, "type", "veth", "peer", "p\u009b",
        "netns", hostile_namespace.name)  # fmt: skip
    netctl("xdp", "attach", face, "--mode", "generic", netns=stage.server.netns)
    hostile = tmp_path / f"f{HOSTILE}.yaml"
    hostile.write_text(f"sets:\n  x: {{type: host, elements: ['{LINE[0]}\u202e']}}\n")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(json.dumps({HOSTILE: 1, "xdp": [{"interfaces": [HOSTILE], "rules": [f"src {HOSTILE} drop"]}]}))
    prune = tmp_path / "prune.yaml"
    prune.write_text("prune: true\n")
    saved, prom = tmp_path / "saved.yaml", tmp_path / "netctl.prom"
    seen = b""
    for words in (("status",), ("export",), ("doctor",), ("save", "--file", saved), ("plan", prune), ("diff", prune),
                  ("plan", hostile), ("check", hostile), ("check", wrong), ("apply", wrong), ("check", tmp_path / HOSTILE),
                  ("apply", hostile), ("restore", "--file", hostile), ("save", "--file", tmp_path / HOSTILE / "x"),
                  ("confirm", HOSTILE), ("rollback", LINE), ("set", "diff", "stage", hostile), ("set", "swap", HOSTILE, LINE),
                  ("set", "chgrp", "stage", HOSTILE), ("metrics", "--textfile", prom, "--once"),
                  ("metrics", "--listen", HOSTILE), ("detach", HOSTILE), ("trace", "tcp", "life", "--cgroup", HOSTILE),
                  ("trace", "func", HOSTILE), ("trace", "func", f"c:{HOSTILE}"), ("trace", "func", f"{HOSTILE}:x"),
                  ("trace", "usdt", "--file", HOSTILE, "a:b"), ("trace", "usdt", "--file", "stdc++", HOSTILE, f"x:{HOSTILE}"),
                  ("detach", "--all")):  # fmt: skip
        for more in ((), ("--json",)):
            argv = netctl.argv(*map(str, words), netns=stage.server.netns, options=more)
            done = subprocess.run(argv, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
            assert done.returncode in range(5), (words, done)
            for stream in (done.stdout, done.stderr):
                assert not raw(stream), (words, stream)
            seen += done.stdout + done.stderr
    assert b"owned" in seen
    for path in (saved, prom):
        assert not raw(path.read_bytes())
    assert "owned" in saved.read_text()


@pytest.mark.parametrize("what", ["connlat", "states", "life", "rtt", "reset", "retrans", "backlog"])
def test_tracers_of_connections_print_no_strangers_text_raw(netctl, lab, talker, tmp_path, what):
    if IN_VM and what not in ("connlat", "states", "life"):
        pytest.skip("names go the same way on every kernel")
    group = lab.cgroup(f"g{HOSTILE}")
    exe = tmp_path / f"exe{LINE}{HOSTILE}"
    exe.write_bytes(Path(shutil.which("socat") if what == "backlog" else talker).read_bytes())
    exe.chmod(0o755)
    more = ("--by", "process,cgroup", "--interval", "1") if what == "rtt" else ()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
        if what == "retrans":  # what is sent is never answered
            netctl("xdp", "attach", "lo", "--mode", "generic")
            netctl("xdp", "rule", "add", "lo", "proto", "tcp", "dport", port, "drop")
        elif what == "backlog":  # the listener is the one whose name is shown
            server.close()
            lab.start(*group.wrap([exe, f"TCP-LISTEN:{port},bind=127.0.0.1", "-"]))
            until(lambda: port in run("ss", "-Hltn").stdout, what="the listener")
        elif what != "reset":  # which a closed port sends
            server.listen()
        for as_json in (False, True):
            if what == "backlog":
                done = netctl(*(("--json",) if as_json else ()), "trace", "tcp", what, "--port", port)
                assert "allow" in done.stdout and not raw(done.stdout) and not raw(done.stderr), done
                continue
            tracer = netctl.start(lab, "trace", "tcp", what, "--port", port, *more, json=as_json)
            tracer.expect("^netctl: (tracing|counting)", timeout=60)
            client = None

            def shown(tracer=tracer):
                nonlocal client
                if client is None or what != "retrans":
                    client = subprocess.Popen(group.wrap([exe, port, f"{LINE}\x1b[7m"]), stdin=subprocess.DEVNULL,
                                              stdout=subprocess.DEVNULL)  # fmt: skip
                if what in ("connlat", "states", "life", "rtt"):
                    server.accept()[0].close()
                if what != "retrans":
                    client.wait()
                return "allow" in tracer.stdout

            until(shown, 60, str(tracer))  # the process's name is shown
            client.kill()
            client.wait()
            assert tracer.stop(signal.SIGINT, timeout=60) == 0
            assert not raw(tracer.stdout) and not raw(tracer.stderr)


def test_verbose_tells_steps_and_not_what_libraries_say(netctl, pair):
    _, server = pair
    told = netctl("-v", "xdp", "attach", server.name, netns=server.netns).stderr
    assert "loaded" in told and "libbpf" not in told and len(told.splitlines()) < 20, told
    netctl("xdp", "detach", server.name, netns=server.netns)
    detailed = netctl("-vv", "xdp", "attach", server.name, netns=server.netns).stderr
    assert "libbpf" in detailed and len(detailed.splitlines()) > 100
