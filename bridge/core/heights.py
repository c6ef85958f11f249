"""Knows which heights of directory blocks are there, which are missing, and why.

One pure state machine for all nodes of a network: blocks, minutes and notes go in; signals and the
changed items of its state come out of `take`, to be committed together. What a block claims is
believed only as far as something else speaks for it: the blocks beside it, which it must name or
be named by, the minutes, or the node's API. Gaps are ranges, because one forged height must not
open four billion of them.

`now` is monotonic, in seconds, and is not stored: timers begin anew with a restart. `at_ns` is wall
time, in nanoseconds since 1970, and is data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from bridge.core.chain import Block, Chain
from bridge.core.doubts import Doubt, Doubts, Rival
from bridge.core.gaps import Gap
from bridge.core.holes import Bounds, Holes
from bridge.core.pace import Pace
from bridge.core.ranges import Range
from bridge.core.signals import Cause, Signal, Status, Trouble
from bridge.core.troubles import Troubles
from bridge.core.verdicts import Verdict
from bridge.core.verify import Links, Verification
from bridge.model import Asked, Note, Sought, Tip, Unobtainable, Way

__all__ = ["Bounds", "Heights", "Verdict"]

_LINK_CHECKS = frozenset({"previous-key-merkle-root", "previous-full-hash", "network"})
_SLACK = 2
"""How far the node's API may be behind its feed."""
_ROW = "heights/believed"
_BOUNDS = Bounds()


class Heights:
    """The tracker of heights."""

    def __init__(
        self, items: Iterable[tuple[str, bytes]], now: float, bounds: Bounds = _BOUNDS
    ) -> None:
        """Go on from `items`, which earlier calls of `take` gave; pass over those of others."""
        stored = list(items)
        self._bounds = bounds
        self._chain = Chain(stored)
        self._holes = Holes(stored, self._chain, now, bounds)
        self._doubts = Doubts(stored, now)
        self._troubles = Troubles(stored)
        self._pace = Pace(stored, now, shortest=bounds.shortest_stall, longest=bounds.longest_stall)
        self._network: int | None = None
        self._rival: Rival | None = None
        self._linked: list[int] = []
        self._dirty = False
        for name, value in stored:
            if name == _ROW:
                self._network, rival = orjson.loads(value)
                self._rival = Rival.restored(*rival) if rival else None

    @property
    def highest(self) -> int | None:
        """The highest height that is there."""
        return self._chain.present.highest

    @property
    def floor(self) -> int | None:
        """The lowest height that is there or missing."""
        return self._holes.floor

    @property
    def gaps(self) -> Sequence[Gap]:
        """The gaps, ascending, those that are still in their grace (status SEEN) too."""
        return self._holes.gaps.all

    @property
    def missing(self) -> int:
        """How many heights are missing in the gaps whose grace is over."""
        return self._holes.gaps.missing

    @property
    def dropped(self) -> int:
        """Blocks in doubt that were given up, and unverified ones forgotten to stay in bounds."""
        return self._doubts.dropped + self._troubles.dropped

    def missing_ranges(self) -> Sequence[Range]:
        """Return what is missing in the gaps whose grace is over, ascending."""
        return self._holes.gaps.missing_ranges()

    def links_below(self, height: int) -> Links | None:
        """Return what the block of `height` must name, where that is known."""
        if height - 1 in self._chain.present:
            return self._chain.links(height - 1)
        doubted = self._doubts.at(height - 1)
        return doubted.links if doubted else None

    def key_above(self, height: int) -> bytes | None:
        """Return the key that the block above `height` names, where it is there and known."""
        return self._chain.named_below(height + 1)

    def agrees(self, height: int, key: bytes) -> bool:
        """Whether the block of `height` is there and has this key Merkle root."""
        return self._chain.has(height, key)

    @property
    def stalled(self) -> bool:
        """Whether a block or a minute is overdue."""
        return "stalled" in self._troubles

    @property
    def open_count(self) -> int:
        """How many gaps there are whose grace is over."""
        return self._holes.gaps.open_count

    def open_gaps(self) -> list[Signal]:
        """Return what would be told now of each gap whose grace is over, ascending."""
        return self._holes.gaps.open()

    def block(
        self,
        message_height: int,
        verification: Verification,
        previous_key: bytes,
        way: Way,
        now: float,
        at_ns: int,
    ) -> Verdict:
        """Take a block that came by `way`; `verification` is beside `links_below`."""
        links = verification.links
        wrong = [each for each in verification.failures if each.check not in _LINK_CHECKS]
        if links is None or wrong:
            key = links.key_merkle_root if links else b""
            why = f"{wrong[0].check}: {wrong[0].detail}" if wrong else "it is no directory block"
            self._troubles.unverified(message_height, key, why, at_ns)
            return Verdict.UNVERIFIED
        block, height = Block(links, previous_key), links.height
        if self._network not in {None, links.network_id}:
            why = f"a block of network {links.network_id:#x} came, and not of {self._network:#x}"
            self._troubles.tell("network", Trouble.NETWORK, height, height, why, at_ns)
            return Verdict.OTHER_NETWORK
        present = self._chain.present
        if height in present and self._chain.holds(links):
            self._chain.learn(links)
            self._troubles.verified(height, at_ns)
            return Verdict.REPEATED
        rival = self._rival
        if height in present or (rival and (rival.continues(block) or rival.knows(block))):
            return self._other(block, way, now, at_ns)
        # A key pins all of a block, but a block can name the full hash of another one beside it.
        checks = {each.check for each in verification.failures}
        below = self._chain.links(height - 1)
        if not self._chain.fits(block) or (below and "previous-full-hash" in checks):
            self._holes.unlinked(height, now, at_ns)
            return Verdict.UNLINKED
        return self._judge(block, way, now, at_ns)

    def told(self, height: int, now: float, at_ns: int) -> None:
        """Note that a node works on `height`: a new block or a new minute was told."""
        self._pace.minute(now)
        self._moved(now, at_ns)
        if self._holes.told(height):
            self._settle(now, at_ns)

    def heard(self, now: float, at_ns: int) -> None:
        """Note that anything at all came from a node."""
        self._pace.heard(now)

    def storage(self, now: float) -> None:
        """Note that the journal refused or lost events: what is missing next is missing by that."""
        self._holes.storage()

    def note(self, note: Note, now: float, at_ns: int) -> None:
        """Take what backfill or an operator says."""
        match note:
            case Asked(first, last):
                self._holes.gaps.asked(first, last, now, at_ns)
            case Unobtainable(first, last, why):
                self._holes.gaps.unobtainable(first, last, why, now, at_ns)
            case Tip(height):
                self._tipped(height, now, at_ns)
            case Sought(first, last):
                self._holes.sought(first, last, now, at_ns)
        self._settle(now, at_ns)

    def tick(self, now: float, at_ns: int) -> None:
        """Do what is due."""
        self._holes.gaps.tick(now, at_ns)
        while (doubt := self._doubts.oldest()) and now - doubt.since >= self._bounds.doubt:
            self._decide(doubt, now, at_ns)
        late = self._pace.late(now)
        if late:
            cause = Cause.SILENT if self._pace.silent(now) else Cause.NOT_SYNCED
            height = self.highest or 0
            self._troubles.tell("stalled", Trouble.STALLED, height, height, late, at_ns, cause)

    def take_linked(self) -> list[int]:
        """Return the heights whose links to the block below were proven since the last time.

        Anything can prove some: a minute, a note or the time can end a doubt.
        """
        linked, self._linked = self._linked, []
        return linked

    def take(self) -> tuple[list[Signal], dict[str, bytes | None]]:
        """Return what happened since the last time, and the items that changed (None: gone)."""
        signals, items = self._holes.take()
        told, changed = self._troubles.take()
        items |= changed | self._chain.take() | self._doubts.take() | self._pace.take()
        if self._dirty:
            self._dirty = False
            rival = self._rival.stored() if self._rival else None
            items[_ROW] = orjson.dumps([self._network, rival])
        return signals + told, items

    def _judge(self, block: Block, way: Way, now: float, at_ns: int) -> Verdict:
        """Believe `block`, which contradicts nothing, or doubt it."""
        height = block.height
        if self._holes.too_far(height):
            self._doubts.drop(block)
            self._refuse(height, at_ns)
            return Verdict.DOUBTED
        gap = self._holes.gaps.around(height)
        late = gap is not None and (gap.status is not Status.SEEN or height < (self.highest or 0))
        if self._spoken_for(height, waiting=False):
            self._enter(block, way, now, at_ns)
        else:
            self._doubts.add(Doubt(block, way, now, self.highest))
        self._settle(now, at_ns)
        if height not in self._chain.present:
            return Verdict.DOUBTED
        return Verdict.LATE if late else Verdict.NEW

    def _spoken_for(self, height: int, *, waiting: bool) -> bool:
        """Whether anything but another doubted block says that there is a block of `height`."""
        present = self._chain.present
        return not self._holes.too_far(height) and (
            height - 1 in present
            or height + 1 in present
            or self._holes.expected(height, waiting=waiting)
        )

    def _enter(self, block: Block, way: Way, now: float, at_ns: int) -> None:
        """Believe `block`."""
        height, highest = block.height, self.highest
        self._doubts.discard(block)
        self._holes.passed(height, now, at_ns)
        self._linked += self._chain.add(block)
        self._holes.filled(height, way, now, at_ns)
        self._troubles.verified(height, at_ns)
        if self._network is None:
            self._network, self._dirty = block.links.network_id, True
        if highest is None or height > highest:
            self._grew(way, now, at_ns)

    def _grew(self, way: Way, now: float, at_ns: int) -> None:
        if way is Way.LIVE:
            self._pace.block(now)
            self._moved(now, at_ns)
        self._troubles.grew(at_ns)
        if self._rival is not None:
            self._dirty = True
            if self._rival.outgrow():
                self._rival = None
                why = "the chain went on and the other one did not"
                self._troubles.over("regression", why, at_ns)

    def _moved(self, now: float, at_ns: int) -> None:
        if "stalled" in self._troubles and not self._pace.late(now):
            self._troubles.over("stalled", "it goes on", at_ns)

    def _settle(self, now: float, at_ns: int) -> None:
        """Believe the doubted blocks that something speaks for now, forget those that cannot be."""
        again = bool(self._doubts)
        while again:
            again = False
            for doubt in self._doubts.ascending():
                block, height = doubt.block, doubt.block.height
                if (
                    height in self._chain.present
                    or not self._chain.fits(block)
                    or self._network not in {None, block.links.network_id}
                ):
                    self._doubts.drop(block)
                elif self._spoken_for(height, waiting=True) or (
                    self._doubts.speak_for(block) and not self._holes.too_far(height)
                ):
                    self._enter(block, doubt.way, now, at_ns)
                    again = True

    def _decide(self, doubt: Doubt, now: float, at_ns: int) -> None:
        """End a doubt whose time is over: where the chain did not grow elsewhere, believe it."""
        block, highest = doubt.block, self.highest
        elsewhere = highest is not None and highest != doubt.highest and block.height > highest
        if elsewhere or self._holes.too_far(block.height):
            self._doubts.drop(block)
            self._refuse(block.height, at_ns)
        else:
            self._enter(block, doubt.way, now, at_ns)
            self._settle(now, at_ns)

    def _refuse(self, height: int, at_ns: int) -> None:
        above = self.highest or 0
        why = f"height {height} is far ahead of {above}, and nothing else says that it exists"
        self._troubles.tell("jump", Trouble.JUMP, above + 1, height, why, at_ns)

    def _other(self, block: Block, way: Way, now: float, at_ns: int) -> Verdict:
        """Follow a chain beside the believed one."""
        rival, height = self._rival, block.height
        self._dirty = True
        if rival is not None and rival.continues(block):
            if rival.grow(block):
                return self._adopt(rival, way, now, at_ns)
        elif rival is None or not rival.knows(block):
            self._rival = Rival([block])
            why = f"height {height} is there, and came again with another key"
            self._troubles.tell("regression", Trouble.REGRESSION, height, height, why, at_ns)
        return Verdict.OTHER_CHAIN

    def _adopt(self, rival: Rival, way: Way, now: float, at_ns: int) -> Verdict:
        first = rival.blocks[0].height
        why = f"another chain went on and is believed from height {first} on"
        self._chain.clear()
        self._holes.begin_anew(why, now, at_ns)
        self._doubts.clear()
        self._rival = None
        # What the chain before had proven, and nobody has taken yet, is of no account now.
        self._linked = [each for block in rival.blocks for each in self._chain.add(block)]
        self._troubles.over("regression", why, at_ns)
        self._grew(way, now, at_ns)
        return Verdict.ADOPTED

    def _tipped(self, height: int, now: float, at_ns: int) -> None:
        for doubt in self._doubts.ascending():
            if doubt.block.height > height + _SLACK:
                self._doubts.drop(doubt.block)
                self._refuse(doubt.block.height, at_ns)
        if self._holes.too_far(height):
            self._refuse(height, at_ns)
        else:
            self._holes.tip(height, now, at_ns)
