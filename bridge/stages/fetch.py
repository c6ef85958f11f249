"""Fetches over the node's API what belongs to a height, and believes none of it unproven.

The directory block is asked for first. Only when the caller holds it for the true one is anything
asked for that it lists, and each of that must have the hash under which it is listed. So whatever
the node answers, one false answer is the most that is fetched in vain, and memory stays bounded.

Reading and hashing are done in a thread: a large block must not hold the live events up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.hashing import ZERO_HASH
from bridge.core.rebuild import HASH_MISMATCH, RawHeight, rebuild, reveals
from bridge.core.verify import Links, verify
from bridge.errors import BridgeError, DecodeError, NodeRefused, NodeUnavailable
from bridge.metrics import Metrics
from bridge.model import Way
from bridge.pb.eventmessages.factomEvents_pb2 import EventSource, FactomEvent
from bridge.ports import Node

__all__ = ["NOT_HAD", "Fetch", "Proof", "proof_of_missing", "proof_of_present"]

NOT_HAD = (NodeUnavailable, NodeRefused, DecodeError)
"""What the node can do wrong: be away, refuse, or answer what is not what was asked for."""

Proof = Callable[[DirectoryBlock, bytes], None]
"""Is given a directory block and its key Merkle root, and raises DecodeError unless it is true."""

_AT_ONCE = 4
"""Requests under way together, as many as the client has connections."""
_ENTRY_BLOCK_BYTES = 8 * 1024 * 1024
"""Entry blocks of one height: with more, its message would be above the feed's own limit."""
_PIECE_BYTES = 1024 * 1024
"""Entries that are held before they are handed over."""
_MOST_AWAY = 8
"""Entries of one height for which the node was away, until it is taken for away for all of them."""


def proof_of_missing(height: int, above: bytes | None, below: Links | None) -> Proof:
    """Return the proof of a block that is missing.

    Args:
        height: of the block.
        above: the key that the block above names, where that is known.
        below: the links of the block below, where that is known; there is none below height 0.
    """
    expected = (below.key_merkle_root, below.full_hash) if below else None
    if not height:
        expected = (ZERO_HASH, ZERO_HASH)

    def prove(directory: DirectoryBlock, key: bytes) -> None:
        _must_be_of(height, directory)
        if above is None and expected is None:
            raise DecodeError("unproven", f"no block beside {height} is there to prove it")
        if above is not None and key != above:
            raise DecodeError("other-key", f"block {height + 1} names another than {key.hex()}")
        named = (directory.previous_key_merkle_root, directory.previous_full_hash)
        if expected is not None and named != expected:
            raise DecodeError("unlinked", f"block {height} does not name the one below")

    return prove


def proof_of_present(height: int, agrees: Callable[[int, bytes], bool]) -> Proof:
    """Return the proof of a block that is there; `agrees` tells whether it has a key."""

    def prove(directory: DirectoryBlock, key: bytes) -> None:
        _must_be_of(height, directory)
        if not agrees(height, key):
            raise DecodeError("other-key", f"block {height} is there with another key")

    return prove


class Fetch:
    """Asks `node`, each time after `ready`, which returns when there is time for backfill."""

    def __init__(self, node: Node, metrics: Metrics, ready: Callable[[], Awaitable[None]]) -> None:
        self._node = node
        self._metrics = metrics
        self._ready = ready
        self._last: tuple[int, RawHeight] | None = None
        self._kept: dict[bytes, bytes] = {}

    async def block(self, height: int, prove: Proof, below: Links | None = None) -> bytes:
        """Return the payload with the block that the node would have replayed.

        Its entries are without content, as nodes send them unless told otherwise.

        Raises:
            NodeUnavailable, NodeRefused: as the node.
            DecodeError: an answer is not what was asked for.
        """
        try:
            raw = await self._height(height, prove)
            payload = await asyncio.to_thread(_payload, raw, below)
        except NOT_HAD as error:
            self._count(error)
            raise
        # The entries of a height are mostly fetched right after its block: from the same parts.
        self._last = height, raw
        return payload

    async def reveals(
        self,
        height: int,
        prove: Proof,
        wanted: Iterable[bytes],
        put: Callable[[list[bytes]], Awaitable[None]],
    ) -> None:
        """Hand payloads with reveals of the entries `wanted` to `put`, about 1 MiB at a time.

        An entry that cannot be had delays no other: the first such error is raised when the others
        were tried.

        Raises: as `block`.
        """
        missing, failures = set(wanted), _Failures()
        last, self._last = self._last, None
        try:
            raw = last[1] if last and last[0] == height else await self._height(height, prove)
        except NOT_HAD as error:
            self._count(error)
            raise
        start = DirectoryBlock.parse(raw.directory).seconds
        payloads: list[bytes] = []
        for part in raw.entry_blocks:
            block = await asyncio.to_thread(EntryBlock.parse, part)
            # Once each, and in the block's order.
            hashes = [each for each in dict.fromkeys(block.entry_hashes()) if each in missing]
            while hashes and failures.away < _MOST_AWAY:
                contents = await self._contents(hashes, failures)
                payloads += await asyncio.to_thread(_reveals, start, block, contents)
                if sum(map(len, payloads)) >= _PIECE_BYTES:
                    await put(payloads)
                    payloads = []
        if payloads:
            await put(payloads)
        if failures.first is not None:
            raise failures.first

    async def _height(self, height: int, prove: Proof) -> RawHeight:
        await self._ready()
        directory_part, admin, credit, factoid = await self._node.parts(height)
        directory, key = await asyncio.to_thread(_directory, directory_part)
        prove(directory, key)
        keys = [each.key for each in directory.entry_blocks]
        # Those of an attempt that failed half way: a node that fails now and then is no obstacle.
        kept = {key: self._kept[key] for key in keys if key in self._kept}
        self._kept = kept
        lacking = [key for key in keys if key not in kept]
        for at in range(0, len(lacking), _AT_ONCE):
            some = lacking[at : at + _AT_ONCE]
            failure: BridgeError | None = None
            for key, answer in zip(some, await self._raw(some), strict=True):
                if isinstance(answer, bytes):
                    await asyncio.to_thread(_must_be_block, key, answer)
                    kept[key] = answer
                else:
                    failure = answer
            if failure is not None:
                raise failure
            if sum(map(len, kept.values())) > _ENTRY_BLOCK_BYTES:
                raise DecodeError("too-large", f"the entry blocks of {height} exceed 8 MiB")
        blocks = tuple(kept[key] for key in keys)
        return RawHeight(directory_part, admin, credit, factoid, blocks)

    async def _contents(self, hashes: list[bytes], failures: _Failures) -> dict[bytes, bytes]:
        """Take hashes off the list, and return the entries, until they are enough for a piece."""
        contents: dict[bytes, bytes] = {}
        size = 0
        while hashes and size < _PIECE_BYTES and failures.away < _MOST_AWAY:
            some, hashes[:_AT_ONCE] = hashes[:_AT_ONCE], []
            for each, answer in zip(some, await self._raw(some), strict=True):
                try:
                    if not isinstance(answer, bytes):
                        raise answer
                    _must_be_entry(each, answer)
                except NOT_HAD as error:
                    self._count(error)
                    failures.note(error)
                else:
                    contents[each] = answer
                    size += len(answer)
        return contents

    async def _raw(self, hashes: Sequence[bytes]) -> list[bytes | NodeUnavailable | NodeRefused]:
        await self._ready()
        return await asyncio.gather(*map(self._raw_or_error, hashes))

    async def _raw_or_error(self, hash_: bytes) -> bytes | NodeUnavailable | NodeRefused:
        try:
            return await self._node.raw(hash_)
        except (NodeUnavailable, NodeRefused) as error:
            # What a traceback holds on to is an answer's bytes.
            return error.with_traceback(None)

    def _count(self, error: BridgeError) -> None:
        if isinstance(error, DecodeError):
            self._metrics.answer_refused(error.reason)
        else:
            self._metrics.asked_node(Way.API, error.code)


class _Failures:
    """The first failure of a height's entries, and how many entries the node was away for."""

    def __init__(self) -> None:
        self.first: BridgeError | None = None
        self.away = 0

    def note(self, error: BridgeError) -> None:
        # That the node is away says more than that it lacks an entry: the caller rests then.
        is_away = isinstance(error, NodeUnavailable)
        if self.first is None or (is_away and not self.away):
            self.first = error
        self.away += is_away


def _must_be_of(height: int, directory: DirectoryBlock) -> None:
    if directory.height != height:
        raise DecodeError("other-height", f"block {directory.height} came for {height}")


def _payload(raw: RawHeight, below: Links | None) -> bytes:
    rebuilt = rebuild(raw)
    for failure in verify(rebuilt.message, below).failures:
        raise DecodeError(failure.check, failure.detail)
    event = FactomEvent(eventSource=EventSource.REPLAY_BOOT, directoryBlockCommit=rebuilt.message)
    return event.SerializeToString()


def _directory(part: bytes) -> tuple[DirectoryBlock, bytes]:
    directory = DirectoryBlock.parse(part)
    return directory, directory.hashes().key_merkle_root


def _must_be_block(key: bytes, part: bytes) -> None:
    if EntryBlock.parse(part).hashes().key_merkle_root != key:
        raise DecodeError(HASH_MISMATCH, f"the entry block is not {key.hex()}")


def _must_be_entry(hash_: bytes, part: bytes) -> None:
    if Entry.parse(part).hash() != hash_:
        raise DecodeError(HASH_MISMATCH, f"the entry is not {hash_.hex()}")


def _reveals(start: int, block: EntryBlock, contents: dict[bytes, bytes]) -> list[bytes]:
    return [
        FactomEvent(eventSource=EventSource.REPLAY_BOOT, entryReveal=each).SerializeToString()
        for each in reveals(start, block, contents)
    ]
