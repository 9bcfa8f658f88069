# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures for all tests here. What they hand out is in lab.py."""

import os

import pytest

from lab import GUEST_SHARE, Lab, Netctl
from traffic import Blaster, Stream

pytest_plugins = ["progress"]


def pytest_configure(config):
    # Without it a test would work on the machine's own interfaces and bpffs.
    if not os.environ.get("NETCTL_ISOLATED"):
        pytest.exit("run these through `scripts/test netns`, which isolates them", returncode=4)


def pytest_collection_modifyitems(config, items):
    """`kernel(mode="native")`: what differs between kernels shows with this parameter; a guest runs just it."""

    def wanted(item):
        mark = item.get_closest_marker("kernel")
        if not GUEST_SHARE or not mark:
            return True
        return all(item.callspec.params[name] == value for name, value in mark.kwargs.items())

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = filter(wanted, items)


@pytest.fixture
def lab(tmp_path):
    """Makes namespaces, links, servers and cgroups, and removes them after the test."""
    with Lab(tmp_path) as made:
        yield made


@pytest.fixture
def netctl():
    """The command under test, with a root of its own that goes away after the test."""
    with Netctl() as command:
        yield command


@pytest.fixture
def pair(lab):
    """Two namespaces, `client` and `server`, joined by one veth pair."""
    return lab.pair()


@pytest.fixture
def link(lab):
    """A client and a server whose packets are on the link as they would be on a wire."""
    return lab.pair(checksums=False)


@pytest.fixture(scope="session")
def blaster(tmp_path_factory):
    """Sends UDP as fast as it can."""
    return Blaster.compile(tmp_path_factory.mktemp("blaster"))


@pytest.fixture(scope="session")
def streamer(tmp_path_factory):
    """Sends numbered UDP, and takes down what arrives."""
    return Stream.compile(tmp_path_factory.mktemp("streamer"))
