"""A simulated node: plays a growing chain through the event service, at any pace.

The order is that of recorded nodes. What is written during a block's first minute comes before the
block before it is saved:

    NewMinute(10, N-1) | written | commit of N-1, anchor of N-3, NewBlock(N) | written | NewMinute(2, N)
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from bridge.core.binary.factoid import MINUTES
from bridge.emitter.anchors import closes_window, in_bitcoin, in_ethereum
from bridge.emitter.archive import Archive
from bridge.emitter.block import Block, Written
from bridge.emitter.chain import Chain
from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.faults import Faults
from bridge.emitter.inputs import AnchorInfo
from bridge.emitter.sender import Sender
from bridge.emitter.service import EventService, NodeState
from bridge.pb.eventmessages import factomEvents_pb2 as pb

__all__ = ["BLOCK_SECONDS", "Node", "Outlet"]

BLOCK_SECONDS = 600
_NAME = "FNode0"
_ANCHORED_BEHIND = 2
_ACCEPTED, _REJECTED = pb.EntityState.ACCEPTED, pb.EntityState.REJECTED
_MS = 1000

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Outlet:
    """Stands between service and sender: takes events, of which faults withhold some.

    They are handed over in order, dropped where the queue is full or after waiting for room.
    """

    def __init__(self, sender: Sender, faults: Faults, seed: int) -> None:
        self._sender, self._faults = sender, faults
        # Apart from each other: replays are asked for at any time, and change nothing of the rest.
        live, replayed = (random.Random(each) for each in (seed, ~seed))  # noqa: S311  (repeatable)
        self._random = {pb.EventSource.LIVE: live, pb.EventSource.REPLAY_BOOT: replayed}
        self._taken: list[pb.FactomEvent] = []
        self.height = 0
        """The height that grows, by which darkness is told."""
        self.offered = self.withheld = 0

    @property
    def config(self) -> LiveFeedConfig:
        """The settings that decide which events there are."""
        return self._sender.config

    def offer(self, event: pb.FactomEvent, /) -> bool:
        """Take `event`, or withhold it."""
        is_dropped = self._random[event.eventSource].random() * 100 < self._faults.drop
        if is_dropped or self.height in self._faults.dark:
            self.withheld += 1
            return False
        self.offered += 1
        self._taken.append(event)
        return True

    async def flush(self, *, waits: bool) -> None:
        """Hand over what was taken."""
        taken, self._taken = self._taken, []
        if waits:
            await self._sender.feed(taken)
        else:
            for event in taken:
                self._sender.offer(event)
        await asyncio.sleep(0)


class Node:
    """Runs a chain. `block_seconds` 0 is as fast as possible: it waits for room, replays too.

    `start` is when the first block begins, in milliseconds since 1970. At a pace of its own, the
    node waits for that by `clock`; as fast as possible, blocks are 600 s long all the same.
    """

    def __init__(
        self,
        chain: Chain,
        outlet: Outlet,
        *,
        start: int,
        block_seconds: float = BLOCK_SECONDS,
        faults: Faults | None = None,
        archive: Archive | None = None,
        clock: Clock = time.time,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._chain, self._outlet = chain, outlet
        self._faults = faults or Faults()
        self.archive = archive
        self._waits = not block_seconds
        self.length = max(MINUTES, round((block_seconds or BLOCK_SECONDS) * _MS))
        self._clock, self._sleep = clock, sleep
        self._service = EventService()
        self._service.config_sender(NodeState(chain.identity, run_leader=True), outlet)
        self._start = self._moment = start
        self._unsaved: Block | None = None
        self._unanchored: list[Block] = []
        self._replays: asyncio.Queue[range] = asyncio.Queue()
        self.minute = 0
        self.began = self.minute_began = start
        """When the growing block and its minute began, in milliseconds since 1970."""

    @property
    def now(self) -> int:
        """The node's time, in milliseconds since 1970."""
        return self._moment if self._waits else round(self._clock() * _MS)

    @property
    def height(self) -> int:
        """The height that grows."""
        return self._outlet.height

    @property
    def complete(self) -> int:
        """The last height that is complete; during the first minute of a block it is not saved."""
        return self.height - (self._unsaved is None)

    async def run(self, blocks: int | None = None) -> None:
        """Grow so many blocks, or on and on, and return when the last was saved."""
        self._service.emit_node_info_message(
            pb.NodeMessageCode.STARTED, "Node %s startup complete", _NAME
        )
        self._service.emit_node_info_message(
            pb.NodeMessageCode.SYNCED, "Node %s has finished syncing up it's database", _NAME
        )
        if not self._chain.next:
            # A node has the genesis block before it has anything to tell.
            self._keep(self._chain.grow(self._start, self.length).block)
        self._outlet.height = self._chain.next
        grown = 0
        while blocks is None or grown < blocks:
            await self._block()
            grown += 1
        await self._first_minute_ends(self._chain.next)

    async def replays(self) -> NoReturn:
        """Send again what `replay` asks for, until cancelled."""
        while True:
            heights = await self._replays.get()
            for height in heights:
                block = self.archive.at(height) if self.archive else None
                if block is None:
                    break
                self._service.emit_replay_directory_block_commit(block.whole())
                await self._outlet.flush(waits=self._waits)

    def replay(self, first: int, last: int) -> None:
        """Have blocks sent again, through the queue that all events go through."""
        self._replays.put_nowait(range(first, last + 1))

    async def _block(self) -> None:
        growth = self._chain.grow(self._start, self.length)
        self.began = self._start
        for minute, written in enumerate(growth.minutes, 1):
            for each in written:
                await self._until(each.commit.milliseconds)
                self._write(each)
            if minute == 1:
                await self._first_minute_ends(growth.block.height)
            else:
                await self._ends(minute)
                self._service.emit_process_list_event_new_minute(minute, growth.block.height)
            await self._outlet.flush(waits=self._waits)
        self._unsaved = growth.block
        self._start += self.length

    def _write(self, written: Written) -> None:
        for entity in written:
            self._service.emit_registration_event(entity)
            self._service.emit_state_change_event(entity, _ACCEPTED)
        for entity in self._faults.rejected(written):
            self._service.emit_registration_event(entity)
            self._service.emit_state_change_event(entity, _REJECTED)

    async def _first_minute_ends(self, height: int) -> None:
        """Save the block before `height`, which has begun by now."""
        await self._ends(1)
        if self._unsaved is not None:
            for state in self._faults.states(self._unsaved):
                self._service.emit_directory_block_commit_event(state)
            self._keep(self._unsaved)
            self._unsaved = None
        self._outlet.height = height
        self._service.emit_process_list_event_new_block(height)
        await self._outlet.flush(waits=self._waits)

    def _keep(self, block: Block) -> None:
        if self.archive is not None:
            self.archive.add(block)
        self._unanchored.append(block)
        if len(self._unanchored) > _ANCHORED_BEHIND:
            record = in_bitcoin(self._unanchored.pop(0), self.now)
            self._anchor(record)
            if closes_window(record.block_height):
                self._anchor(in_ethereum(record))

    def _anchor(self, record: AnchorInfo) -> None:
        self._service.emit_directory_block_anchor_event(record)
        if self.archive is not None:
            self.archive.anchor(record)

    async def _ends(self, minute: int) -> None:
        await self._until(self._start + self.length * minute // MINUTES)
        self.minute, self.minute_began = minute % MINUTES, self.now

    async def _until(self, moment: int) -> None:
        self._moment = moment
        if not self._waits:
            await self._outlet.flush(waits=False)
            await self._sleep(max(0, moment / _MS - self._clock()))
