"""Which peers are let in."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

__all__ = ["AllowList", "ConnectionGate", "Pace"]


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


class ConnectionGate:
    """Counts connections, and says why one more is refused."""

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
        self._pace = Pace(per_second, 1, clock)
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """Connections now."""
        return self._open.total()

    def enter(self, host: str) -> str | None:
        """Count a connection from `host`; return the reason if it is refused instead."""
        if host not in self._allow:
            return "not-allowed"
        if self._open.total() >= self._total:
            return "too-many-connections"
        if self._open[host] >= self._per_address:
            return "too-many-from-address"
        if not self._pace.passes():
            return "too-many-per-second"
        self._open[host] += 1
        return None

    def leave(self, host: str) -> None:
        """A counted connection ended."""
        self._open[host] -= 1
        if not self._open[host]:
            del self._open[host]
