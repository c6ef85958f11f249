"""A node to ask: a real HTTP server that answers as factomd does, and a feed for its replays.

Answers and events come from `bridge.emitter`, which tests hold against recorded nodes; the blocks
are those of a recording, or of a chain that grows from a seed. It misbehaves on demand.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from typing import Any, Self

import orjson
from aiohttp import web

from bridge.core.binary.admin import AdminBlock
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.emitter.api import Api, Minute
from bridge.emitter.archive import Archive, Saved
from bridge.emitter.block import Block, Load
from bridge.emitter.chain import Chain
from bridge.emitter.sender import Timing
from bridge.emitter.service import EventService, NodeState
from bridge.emitter.simulation import feed_config
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit, FactomEvent
from tests.support.captures import Capture, find_capture, not_here
from tests.support.heights import RecordedHeight, answers
from tests.support.hostile import SPOILT, WITHOUT_ANSWER, Hostile, Lie, OtherChain

__all__ = ["Factomd", "Hostile"]

_START_MS, _BLOCK_MS = 1_767_225_600_000, 600_000
_PATIENCE = Timing(retry_seconds=0.2, dark_seconds=0)
"""The real sender waits 10 s, and gives up for 5 minutes."""


class Factomd:
    """A node. Its attributes may be changed at any time.

    It answers at `url` within `serve`, and sends within `feeding`; a replay that is asked for
    outside of that is lost.
    """

    def __init__(self, blocks: Iterable[Block], identity: bytes) -> None:
        self.archive = _Archive()
        for block in blocks:
            self.archive.add(block)
        self.url = ""
        """Of the API, within `serve`."""
        self.requests: Counter[str] = Counter()
        """How many there were, by method; `malformed` where there is none."""
        self.most_at_once = 0
        """The most requests that were being answered at one time."""
        self.replays: list[tuple[int, int]] = []
        """The first and last height of each replay that was answered."""
        self.silent_replay = False
        """Replays are answered, and nothing is sent."""
        self.not_synced = False
        """The same, and live events are not sent either, as by a node that catches up."""
        self.unsaved = False
        """The block above the tip is complete: a replay to height 0 names it and lacks it."""
        self.lost: set[int] = set()
        """Heights that replays leave out, as a full queue would have it."""
        self.compresses = False
        """Answers are compressed for whoever accepts that, as by a proxy before the node."""
        self.delay = 0.0
        """Seconds before each answer."""
        self._now = 0
        self._modes: Iterator[Hostile | None] = cycle((None,))
        self._told: dict[str, Any] = {}
        self._leader: int | None = None
        self._other = OtherChain(self.archive)
        self._state = NodeState(identity)
        self._service: EventService | None = None
        self._asked: asyncio.Queue[tuple[Archive, int, int]] = asyncio.Queue()

    @classmethod
    def of_capture(cls, name: str) -> Self:
        """Return the node of a `*-api*` recording; skips the test where it is not."""
        capture, known = find_capture(name), answers(name)
        if capture is None or not known:
            not_here(name)
        heights = (asked for method, asked in known if method == "fblock-by-height")
        blocks = [
            _block_of(RecordedHeight(name, height, (), known))
            for height in sorted(height for height in heights if isinstance(height, int))
        ]
        heights_told = known["heights", ""]
        if heights_told["directoryblockheight"] > blocks[-1].height:
            # Saved while the recording's calls were made, and replayed.
            blocks.append(_next_of(blocks[-1], capture))
        node = cls(blocks, FactomEvent.FromString(capture.payloads()[0]).identityChainID)
        node._told = {method: known[method, ""] for method in ("properties", "current-minute")}
        node._leader = heights_told["leaderheight"]
        return node

    @classmethod
    def of_chain(cls, blocks: int, *, seed: int = 1, first: int = 0) -> Self:
        """Return a node of so many blocks, empty ones and ones of up to 24 entries."""
        chain = Chain(seed, first=first)
        grown = []
        for number in range(blocks):
            size = number * 7 % 25
            chain._load = Load(chains=size // 8, entries=size - size // 8, transactions=size % 3)
            grown.append(chain.grow(_START_MS + number * _BLOCK_MS, _BLOCK_MS).block)
        return cls(grown, chain.identity)

    @property
    def tip(self) -> int:
        """The last block that is saved; those above are not there yet."""
        return self.archive.tip

    @tip.setter
    def tip(self, height: int) -> None:
        self.archive.tip = height

    @property
    def unreadable(self) -> set[int]:
        """Heights that cannot be read: not found by the API, and where a replay stops."""
        return self.archive.unreadable

    @property
    def heights(self) -> list[int]:
        """Every height that there is, above the tip too."""
        return self.archive.heights()

    def behave(self, *modes: Hostile | None) -> None:
        """Answer requests in these ways, one after the other, over and over; None is honest."""
        self._modes = cycle(modes or (None,))

    def block(self, height: int) -> Block:
        """Return the true block of `height`, whether it can be read or not."""
        return self.archive.true(height)

    # -- the API

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[str]:
        """Serve the API while the context lasts; yields its URL."""
        application = web.Application()
        application.router.add_post("/v2", self._post)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v2"
            yield self.url
        finally:
            await runner.cleanup()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._answer(request)
        finally:
            self._now -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        method = _method_of(body)
        self.requests[method] += 1
        await asyncio.sleep(self.delay)
        mode = next(self._modes)
        if mode in WITHOUT_ANSWER:
            return await WITHOUT_ANSWER[mode](request)
        archive = Lie(mode, self.archive, self._other) if mode else self.archive
        api = Api(archive, self._minute, partial(self._replay, archive))
        status, answer = api.answer(body)
        if "result" in answer and method in self._told:
            answer["result"] = self._told[method]
        response = web.Response(
            body=SPOILT[mode](answer) if mode in SPOILT else orjson.dumps(answer),
            status=status,
            content_type="text/plain",
            charset="utf-8",
            headers={"Content-Encoding": "gzip"} if mode is Hostile.GZIP else None,
        )
        if self.compresses:
            response.enable_compression()
        return response

    def _minute(self) -> Minute:
        complete = self.tip + self.unsaved
        leader = complete + 1 if self._leader is None else max(self._leader, complete)
        at = _START_MS + leader * _BLOCK_MS
        return Minute(leader, complete, 0, at, at, at, _BLOCK_MS // 1000)

    # -- the feed

    @asynccontextmanager
    async def feeding(self, port: int, *settings: str) -> AsyncIterator[None]:
        """Send to the receiver at `port` while the context lasts.

        `settings` are the node's own, such as `EventBroadcastContent=always`.
        """
        service = EventService()
        config = feed_config("127.0.0.1", port, settings)
        sender = service.config_service(self._state, config, timing=_PATIENCE)
        assert sender is not None
        self._service, self._sender, self._asked = service, sender, asyncio.Queue()
        tasks = [asyncio.create_task(sender.run()), asyncio.create_task(self._send_replays())]
        try:
            yield
        finally:
            self._service = None
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def live(self, *heights: int) -> None:
        """Send these blocks as they were saved, each with the beginning of the next; waits."""
        assert self._service is not None
        self._state.run_leader = not self.not_synced
        for height in heights:
            self._service.emit_directory_block_commit_event(self.block(height).live())
            self._service.emit_process_list_event_new_block(height + 1)
        await self._sender.drain()

    async def replayed(self) -> None:
        """Return when all replays that were asked for are sent."""
        await self._asked.join()
        await self._sender.drain()

    def _replay(self, archive: Archive, first: int, last: int) -> None:
        self.replays.append((first, last))
        if self._service is not None and not self.silent_replay:
            self._asked.put_nowait((archive, first, last))

    async def _send_replays(self) -> None:
        while True:
            archive, first, last = await self._asked.get()
            self._state.run_leader = not self.not_synced
            for height in range(first, last + 1):
                block = archive.at(height)
                if block is None or self._service is None:
                    break
                if height not in self.lost:
                    self._service.emit_replay_directory_block_commit(block.whole())
                # The node sends from a goroutine of its own.
                await asyncio.sleep(0)
            self._asked.task_done()


class _Archive(Archive):
    """Shows what is saved and can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: set[int] = set()

    def at(self, height: int) -> Block | None:
        return super().at(height) if self._shows(height) else None

    def find(self, key: bytes) -> Saved | None:
        found = super().find(key)
        return found if found is not None and self._shows(found.block.height) else None

    def true(self, height: int) -> Block:
        return self._blocks[height]

    def heights(self) -> list[int]:
        return list(self._blocks)

    def _shows(self, height: int) -> bool:
        return height <= self.tip and height not in self.unreadable


def _method_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["method"])
    except (ValueError, TypeError, KeyError):
        return "malformed"


def _block_of(recorded: RecordedHeight) -> Block:
    raw = recorded.raw
    return Block(
        DirectoryBlock.parse(raw.directory),
        AdminBlock.parse(raw.admin),
        FactoidBlock.parse(raw.factoid),
        CreditBlock.parse(raw.credit),
        tuple(map(EntryBlock.parse, raw.entry_blocks)),
        tuple(map(Entry.parse, recorded.contents.values())),
    )


def _next_of(block: Block, capture: Capture) -> Block:
    """Return the block after `block` from the feed, which has it with all that it lists."""
    for payload in capture.payloads():
        told: DirectoryBlockCommit = FactomEvent.FromString(payload).directoryBlockCommit
        if told.directoryBlock.header.blockHeight == block.height + 1:
            return Block(
                DirectoryBlock.of_message(told.directoryBlock),
                AdminBlock.of_message(told.adminBlock),
                FactoidBlock.of_message(
                    told.factoidBlock, block.factoid.hashes().ledger_key_merkle_root
                ),
                CreditBlock.of_message(told.entryCreditBlock, block.credit.hashes().full_hash),
                tuple(map(EntryBlock.of_message, told.entryBlocks)),
                tuple(map(Entry.of_message, told.entryBlockEntries)),
            )
    raise LookupError(f"{capture.name} lacks the block after {block.height}")
