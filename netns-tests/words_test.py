# SPDX-License-Identifier: GPL-2.0-only
"""What README.md and the manual show is what a user gets who types it.

The console blocks of the README are one session: their commands run in order on a host with the interface
eth0, nginx, redis and the files that they name, in namespaces of its own. What a block shows behind a
command must come; a command behind which it shows nothing has to succeed. The EXAMPLES of each manual page
run in the same way, a page on a host of its own.

Numbers and the width of columns may differ, addresses may not, but for the ports that clients get. A piece
of a line that is left out is `…`; `^C` ends what would run for ever.
"""

import os
import re
import shlex
import signal
import struct
from pathlib import Path

import pytest

from lab import Cgroup, run, until

REPO = Path(__file__).resolve().parent.parent
MANUAL = sorted([*REPO.glob("userspace/features/*/netctl-*.8"), *REPO.glob("userspace/host/netctl-*.8"), REPO / "userspace/fleet/netctl-fleet.8", REPO / "docs/man/netctl.8"])
# These run until they are interrupted, and nothing of theirs is wanted before something has happened.
STREAMS = re.compile(r"netctl (xdp log|tc log|policy log --follow|trace http(?!.* --(read|top))|trace tcp(?! backlog)(?!.* --duration)|metrics --listen|top(?!.* --count))")
# Their exit status is an answer.
ANSWERS = re.compile(r"netctl ((policy|set) test|policy explain|plan)")


# Anything that simulate can judge: Ethernet frames of a UDP packet and of nothing known.
FRAMES = [
    bytes.fromhex("020000000001020000000002" "0800" "4500001c00000000401100000a0000010a000002" "0035003500080000"),
    bytes.fromhex("020000000001020000000002" "88b5" "00"),
]


class Step:
    def __init__(self, command):
        self.command = command
        self.shown = []


def steps_of(lines):
    """Commands, behind `# `, with the lines that they show."""
    steps = []
    for line in lines:
        if steps and steps[-1].command.endswith("\\"):
            steps[-1].command = steps[-1].command[:-1] + line.strip()
        elif line.startswith("# "):
            steps.append(Step(line[2:]))
        else:
            steps[-1].shown.append(line.removeprefix("^C"))
    return steps


def readme_steps():
    blocks = re.findall(r"^```console\n(.*?)^```$", (REPO / "README.md").read_text(), re.M | re.S)
    return [step for block in blocks for step in steps_of(block.splitlines())]


def manual_steps(page):
    """What stands between .EX and .EE and is a command line."""
    lines = []
    for block in re.findall(r"^\.EX\n(.*?)^\.EE$", page.read_text(), re.M | re.S):
        text = block.replace("\\-", "-").replace("\\e", "\\").replace("\\(aq", "'")
        for line in text.splitlines():
            line = line.removeprefix("# ")
            if line.startswith(("netctl ", "netctl-fleet ", "bpftool ")) or (lines and lines[-1].endswith("\\")):
                lines.append(line if lines and lines[-1].endswith("\\") else f"# {line}")
    return steps_of(lines)


def general(line):
    """The line with what may differ taken out."""

    def word(text):
        if re.fullmatch(r"[\d.]+(/\d+)?|[\da-f:]*:[\da-f:]*::?[\da-f:]*(/\d+)?", text) and (
            text.count(".") == 3 or text.count(":") > 1
        ) and not re.fullmatch(r"\d\d:\d\d:\d\d\.\d+", text):  # fmt: skip
            return text
        if client := re.fullmatch(r"(\d+\.\d+\.\d+\.\d+):(?:3[2-9]|[45]\d|60)\d{3}", text):
            return f"{client[1]}:PORT"
        if re.fullmatch(r"\d+\.\d+\.\d+\.\d+:\d+", text):
            return text
        return re.sub(r"\d+(\.\d+)*[KMG]?B?", "N", text)

    words = list(map(word, line.split()))
    if words[:1] == ["redirecting"]:
        words.sort()  # either end of a connection may be the one that is shown first
    return " ".join(words)


def shows(actual, wanted):
    pattern = ".*".join(re.escape(piece) for piece in general(wanted).split("…"))
    return re.fullmatch(pattern, general(actual)) is not None


def compare(command, wanted, actual):
    """All lines that are wanted are there, in order, and no other, but where it runs until interrupted."""
    told = "\n".join([f"# {command}", "shows:", *actual, "wanted:", *wanted])
    rest = list(actual)
    for line in wanted:
        while rest and not shows(rest[0], line):
            assert STREAMS.match(command), f"{told}\nnot: {rest[0]!r}"
            rest.pop(0)
        assert rest, f"{told}\nlacks: {line!r}"
        rest.pop(0)
    assert not rest or STREAMS.match(command), f"{told}\nunexpected: {rest}"


class Host:
    """The host that documentation talks about: namespaces of every kind that netctl looks at."""

    def __init__(self, lab):
        self.lab = lab
        self.client, self.server = lab.pair()
        self.cgroup = lab.cgroup("host")
        self.files = lab.directory / "files"
        binaries = lab.directory / "bin"
        for made in (self.files, binaries):
            made.mkdir()
        (binaries / "netctl").symlink_to(os.environ["NETCTL"])
        (binaries / "netctl-fleet").symlink_to(os.environ["NETCTL"] + "-fleet")
        # Its cgroup is the root of all, and its bpffs is empty.
        prepare = (
            f"umount -l {Cgroup.mount()} && mount -t cgroup2 none {Cgroup.mount()} && mount -t bpf bpf /sys/fs/bpf && "
            f"mount --bind {lab.directory}/hosts /etc/hosts && mount -t tmpfs none /var/lib && "
            f"mkdir -p {Cgroup.mount()}/system.slice/web.service {Cgroup.mount()}/system.slice/nginx.service && "
            f"mkdir {Cgroup.mount()}/user && echo ready && exec sleep infinity"
        )
        (lab.directory / "hosts").write_text("127.0.0.1 localhost shop.example\n")
        self.netns = self.server.netns
        self.holder = self.netns.start(
            *("unshare", "--cgroup", "--mount", "--propagation", "private", "sh", "-c", prepare),
            cgroup=self.cgroup,
        )
        self.holder.expect("^ready$")
        trial = self.netns.run("tc", "qdisc", "add", "dev", "lo", "root", "fq", check=False)
        self.has_fq = trial.returncode == 0
        self.path = f"PATH={binaries}:$PATH; unset SSH_CONNECTION NETCTL_ROOT; cd {self.files}; "
        self.netns.ip_batch("link add span0 type veth peer name span1", "link set span0 up")
        self.client.netns.ip_batch(
            *(f"address add {address}/32 dev eth0" for address in ("203.0.113.9", "198.51.100.7", "198.18.0.1"))
        )

    def serve_all(self):
        """What the commands expect to find: servers, and files."""
        self.lab.nginx(
            self.netns,
            cgroup=self.cgroup,
            location="""return 200 "hello\\n"; }
                location /orders { return 201; }
                location /nothing { return 404; }
                location /bad { return 503;""",
        )
        self.serve("redis-server --save '' --loglevel warning", 6379)
        (self.files / "capture.pcap").write_bytes(
            struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
            + b"".join(
                struct.pack("<IIII", n, 0, len(frame), len(frame)) + frame for n, frame in enumerate(FRAMES)
            )
        )
        (self.files / "list.txt").write_text("203.0.113.0/24\n")
        (self.files / "fleet.yaml").write_text((REPO / "examples/fleet/fleet.yaml").read_text())
        (self.files / "policies").mkdir()
        (self.files / "netctl.yaml").write_text((REPO / "examples/web-server.yaml").read_text())

    def wrap(self, command):
        inside = ["nsenter", f"--target={self.holder.pid}", "--mount", "--cgroup", "--net", "--"]
        return self.cgroup.wrap([*inside, "bash", "-c", self.path + command])

    def run(self, command, **options):
        return run(*self.wrap(command), timeout=60, **options)

    def start(self, command):
        return self.lab.start(*self.wrap(command))

    def serve(self, command, port):
        """Starts a server on this host."""
        process = self.start(f"exec {command}")
        until(lambda: self.run(f"ss -Htln sport = :{port}").stdout, 10, f"a listener on {port}")
        return process

    def ask(self, *urls):
        """HTTP requests from this host to itself, one connection each."""
        for url in urls:
            self.run(f"curl -s -m 5 -o /dev/null {url}")

    def perform_all(self, steps):
        """Goes on behind what differs, and tells all of it in the end."""
        wrong = []
        for step in steps:
            try:
                self.perform(step, HAPPENS.get(step.command))
            except AssertionError as difference:
                wrong.append(str(difference).partition("\nassert ")[0])
        assert not wrong, "\n\n".join(["", *wrong])

    def perform(self, step, happens=None):
        """Runs a step, and compares; `happens` is what a step that runs for ever is to see."""
        if step.command.endswith(" --top"):  # is for terminals; `q` ends it
            step.command = f"echo q | script -qec {shlex.quote(step.command)} /dev/null"
        if "/trace/4711/" in step.command:
            tracer = self.start("exec netctl trace http")
            tracer.expect("^netctl: tracing", 60)
            step.command = step.command.replace("4711", str(tracer.pid))
        step.command = step.command.replace("explain 4711", f"explain {self.holder.pid}")
        step.command = step.command.replace("/etc/netctl.yaml", "netctl.yaml")
        if not self.has_fq:
            step.command = step.command.replace(" --setup-fq", "")
        if happens and not STREAMS.match(step.command):
            happens(self)
        process = self.start(f"exec {step.command}" if STREAMS.match(step.command) else step.command)
        if STREAMS.match(step.command):
            happens(self, process) if happens else process.expect(r"^\S", 60)
            for wanted in (line for line in step.shown if not line.startswith("netctl: ")):
                until(lambda wanted=wanted: any(
                    shows(line, wanted) for line in (process.stdout + process.stderr).splitlines()
                ), 30, f"{wanted!r} from {process}")  # fmt: skip
            process.send(signal.SIGINT)
        status = process.wait(60)
        output = process.stdout.splitlines()
        notes = process.stderr.splitlines()
        print(f"# {step.command}", *output, *notes, sep="\n", flush=True)
        refused = step.shown and step.shown[0].startswith("netctl: '")
        if refused:
            assert status == 2, str(process)
            output = notes
        elif not ANSWERS.match(step.command):
            assert status == 0, str(process)
        # Notes tell what this machine cannot, or what was done besides: others need not get the same. Those of
        # what runs for ever are its first and its last words.
        for note in (line for line in step.shown if line.startswith("netctl: ")):
            if STREAMS.match(step.command):
                assert any(shows(line, note) for line in notes), f"{process}\nlacks: {note!r}"
        if step.shown:
            wanted = [line for line in step.shown if refused or not line.startswith("netctl: ")]
            compare(step.command, wanted, output)


@pytest.fixture
def host(lab):
    made = Host(lab)
    made.serve_all()
    return made


def traffic(host, _=None):
    """What the rules of the README's first blocks say something about."""
    for source in ("198.51.100.7", "203.0.113.9", "198.18.0.1"):
        host.client.netns.run("ping", "-q", "-l", 100, "-c", 100, "-W", "0.2", "-I", source, "192.0.2.2", check=False)


def requests(host, tracer):
    tracer.expect("^netctl: tracing", 60)
    host.ask(*(f"http://shop.example/{path}" for path in ("", "orders", "nothing", "bad")))


def attempts(host, tracer):
    """One that is answered, and one that is refused."""
    tracer.expect("^netctl: tracing", 60)
    host.ask("http://shop.example/")
    host.run("curl -s -m 5 -o /dev/null http://shop.example:81/", check=False)


# Does not block, as event loops do not.
ASKS_REDIS = """
import asyncio
async def ask():
    answers, requests = await asyncio.open_connection("127.0.0.1", 6379)
    while True:
        requests.write(b"GET key\\r\\n")
        await answers.readline()
        await asyncio.sleep(0.001)
asyncio.run(ask())
"""


def connection(host, _=None):
    """Requests and responses, until they are redirected. With pauses: who asks without one is joined by chance."""
    host.start(f"exec python3 -c {shlex.quote(ASKS_REDIS)}")

    def redirected():
        told = host.run("netctl redirect list; netctl redirect status").stdout
        assert "redirecting" in told, told
        return True

    until(redirected, 30)


def denial(host, _=None):
    """A shell of www-data, in a service, that lives until it has been looked at."""
    group = "$(findmnt -nt cgroup2 -o TARGET | head -n 1)/system.slice/web.service/cgroup.procs"
    attempt = "exec 3<>/dev/tcp/169.254.169.254/80; read"
    host.start(f"echo $$ >{group} && sleep inf | setpriv --reuid www-data --clear-groups bash -c {shlex.quote(attempt)}")


# What happens on the host before a command, or, if it runs until it is interrupted, while it does.
HAPPENS = {
    "netctl xdp status eth0": traffic,
    "netctl xdp log eth0 --write dropped.pcapng": lambda host, log: (
        until(lambda: (host.files / "dropped.pcapng").exists()), traffic(host)),
    "netctl trace http": requests,
    "netctl trace tcp connlat": attempts,
    "netctl trace tcp life --comm nginx": requests,
    "netctl redirect list": connection,
    "netctl policy log --follow": denial,
    "netctl policy learn": lambda host, _=None: host.ask("http://shop.example/"),
}  # fmt: skip


@pytest.mark.timeout(300)
def test_readme(host):
    (host.files / "list-of-a-million.txt").write_text(
        "".join(f"{n >> 16}.{n >> 8 & 255}.{n & 255}.0/24\n" for n in range(0x10000, 0x10000 + 1_000_000))
    )
    host.perform_all(readme_steps())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.stem)
def test_manual(host, page):
    host.perform_all(manual_steps(page))
