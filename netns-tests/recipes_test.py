# SPDX-License-Identifier: GPL-2.0-only
"""Recipes for other tools, docs/recipes.md: run as they stand there, with the tools where Debian has them."""

import os
import re
import shutil
from pathlib import Path

import pytest
from lab import PATIENCE, until
from traffic import Filter

TREE = Path(__file__).resolve().parent.parent


class Fail2ban:
    """Debian's fail2ban with its own filters, and netctl's action, for nginx's log of refused passwords."""

    JAIL = "nginx-http-auth"

    def __init__(self, lab, netctl, netns, log, directory):
        self._netns = netns
        shutil.copytree("/etc/fail2ban", directory)
        example = TREE / "examples/fail2ban"
        shutil.copy(example / "netctl.conf", directory / "action.d")
        (directory / "fail2ban.local").write_text(f"[Definition]\ndbfile = :memory:\nlogtarget = {directory}/log\n")
        (directory / "action.d/netctl.local").write_text(f"[Init]\nnetctl = {' '.join(netctl.argv())}\n")
        shutil.rmtree(directory / "jail.d")
        (directory / "jail.local").write_text(
            (example / "jail.local").read_text()
            + f"backend = polling\nusedns = no\nignoreself = false\n[{self.JAIL}]\nenabled = true\n"
            + f"logpath = {log}\nmaxretry = 3\nbantime = 1h\n"
        )
        self._where = ("-c", directory, "-s", directory / "socket", "-p", directory / "pid")
        self.server = netns.start("fail2ban-server", *self._where, "-f", "start")
        until(self._answers, 60, f"an answer of fail2ban: {self.server}")

    def _answers(self):
        assert self.server.alive(), str(self.server)
        return "pong" in self("ping", check=False).stdout

    def __call__(self, *words, **options):
        return self._netns.run("fail2ban-client", *self._where, *words, timeout=60, **options)


@pytest.mark.timeout(300 * PATIENCE)
def test_fail2ban_bans_and_unbans(lab, netctl, link, tmp_path):
    client, server = link
    passwords, log = tmp_path / "passwords", tmp_path / "error.log"
    passwords.write_text("somebody:{PLAIN}right\n")
    log.touch()
    lab.nginx(server.netns, location=f'error_log {log} info; auth_basic "secret"; auth_basic_user_file {passwords}; try_files /none =204;')
    guard = Fail2ban(lab, netctl, server.netns, log, tmp_path / "fail2ban")
    name = f"f2b-{guard.JAIL}"
    until(lambda: [each["name"] for each in netctl.json("set", "list")] == [name], 60, "the set of the jail")
    filter = Filter(netctl, server)
    filter.add(f"src @{name} drop")

    def ask(password, address):
        done = client.netns.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", str(2 * PATIENCE),
                                "-u", f"somebody:{password}", f"http://{address}/", check=False)  # fmt: skip
        return done.stdout

    def banned():
        return {each["element"]: each["expires_in"] for each in netctl.json("set", "list", name)}

    ends = {client.ip4: server.ip4, client.ip6: f"[{server.ip6}]"}
    for attacker, target in ends.items():
        assert ask("right", target) == "204"
        for _ in range(3):
            assert ask("wrong", target) in ("401", "000")  # the third may meet the ban
        left = until(lambda: banned().get(attacker), 60, f"a ban of {attacker}: {guard.server}")  # noqa: B023
        assert 0 < left <= 3600
        assert ask("right", target) == "000"
    assert set(banned()) == set(ends)
    # Unbanned, one comes through again, and the other does not.
    first, second = ends
    guard("set", guard.JAIL, "unbanip", first)
    assert set(banned()) == {second}
    assert (ask("right", ends[first]), ask("right", ends[second])) == ("204", "000")
    # By hand, for ever and again, as somebody's jail has it; fail2ban does not mind that somebody was quicker.
    guard("set", guard.JAIL, "bantime", "-1")
    guard("set", guard.JAIL, "banip", "192.0.2.99")
    until(lambda: "192.0.2.99" in banned(), 60, "a ban by hand")
    assert banned()["192.0.2.99"] is None
    netctl("set", "delete", name, "192.0.2.99")
    guard("set", guard.JAIL, "unbanip", "192.0.2.99")
    # The end of the jail is the end of its bans; the set stays for the rule.
    guard("stop")
    assert guard.server.wait(60) == 0
    assert banned() == {}
    assert ask("right", ends[second]) == "204"
    assert "ERROR" not in (tmp_path / "fail2ban/log").read_text()


LISTS = {
    # What they look like today, in documentation's addresses.
    "decisions.json": """[{"capacity": 0, "created_at": "2026-11-30T08:00:00Z", "decisions": [
        {"duration": "3h59m12.9s", "id": 1, "origin": "crowdsec", "scenario": "crowdsecurity/ssh-bf", "scope": "Ip",
         "simulated": false, "type": "ban", "value": "192.0.2.1"},
        {"duration": "167h1s", "id": 2, "origin": "CAPI", "scenario": "http:scan", "scope": "Range",
         "type": "ban", "value": "2001:db8:5::/48"}], "events": null, "id": 7}]""",
    "drop_v4.json": '{"cidr":"198.51.100.0/25","sblid":"SBL1","rir":"arin"}\n{"cidr":"203.0.113.0/24","sblid":"SBL2","rir":"ripencc"}\n'
                    '{"type":"metadata","timestamp":1764489600,"size":99,"records":2,"copyright":"(c)","terms":"x"}\n',
    "drop_v6.json": '{"cidr":"2001:db8:6::/48","sblid":"SBL3","rir":"apnic"}\n{"type":"metadata","records":1}\n',
    "lists/firehol_level1.netset": "#\n# firehol_level1\n#\n10.9.0.0/16\n192.0.2.128/25\n",
    "lists/tor.ipset": "# one address a line\n192.0.2.77\n2001:db8:7::1\n",
}  # fmt: skip
HELD = {
    "crowdsec": ["192.0.2.1", "2001:db8:5::/48"],
    "spamhaus": ["198.51.100.0/25", "203.0.113.0/24", "2001:db8:6::/48"],
    "lists": ["10.9.0.0/16", "192.0.2.77", "192.0.2.128/25", "2001:db8:7::1"],
}


def test_lists_of_others(netctl, tmp_path, lab):
    """The commands of the manual that read lists, as they stand there."""
    for name, content in LISTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in (
        ("netctl", f'exec {" ".join(netctl.argv())} "$@"'),
        ("cscli", f'[ "$*" = "decisions list --all -o json" ] && cat {tmp_path}/decisions.json'),
        ("curl", f'[ "$1 $2" = "-sSf -o" ] && cat {tmp_path}/"${{4##*/}}" >"$3"'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    manual = (TREE / "docs/recipes.md").read_text()
    blocks = re.findall(r"```sh\n(# (?:CrowdSec|Spamhaus|A folder).*?)```", manual, re.DOTALL)
    assert len(blocks) == len(HELD)
    netns = lab.namespace()
    for _ in range(2):  # the second time as a timer runs it
        for block in blocks:
            commands = block.replace("/var/lib/blocklists", str(tmp_path / "lists"))
            netns.run("sh", "-euc", commands, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})
        for name, held in HELD.items():
            assert [each["element"] for each in netctl.json("set", "list", name)] == held
    left = {each["element"]: each["expires_in"] for each in netctl.json("set", "list", "crowdsec")}
    assert 14000 < left["192.0.2.1"] <= 4 * 3600
    # A download that failed, or an answer without decisions, opens nothing by itself.
    for content in ("", "null", "[]"):
        assert "--allow-empty" in netctl.fails("set", "import", "crowdsec", "--replace", input=content, status=2)
    assert [each["element"] for each in netctl.json("set", "list", "crowdsec")] == HELD["crowdsec"]
