# SPDX-License-Identifier: GPL-2.0-only
"""debian/ says what meson.build and scripts/setup say. What the packages do is tried by scripts/packagetest."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

from lab import run

REPOSITORY = Path(__file__).resolve().parent.parent
DEBIAN = REPOSITORY / "debian"


def installed(netctl):
    """The paths of all files that meson installs, as with the prefix /usr, without the slash at the beginning."""
    introspection = Path(netctl.binary).parent / "meson-info" / "intro-installed.json"
    paths = []
    for source, destination in json.loads(introspection.read_text()).items():
        destination = re.sub("^/usr/local/", "usr/", destination)
        if Path(source).is_dir():
            paths += [f"{destination}/{path.relative_to(source)}" for path in Path(source).rglob("*")
                      if path.is_file()]  # fmt: skip
        else:
            paths.append(destination)
    return paths


def covers(pattern, path):
    """As dh_install takes it: a folder is all that is below."""
    words, parts = pattern.split("/"), path.split("/")
    return len(words) <= len(parts) and all(map(fnmatchcase, parts, words))


def test_every_installed_file_is_in_one_package(netctl):
    patterns = [
        (package, line.split()[0])
        for package in ("netctl", "netctl-dev", "netctl-fleet")
        for line in (DEBIAN / f"{package}.install").read_text().splitlines()
    ]
    paths = installed(netctl)
    assert "usr/sbin/netctl" in paths and "usr/share/man/man8/netctl-xdp.8" in paths
    for path in paths:
        found = [package for package, pattern in patterns if covers(pattern, path)]
        assert len(found) == 1, f"{path} is in {found or 'no package'}"
    for package, pattern in patterns:
        if pattern.startswith("debian/"):
            assert (REPOSITORY / pattern).is_file()
        else:
            assert any(covers(pattern, path) for path in paths), f"{package}: nothing is {pattern}"


def test_what_the_build_needs_is_said_twice_alike():
    setup = (REPOSITORY / "scripts/setup").read_text()
    listed = re.search(r"^packages\[build\]='\n(.*?)'$", setup, re.DOTALL | re.MULTILINE)[1]
    wanted = {name: version for name, _, version in (line.strip().partition(" ") for line in listed.splitlines())}
    control = (DEBIAN / "control").read_text()
    depends = re.search(r"^Build-Depends:\n((?: .*\n)*)", control, re.MULTILINE)[1]
    found = {}
    for line in depends.splitlines():
        name, version = re.fullmatch(r" (\S+?)(?: \(>= (.*)\))?,", line.replace("(= 13)", "(>= 13)")).groups()
        found[name] = version or ""
    assert found.pop("debhelper-compat") == "13"
    # What every package is built with, what meson brings, and what the tests and those who edit need.
    for name in ("g++", "ninja-build", "git", "libgmock-dev", "libgtest-dev", "lld"):
        del wanted[name]
    assert found == wanted


def test_one_version(netctl):
    changelog = (DEBIAN / "changelog").read_text()
    version = re.match(r"netctl \((.*)\) ", changelog)[1]
    assert re.search(r"^  version: '(.*)',$", (REPOSITORY / "meson.build").read_text(), re.MULTILINE)[1] == version
    types = (REPOSITORY / "bpf/include/netctl/abi/types.h").read_text()
    abi = re.search(r"^#define NC_ABI_VERSION (\d+)$", types, re.MULTILINE)[1]
    assert run(netctl.binary, "--version").stdout == f"netctl {version} (ABI {abi})\n"
