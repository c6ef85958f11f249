"""A node whose chain grows: blocks that hash and link, of which it loses some on the way.

Left out are now and then a minute, a commit, a reveal, or a block, which comes later as a replay;
and now and then a block is damaged first. So the tracker has something to say: receipts, alerts,
and commits taken out of blocks.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from bridge.core.framing import frame
from bridge.emitter.block import Block, Load
from bridge.emitter.chain import Chain
from bridge.emitter.config import Broadcast
from bridge.emitter.mapping import Mapper
from bridge.pb.eventmessages import factomEvents_pb2 as pb
from tests.faults.feed import Feed
from tests.support.journal_file import event_id

__all__ = ["ChainFeed"]

_START_MS = 1_767_225_600_000
_BLOCK_MS = 600_000
_FIRST = 1_000
_LOAD = Load(chains=1, entries=3, transactions=1, largest=300)
_LEFT_OUT = 0.15
_BLOCKS_LEFT_OUT = 0.15
_DAMAGED = 0.05
_REPLAYED_AFTER = 2
"""Blocks left out before the first of them is replayed."""


class ChainFeed(Feed):
    """One event in three is of its chain, the others are like those of `Feed`."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._chain_random = random.Random(seed)
        self._chain = Chain(seed, first=_FIRST, load=_LOAD)
        self._mapper = Mapper(Broadcast.ALWAYS, send_state_change=False)
        self._left_out: deque[Block] = deque()
        self._events = self._grows()

    def frame(self) -> bytes:
        if self._chain_random.random() < 2 / 3:
            return super().frame()
        payload = next(self._events).SerializeToString()
        self.sent[event_id(payload)[1]] = len(self.sent)
        return frame(payload)

    def _grows(self) -> Iterator[pb.FactomEvent]:
        draw = self._chain_random.random
        while True:
            height = self._chain.next
            growth = self._chain.grow(_START_MS + height * _BLOCK_MS, _BLOCK_MS)
            for minute, written in enumerate(growth.minutes, 1):
                told = [_minute(minute, height)]
                for each in written:
                    for entity in each:
                        event = self._mapper.registration(entity)
                        assert event is not None
                        told.append(event)
                yield from (event for event in told if draw() >= _LEFT_OUT)
            yield from self._saved(growth.block)

    def _saved(self, block: Block) -> Iterator[pb.FactomEvent]:
        draw = self._chain_random.random
        if draw() < _DAMAGED:
            damaged = self._mapper.live_block(block.live())
            damaged.directoryBlockCommit.directoryBlock.header.bodyMerkleRoot = bytes(32)
            yield damaged
        if draw() >= _BLOCKS_LEFT_OUT:
            yield self._mapper.live_block(block.live())
            return
        self._left_out.append(block)
        if len(self._left_out) >= _REPLAYED_AFTER:
            replayed = self._mapper.replayed_block(self._left_out.popleft().whole())
            replayed.eventSource = pb.EventSource.REPLAY_BOOT
            yield replayed


def _minute(minute: int, height: int) -> pb.FactomEvent:
    if minute == 1:
        begun = pb.ProcessListEvent(newBlockEvent=pb.NewBlockEvent(newBlockHeight=height))
    else:
        event = pb.NewMinuteEvent(newMinute=minute, blockHeight=height)
        begun = pb.ProcessListEvent(newMinuteEvent=event)
    return pb.FactomEvent(processListEvent=begun)
