# SPDX-License-Identifier: GPL-2.0-only
"""What bash offers behind `netctl …`, from the script that is made of the command table."""

import os

import pytest
from lab import run


@pytest.fixture
def complete(netctl, tmp_path):
    """Words that complete the last one of a line."""
    script = tmp_path / "netctl.bash"
    script.write_text(run(netctl.binary, "generate", "bash-completion").stdout)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/netctl").symlink_to(netctl.binary)
    ask = f"""
        source {script}
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _netctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """

    def words(*line):
        environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        argv = ("bash", "-u", "-c", ask, "bash", "netctl", *map(str, line))
        return run(*argv, env=environment, cwd=tmp_path).stdout.split()

    return words


def test_what_belongs_there_is_offered(netctl, complete, tmp_path):
    netctl("set", "create", "office", "--type", "cidr")
    (tmp_path / "list.txt").touch()
    root = ("--root", netctl.root)
    assert "xdp" in complete("") and complete("xd") == ["xdp"]
    assert complete("xdp", "attach", "l") == ["lo"]
    assert "--mode" in complete("xdp", "attach", "lo", "--")
    assert "native" in complete("xdp", "attach", "lo", "--mode", "")
    assert set(complete("tc", "attach", "lo", "")) >= {"ingress", "egress"}
    for line in (("set", "add", ""), ("set", "import", "--replace", ""), ("set", "list", "o")):
        assert "office" in complete(*root, *line), line
    assert "office" not in complete(*root, "set", "create", "")
    assert complete(*root, "set", "import", "office", "li") == ["list.txt"]
    assert complete("trace", "http", "--read", "li") == ["list.txt"]
    # Rules: keys and actions of the hook, sets where they may stand.
    assert complete("xdp", "rule", "add", "lo", "dpo") == ["dport"]
    assert "src" in complete("xdp", "rule", "add", "lo", "dport", "80", "")
    assert "mark" not in complete("xdp", "rule", "add", "lo", "")
    assert "mark" in complete("tc", "rule", "add", "lo", "ingress", "")
    assert complete(*root, "xdp", "rule", "add", "lo", "src", "@") == ["@office"]
    assert complete("xdp", "rule", "add", "lo", "redirect", "l") == ["lo"]
    # The value of an option is no word of the command.
    assert complete("--netns", "x", "xdp", "attach", "l") == ["lo"]
    os.makedirs("/run/netns", exist_ok=True)
    run("ip", "netns", "add", "completed")
    try:
        assert "completed" in complete("--netns", "")
    finally:
        run("ip", "netns", "delete", "completed")
