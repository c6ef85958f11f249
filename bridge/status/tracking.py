"""What the tracker knows, over HTTP: `GET /gaps`, and `POST /backfill` to seek heights.

A body must be declared as JSON: a page of another site cannot send such a request unasked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson
from aiohttp import web

__all__ = ["MOST_HEIGHTS", "Tracking", "routes"]

MOST_HEIGHTS = 1_000_000
"""Heights that may be sought at a time: more than any network has."""

_HIGHEST = 2**32 - 1
_BODY_BYTES = 1_024


class Tracking(Protocol):
    """The tracker, as these pages see it."""

    @property
    def sought(self) -> Callable[[int, int], None] | None:
        """Seeks the heights from the first to the last; None where no node's API is known."""
        ...

    def table(self) -> dict[str, Any]:
        """Return what is there and what is not.

        network: its name; highest: the highest height that is there, or None; floor: the height
        below which nothing is asked for, or None; missing: how many heights are; stalled: whether
        the network's pace is overdue; pending: how much was sought, or told otherwise, and is not
        yet reflected here; gaps: a list of

            id, status, cause, how   the words of a gap alert, in lower case
            first, last              heights, both inclusive
            missing                  [first, last] of each range that is, ascending
            missing_count, attempts  numbers
            opened_at, changed_at    RFC 3339
            detail                   a sentence, or empty
        """
        ...


def routes(app: web.Application, tracking: Tracking) -> None:
    """Add the pages to `app`, whose guard is theirs too."""

    async def gaps(_request: web.Request) -> web.Response:
        return _answer(200, {**tracking.table(), "fetches": tracking.sought is not None})

    async def backfill(request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _refusal(415, "the body must be JSON, and be declared as application/json")
        body = await request.content.read(_BODY_BYTES + 1)
        if len(body) > _BODY_BYTES or not request.content.at_eof():
            return _refusal(413, f"the body must be smaller than {_BODY_BYTES} bytes")
        try:
            first, last = _range(body)
        except ValueError as error:
            return _refusal(400, str(error))
        if tracking.sought is None:
            return _refusal(
                409, "this bridge knows no node's API (BRIDGE_NODE__URL): it cannot fetch blocks"
            )
        tracking.sought(first, last)
        return _answer(202, {"from": first, "to": last})

    app.router.add_get("/gaps", gaps)
    app.router.add_post("/backfill", backfill)


def _range(body: bytes) -> tuple[int, int]:
    """Return the heights that `body` asks for. Raises ValueError with a sentence."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the body is no JSON: {error}") from error
    if not isinstance(told, dict) or told.keys() != {"from", "to"}:
        raise ValueError('the body must be {"from": HEIGHT, "to": HEIGHT} and no more')
    first, last = told["from"], told["to"]
    if type(first) is not int or type(last) is not int:
        raise ValueError("heights must be whole numbers")
    if not 0 <= first <= last <= _HIGHEST:
        raise ValueError(f"heights must be from 0 to {_HIGHEST}, the first not above the last")
    if last - first >= MOST_HEIGHTS:
        raise ValueError(f"no more than {MOST_HEIGHTS} heights can be sought at a time")
    return first, last


def _answer(status: int, told: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(told) + b"\n", content_type="application/json"
    )


def _refusal(status: int, sentence: str) -> web.Response:
    return _answer(status, {"error": sentence})
