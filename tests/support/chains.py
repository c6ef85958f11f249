"""Made chains of blocks that link, and a tracker of heights that is fed with them.

Nothing is hashed that need not be: a block's keys are made from its height and the chain's name, and
its `Verification` is what `core.verify` would say of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.core.alerts import alert_of
from bridge.core.hashing import ZERO_HASH
from bridge.core.heights import Bounds, Heights, Verdict
from bridge.core.signals import Signal, Trouble
from bridge.core.verify import Failure, Links, Verification
from bridge.model import Note, Way
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert

__all__ = ["BOUNDS", "FedHeights", "Made", "MadeChain", "verification"]

BOUNDS = Bounds()
NETWORK = 0xFA92E5A2


class Made(NamedTuple):
    """A made block."""

    links: Links
    previous_key: bytes
    previous_full_hash: bytes

    @property
    def height(self) -> int:
        return self.links.height


@dataclass(frozen=True)
class MadeChain:
    """A chain by name; from `fork` on it is another one than `trunk`."""

    name: str = "main"
    network: int = NETWORK
    trunk: MadeChain | None = None
    fork: int = 0

    def forked(self, fork: int, name: str) -> MadeChain:
        """Return a chain that is this one below `fork`."""
        return MadeChain(name, self.network, self, fork)

    def block(self, height: int) -> Made:
        """Return the block of `height`."""
        if self.trunk is not None and height < self.fork:
            return self.trunk.block(height)
        if not height:
            return Made(self._links(0), ZERO_HASH, ZERO_HASH)
        below = self.block(height - 1).links if height == self.fork else self._links(height - 1)
        return Made(self._links(height), below.key_merkle_root, below.full_hash)

    def _links(self, height: int) -> Links:
        key = hashlib.sha256(f"{self.name}/{height}".encode()).digest()
        return Links(height, self.network, key, hashlib.sha256(key).digest())


def verification(made: Made, below: Links | None, *wrong: str) -> Verification:
    """Return what `core.verify.verify` would say of `made`, and that `wrong` fails."""
    failures = [Failure(check, "made so") for check in wrong]
    if below is not None:
        if below.network_id != made.links.network_id:
            failures.append(Failure("network", "made so"))
        if below.key_merkle_root != made.previous_key:
            failures.append(Failure("previous-key-merkle-root", "made so"))
        if below.full_hash != made.previous_full_hash:
            failures.append(Failure("previous-full-hash", "made so"))
    links = None if "key-merkle-root" in wrong else made.links
    return Verification(made.height, tuple(failures), (), links)


@dataclass
class FedHeights:
    """A tracker of heights, with its clock, its stored items, and all that it said."""

    bounds: Bounds = BOUNDS
    chain: MadeChain = field(default_factory=MadeChain)
    now: float = 1_000.0
    items: dict[str, bytes] = field(default_factory=dict)
    signals: list[Signal] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.heights = Heights(self.items.items(), self.now, self.bounds)

    @property
    def at_ns(self) -> int:
        """Wall time, which here goes as the monotonic one does."""
        return 1_700_000_000_000_000_000 + round(self.now * 1_000_000_000)

    def block(
        self, height: int, *, way: Way = Way.LIVE, chain: MadeChain | None = None, wrong: str = ""
    ) -> Verdict:
        """Feed the block of `height`."""
        made = (chain or self.chain).block(height)
        return self.made(made, *([wrong] if wrong else []), way=way)

    def made(self, made: Made, *wrong: str, way: Way = Way.LIVE) -> Verdict:
        """Feed a block."""
        verified = verification(made, self.heights.links_below(made.height), *wrong)
        return self.heights.block(
            made.height, verified, made.previous_key, way, self.now, self.at_ns
        )

    def blocks(self, heights: Iterable[int], *, way: Way = Way.LIVE) -> None:
        """Feed blocks one after the other."""
        for height in heights:
            self.block(height, way=way)

    def told(self, height: int) -> None:
        """Feed a minute."""
        self.heights.told(height, self.now, self.at_ns)

    def live(self, *heights: int) -> None:
        """Feed blocks as a node sends them: each is followed by the first minute of the next."""
        for height in heights:
            self.block(height)
            self.told(height + 1)

    def note(self, note: Note) -> None:
        """Feed a note."""
        self.heights.note(note, self.now, self.at_ns)

    def wait(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, with ticks."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + step, until)
            self.heights.tick(self.now, self.at_ns)

    def take(self) -> list[Signal]:
        """Commit: store what changed, and return what was said since the last time."""
        signals, changed = self.heights.take()
        for name, value in changed.items():
            if value is None:
                self.items.pop(name, None)
            else:
                self.items[name] = value
        self.signals += signals
        return signals

    def restart(self, away: float = 0.0) -> None:
        """End without committing what is not taken, and begin again from what is stored."""
        self.now += away
        self.heights = Heights(list(self.items.items()), self.now, self.bounds)

    def alerts(self) -> list[GapAlert]:
        """Commit, and return what was said since the last time, as alerts of the network `test`."""
        return [alert_of("test", signal) for signal in self.take()]

    def missing(self) -> list[int]:
        """Return the missing heights of all gaps, those in grace too."""
        heights = self.heights
        present = heights._chain.present
        return [
            height
            for gap in heights.gaps
            for first, last in present.holes(gap.first, gap.last)
            for height in range(first, last + 1)
        ]

    @property
    def open(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """What a reader of the latest signal of each gap takes for open: ids and what is missing."""
        latest = {each.id: each for each in self.signals if each.trouble is Trouble.GAP}
        return {id_: each.missing for id_, each in latest.items() if each.missing}
