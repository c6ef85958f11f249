"""Which peers are let in."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from enum import IntEnum, auto

__all__ = ["AllowList", "ConnectionGate", "Pace", "Rank"]


_NODES, _SILENT = 64, 1_024
"""Addresses remembered, the latest: of nodes, more than there are."""


class AllowList:
    """Networks whose peers are received: CIDRs, `loopback`, `any`."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = "any" in allowed
        self._loopback = "loopback" in allowed
        self._networks = [
            ipaddress.ip_network(text) for text in allowed if text not in {"any", "loopback"}
        ]

    def __contains__(self, host: str) -> bool:
        if self._any:
            return True
        address: ipaddress.IPv4Address | ipaddress.IPv6Address
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if self._loopback and address.is_loopback:
            return True
        return any(address in network for network in self._networks)


class Pace:
    """Lets `count` happen in any `seconds`, and says so."""

    def __init__(
        self, count: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._seconds = seconds
        self._clock = clock
        self._recent: deque[float] = deque()

    def passes(self) -> bool:
        """Whether one more may happen now; if so, it counts."""
        now = self._clock()
        while self._recent and self._recent[0] <= now - self._seconds:
            self._recent.popleft()
        if len(self._recent) >= self._count:
            return False
        self._recent.append(now)
        return True


class Rank(IntEnum):
    """What is known of an address; a higher one goes first."""

    SILENT = auto()
    """It connected and sent no event."""
    STRANGER = auto()
    NODE = auto()
    """It sent an event."""


class ConnectionGate:
    """Counts connections, and says why one more is refused.

    Each rank of address has a pace of its own, so that a flood of others cannot keep a node out.
    """

    def __init__(
        self,
        allow: AllowList,
        *,
        total: int,
        per_address: int,
        per_second: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allow = allow
        self._total = total
        self._per_address = per_address
        self._paces = {rank: Pace(per_second, 1, clock) for rank in Rank}
        self._nodes: OrderedDict[str, None] = OrderedDict()
        self._silent: OrderedDict[str, None] = OrderedDict()
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """Connections now."""
        return self._open.total()

    def enter(
        self, host: str, make_room: Callable[[str | None], bool] = lambda _full: False
    ) -> str | None:
        """Count a connection from `host`; return the reason if it is refused instead.

        `make_room` is asked to end a connection, of the given address if it is one, and says
        whether there was one to end.
        """
        if host not in self._allow:
            return "not-allowed"
        if not self._paces[self.rank(host)].passes():
            return "too-many-per-second"
        if self._open[host] >= self._per_address and not make_room(host):
            return "too-many-from-address"
        if self._open.total() >= self._total and not make_room(None):
            return "too-many-connections"
        self._open[host] += 1
        return None

    def rank(self, host: str) -> Rank:
        """What is known of `host`."""
        if host in self._nodes:
            return Rank.NODE
        return Rank.SILENT if host in self._silent else Rank.STRANGER

    def heard(self, host: str) -> None:
        """An event came from `host`."""
        self._silent.pop(host, None)
        _remember(self._nodes, host, _NODES)

    def silent(self, host: str) -> None:
        """A connection from `host` ended without an event."""
        if host not in self._nodes:
            _remember(self._silent, host, _SILENT)

    def leave(self, host: str) -> None:
        """A counted connection ended."""
        self._open[host] -= 1
        if not self._open[host]:
            del self._open[host]


def _remember(hosts: OrderedDict[str, None], host: str, most: int) -> None:
    hosts[host] = None
    hosts.move_to_end(host)
    if len(hosts) > most:
        hosts.popitem(last=False)
