"""A network of its own for one process, where addresses can be made unreachable, as in a partition: packets vanish.

Needs root and `ip`; the addresses are from a range that is reserved for tests (RFC 2544).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.binaries import find, unavailable
from tests.support.processes import free_port

TARGETS = "198.18.77.1"  # two addresses of this machine; the first is also where its own requests come from,
STORE = "198.18.77.2"  # so that this one can be cut off alone
INSIDE = "198.18.77.10"


class Network:
    """One namespace that is joined to this machine by a pair of interfaces."""

    def __init__(self) -> None:
        suffix = str(free_port())
        self.name = f"remediator-{suffix}"
        self._outer, self._inner = f"rmo{suffix}", f"rmi{suffix}"

    @property
    def within(self) -> list[str]:
        """What a command line begins with to run in it."""
        return [str(find("ip")), "netns", "exec", self.name]

    def open(self) -> None:
        """Make it."""
        _ip("netns", "add", self.name)
        _ip("link", "add", self._outer, "type", "veth", "peer", "name", self._inner, "netns", self.name)
        for address in (TARGETS, STORE):
            _ip("address", "add", f"{address}/24", "dev", self._outer)
        _ip("link", "set", self._outer, "up")
        for words in (["address", "add", f"{INSIDE}/24", "dev", self._inner], ["link", "set", self._inner, "up"]):
            _ip("-n", self.name, *words)
        _ip("-n", self.name, "link", "set", "lo", "up")

    def close(self) -> None:
        """Take it away; processes in it lose their network."""
        _ip("link", "delete", self._outer)
        _ip("netns", "delete", self.name)

    def cut(self, address: str) -> None:
        """From now on nothing reaches this address, and nobody is told."""
        _ip("-n", self.name, "route", "add", "blackhole", f"{address}/32")

    def mend(self, address: str) -> None:
        """It can be reached again."""
        _ip("-n", self.name, "route", "delete", "blackhole", f"{address}/32")


@contextmanager
def network() -> Iterator[Network]:
    """A network for one process."""
    if os.geteuid() != 0:
        unavailable("only root can make a network namespace")
    made = Network()
    made.open()
    try:
        yield made
    finally:
        made.close()


def _ip(*words: str) -> None:
    subprocess.run([find("ip"), *words], check=True, capture_output=True)
