"""The API of a simulated node: wsapi v2, JSON-RPC by POST to `/v2`, on the loopback interface.

Answers and errors are those of factomd v6.5.2, as recorded: an error is HTTP 400, all is
`text/plain`, a height that is left out is 0, and one below 0 is merely not found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.hashing import HASH_BYTES
from bridge.emitter import answers
from bridge.emitter.archive import Archive, Saved
from bridge.emitter.block import Block
from bridge.emitter.counters import Counters
from bridge.errors import PortInUse

__all__ = ["Api", "Minute", "serve_api"]

_REPLAYED_AT_MOST = 1_000
_HOST = "127.0.0.1"
_NS_PER_MS = 1_000_000
_PROPERTIES = {"factomdversion": "simulated", "factomdapiversion": "2.0"}

Json = dict[str, Any]
Params = dict[str, Any]


class Minute(NamedTuple):
    """Where a node stands; times are milliseconds since 1970."""

    leader_height: int
    complete: int
    """The last height that is complete, saved or not."""
    minute: int
    block_began: int
    minute_began: int
    now: int
    block_seconds: int


class _Refused(Exception):
    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        more = {} if data is None else {"data": data}
        self.error: Json = {"code": code, "message": message, **more}


def _invalid(data: str | None = None) -> _Refused:
    return _Refused(-32602, "Invalid params", data)


def _not_found(what: str) -> _Refused:
    return _Refused(-32008, f"{what} not found")


class Api:
    """Answers requests from an archive; replays are the caller's business."""

    def __init__(
        self,
        archive: Archive,
        minute: Callable[[], Minute],
        replay: Callable[[int, int], None],
    ) -> None:
        self._archive, self._minute, self._replay = archive, minute, replay
        self._methods: dict[str, Callable[[Params], Json]] = {
            "properties": lambda _: _PROPERTIES,
            "heights": self._heights,
            "current-minute": self._current_minute,
            "dblock-by-height": lambda p: answers.directory_block(self._block(p).directory),
            "ablock-by-height": lambda p: answers.admin_block(self._block(p).admin),
            "ecblock-by-height": lambda p: answers.credit_block(self._block(p).credit),
            "fblock-by-height": lambda p: answers.factoid_block(self._block(p).factoid),
            "directory-block": self._directory_block,
            "entry-block": self._entry_block,
            "entry": self._entry,
            "raw-data": self._raw_data,
            "anchors": self._anchors,
            "replay-from-height": self._replay_from_height,
        }

    def answer(self, body: bytes) -> tuple[int, Json]:
        """Return HTTP status and answer to the request that `body` is."""
        id_ = None
        try:
            request = _request(body)
            id_ = request.get("id")
            method = self._methods.get(request["method"])
            if method is None:
                raise _Refused(-32601, "Method not found")
            params = request.get("params") or {}
            if not isinstance(params, dict):
                raise _invalid()
            return 200, {"jsonrpc": "2.0", "id": id_, "result": method(params)}
        except _Refused as refused:
            return 400, {"jsonrpc": "2.0", "id": id_, "error": refused.error}

    def _heights(self, _: Params) -> Json:
        tip, leader = self._archive.tip, self._minute().leader_height
        return {
            "directoryblockheight": tip,
            "leaderheight": leader,
            "entryblockheight": tip,
            "entryheight": tip,
        }

    def _current_minute(self, _: Params) -> Json:
        at = self._minute()
        return {
            "leaderheight": at.leader_height,
            "directoryblockheight": self._archive.tip,
            "minute": at.minute,
            "currentblockstarttime": at.block_began * _NS_PER_MS,
            "currentminutestarttime": at.minute_began * _NS_PER_MS,
            "currenttime": at.now * _NS_PER_MS,
            "directoryblockinseconds": at.block_seconds,
            "stalldetected": False,
            "faulttimeout": 120,
            "roundtimeout": 30,
        }

    def _block(self, params: Params) -> Block:
        block = self._archive.at(_height(params, "height"))
        if block is None:
            raise _not_found("Block")
        return block

    def _find(self, params: Params, name: str) -> Saved | None:
        try:
            hash_ = bytes.fromhex(_text(params, name))
        except ValueError:
            hash_ = b""
        if len(hash_) != HASH_BYTES:
            raise _invalid("Invalid Hash")
        return self._archive.find(hash_)

    def _directory_block(self, params: Params) -> Json:
        found = self._find(params, "keymr")
        if found is None or not isinstance(found.part, DirectoryBlock):
            raise _not_found("Block")
        return answers.directory_listing(found.part)

    def _entry_block(self, params: Params) -> Json:
        found = self._find(params, "keymr")
        if found is None or not isinstance(found.part, EntryBlock):
            raise _not_found("Block")
        return answers.entry_block(found.part, found.block)

    def _entry(self, params: Params) -> Json:
        found = self._find(params, "hash")
        if found is None or not isinstance(found.part, Entry):
            raise _not_found("Entry")
        return answers.entry(found.part)

    def _raw_data(self, params: Params) -> Json:
        found = self._find(params, "hash")
        if found is None:
            raise _not_found("Object")
        return {"data": found.part.raw.hex()}

    def _anchors(self, params: Params) -> Json:
        if params.get("height") is not None:
            block = self._block(params)
        elif params.get("hash"):
            found = self._find(params, "hash")
            if found is None:
                raise _not_found("Object")
            block = found.block
        else:
            # Here alone a height that is left out is not 0.
            raise _invalid()
        archive, height = self._archive, block.height
        return answers.anchors(block, archive.anchor_of(height), archive.window_of(height))

    def _replay_from_height(self, params: Params) -> Json:
        first, last = _height(params, "startheight"), _height(params, "endheight")
        last = last or self._minute().complete
        if not 0 <= first <= last:
            raise _invalid("Invalid Block Height passed")
        last = min(last, first + _REPLAYED_AT_MOST)
        self._replay(first, last)
        return {
            "message": f"Successfully initiated replay of blocks {first} through {last}",
            "startheight": first,
            "endheight": last,
        }


def _request(body: bytes) -> Json:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        request = None
    if (
        not isinstance(request, dict)
        or request.get("jsonrpc") != "2.0"
        or not isinstance(request.get("method"), str)
    ):
        raise _Refused(-32600, "Invalid Request")
    return request


def _height(params: Params, name: str) -> int:
    value = params.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise _invalid()
    return value


def _text(params: Params, name: str) -> str:
    value = params.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _invalid()
    return value


@asynccontextmanager
async def serve_api(api: Api, counters: Counters, port: int) -> AsyncIterator[int]:
    """Serve `api` while the context lasts; yields the port, of which 0 takes a free one.

    `/metrics` beside it has the sender's counters: the API tells nothing of what the feed lost.

    Raises:
        PortInUse: it cannot be had.
    """

    async def post(request: web.Request) -> web.Response:
        status, answer = api.answer(await request.read())
        # The node's type for everything, JSON or not.
        return web.Response(
            body=orjson.dumps(answer), status=status, content_type="text/plain", charset="utf-8"
        )

    registry = CollectorRegistry()
    registry.register(counters)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    application = web.Application()
    application.router.add_post("/v2", post)
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, _HOST, port)
        try:
            await site.start()
        except OSError as error:
            raise PortInUse(f"the API cannot listen on {_HOST}:{port}: {error}") from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
