"""Makes distinct, realistic events of the feed, as frames: sizes and proportions of the recordings.

From a seed, so that two runs measure the same bytes. Everything holds: hashes, links, heights, and
each commit and reveal of a block comes before it. So a bridge has nothing to alert, and the bench
fails if it does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from bridge.core.binary.entries import Entry
from bridge.core.framing import frame
from bridge.core.hashing import chain_id
from bridge.emitter.block import Growth, Load
from bridge.emitter.chain import Chain
from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.faults import Faults
from bridge.emitter.inputs import EntryReveal
from bridge.emitter.mapping import Mapper
from bridge.emitter.node import Node, Outlet
from bridge.emitter.sender import Sender
from bridge.pb.eventmessages import factomEvents_pb2 as pb

__all__ = ["SIZES", "Feed", "FeedMaker"]

SIZES = {"190 B": "commit", "1 KB": "mix", "10 KB": "reveal", "100 KB to 1.5 MB": "block"}
"""What is measured: the size, and the maker's method."""

_CONFIG = LiveFeedConfig.parse("", enablelivefeedapi=True, eventbroadcastcontent="always")
_START_MS = 1_767_225_600_000
_BLOCK_MS = 600_000
_FIRST = 1_000
"""Height of the first block: nobody knows those before."""
_MIX = Load(chains=3, entries=122)
"""Four events for each, and so a block of 30 KB for 500 events."""
_CONTENT_MEAN, _CONTENT_MOST = 1_600, 10_000
_TELLS_CHANGES = 10
"""Of so many heights one is told as a node does that sends state changes."""
_BLOCK_BYTES = (100_000, 200_000, 400_000, 1_500_000)
_ENTRY_BYTES = 5_600
"""What a block of whole entries of up to 10,000 bytes has for each of them."""
_ACCEPTED = pb.EntityState.ACCEPTED


@dataclass(frozen=True)
class Feed:
    """Frames to measure with."""

    frames: list[bytes]
    before: list[bytes] = field(default_factory=list)
    """What the blocks of `frames` account for; it is sent first, and not measured."""
    blocks: int = 0
    """How many of `frames` are directory blocks."""

    @property
    def size(self) -> int:
        """Bytes of `frames`."""
        return sum(map(len, self.frames))


class FeedMaker:
    """Makes events, each another. A feed with blocks must be the only one that a bridge is sent."""

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self._random = random.Random(seed)
        self._number = 0
        self._identity = self._random.randbytes(32)
        self._chains = [self._random.randbytes(32) for _ in range(50)]

    def feed(self, method: str, total_bytes: float) -> Feed:
        """Return events of `SIZES` that have `total_bytes`."""
        match method:
            case "mix":
                return self._mix(total_bytes)
            case "block":
                return self._blocks(total_bytes)
        make = {"commit": self.commit, "reveal": self.reveal}[method]
        return Feed(list(_until(total_bytes, iter(make, None))))

    def commit(self) -> bytes:
        """An entry commit that no block lists: about 190 bytes."""
        return self._commit(self._random.randbytes(32), self._random.randbytes(64))

    def commits(self, count: int) -> list[bytes]:
        """So many of them, fast: they differ in hash and signature only."""
        hash_, signature = b"\1" * 32, b"\2" * 64
        front, rest = self._commit(hash_, signature).split(hash_)
        middle, back = rest.split(signature)
        made, draw = [], self._random.randbytes
        for _ in range(count):
            random_ = draw(96)
            made.append(b"".join((front, random_[:32], middle, random_[32:], back)))
        return made

    def reveal(self, size: int = _CONTENT_MOST) -> bytes:
        """An entry reveal with `size` bytes of content, that no block lists."""
        draw = self._random.randbytes
        entry = Entry(self._random.choice(self._chains), (draw(12),), draw(size))
        reveal = EntryReveal(entry, self._now())
        mapper = Mapper(_CONFIG.broadcast_content, send_state_change=False)
        return self._frame(mapper.state_change(reveal, _ACCEPTED))

    def _mix(self, total_bytes: float) -> Feed:
        """What a node sends that grows a chain, about 1 KB each: every kind of member."""
        outlet = _Kept(total_bytes)
        node = Node(_Ledger(self._seed, first=_FIRST), outlet, start=_START_MS, block_seconds=0)
        with suppress(_Enough):
            asyncio.run(node.run())
        return Feed(outlet.frames, blocks=outlet.blocks)

    def _blocks(self, total_bytes: float) -> Feed:
        """Blocks of 100 KB to 1.5 MB, as they are replayed: with entry blocks and contents."""
        ledger = _Ledger(self._seed, first=_FIRST)
        mapper = Mapper(_CONFIG.broadcast_content, send_state_change=False)
        frames: list[bytes] = []
        begun = pb.NewBlockEvent(newBlockHeight=_FIRST)
        told = pb.FactomEvent(processListEvent=pb.ProcessListEvent(newBlockEvent=begun))
        # The first block is believed at once where the node was heard to work on its height.
        before = [self._frame(told)]
        left = total_bytes
        while left > 0:
            entries = self._random.choice(_BLOCK_BYTES) // _ENTRY_BYTES
            load = Load(chains=1, entries=entries, largest=_CONTENT_MOST)
            growth = ledger.grow_by(load, _START_MS + len(frames) * _BLOCK_MS)
            written = [
                each for minute in growth.minutes for entities in minute for each in entities
            ]
            before += [self._frame(mapper.state_change(each, _ACCEPTED)) for each in written]
            block = mapper.replayed_block(growth.block.whole())
            block.eventSource = pb.EventSource.REPLAY_BOOT
            frames.append(self._frame(block))
            left -= len(frames[-1])
        return Feed(frames, before, len(frames))

    def _commit(self, entry_hash: bytes, signature: bytes) -> bytes:
        seconds, milliseconds = divmod(self._now(), 1000)
        commit = pb.EntryCommit(
            entityState=_ACCEPTED,
            entryHash=entry_hash,
            credits=1,
            entryCreditPublicKey=self._chains[0],
            signature=signature,
        )
        commit.timestamp.seconds, commit.timestamp.nanos = seconds, milliseconds * 1_000_000
        return self._frame(pb.FactomEvent(entryCommit=commit))

    def _frame(self, event: pb.FactomEvent) -> bytes:
        event.identityChainID = self._identity
        return frame(event.SerializeToString())

    def _now(self) -> int:
        self._number += 1
        return _START_MS + self._number


def _until(total_bytes: float, made: Iterator[bytes]) -> Iterator[bytes]:
    left = total_bytes
    while left > 0:
        frame_ = next(made)
        left -= len(frame_)
        yield frame_


class _Ledger(Chain):
    """A chain whose loads change, and whose contents are as on the network: most are short."""

    def __init__(self, seed: int, *, first: int) -> None:
        super().__init__(seed, first=first, load=_MIX)

    def grow_by(self, load: Load, start: int) -> Growth:
        """Grow a block of that load."""
        self._load = load
        return self.grow(start)

    def _entry(self, chain: bytes | None) -> Entry:
        if self._load is not _MIX:
            return super()._entry(chain)
        size = min(_CONTENT_MOST, int(self._random.expovariate(1 / _CONTENT_MEAN)))
        names = (b"bench", self._random.randbytes(8))
        return Entry(chain or chain_id(names), names, self._random.randbytes(size))


class _Enough(Exception):
    """As many bytes as were wanted."""


class _Kept(Outlet):
    """Keeps what a node sends, as frames, and ends it when there is enough."""

    def __init__(self, total_bytes: float) -> None:
        super().__init__(Sender(_CONFIG), Faults(), 0)
        self.frames: list[bytes] = []
        self.blocks = 0
        self._left = total_bytes

    def offer(self, event: pb.FactomEvent, /) -> bool:
        if self.height % _TELLS_CHANGES == 0:
            event = _as_change(event)
        made = frame(event.SerializeToString())
        self.frames.append(made)
        self.blocks += event.HasField("directoryBlockCommit")
        self._left -= len(made)
        return True

    async def flush(self, *, waits: bool) -> None:
        if self._left <= 0:
            raise _Enough


def _as_change(event: pb.FactomEvent) -> pb.FactomEvent:
    """Return what a node with state changes sends in place of an accepted commit."""
    if event.entryCommit.entityState != _ACCEPTED:
        return event
    change = pb.StateChange(entityHash=event.entryCommit.entryHash, entityState=_ACCEPTED)
    return pb.FactomEvent(
        eventSource=event.eventSource, identityChainID=event.identityChainID, stateChange=change
    )
