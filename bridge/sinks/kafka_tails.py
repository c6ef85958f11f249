"""Reads the end of each partition: the last message, and whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from bridge.model import Tail

__all__ = ["End", "Place", "read_ends"]

_POLL_MS = 100
_CLOSE_SECONDS = 2

Place = tuple[str, int]
"""Topic and partition."""


class End(NamedTuple):
    """Where a partition ends."""

    offset: int
    """The one that the next message will have."""
    tail: Tail | None
    """The last message, if this journal is where it came from."""


async def read_ends(
    connection: dict[str, Any],
    places: Iterable[Place],
    epoch: bytes,
    before: Mapping[Place, int] = MappingProxyType({}),
) -> dict[Place, End]:
    """Return the end of each of `places`; the caller bounds the time.

    For those in `before` it is where that offset is, whatever stands behind.

    Raises:
        KafkaError: as aiokafka does; the sink says it in the bridge's terms.
    """
    consumer = AIOKafkaConsumer(
        **connection, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        wanted = [TopicPartition(*place) for place in places]
        # No partition is given up before the end: the client hangs in `stop` after that.
        consumer.assign(wanted)
        begins = await consumer.beginning_offsets(wanted)
        ends = {
            place: before.get((place.topic, place.partition), end)
            for place, end in (await consumer.end_offsets(wanted)).items()
        }
        found = {(place.topic, place.partition): End(ends[place], None) for place in wanted}
        waited_for = {place for place in wanted if ends[place] > begins[place]}
        for place in wanted:
            # Also where there is nothing, for the client would go and ask where to begin.
            consumer.seek(place, max(ends[place] - 1, begins[place]))
        while waited_for:
            consumer.pause(*(place for place in wanted if place not in waited_for))
            for place, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
                waited_for.discard(place)
                tail = _tail(records[0], epoch)
                found[place.topic, place.partition] = End(records[0].offset + 1, tail)
        return found
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await consumer.stop()


def _tail(record: Any, epoch: bytes) -> Tail | None:
    headers = dict(record.headers)
    if headers.get("bridge-epoch") != epoch:
        return None
    return Tail(int(headers["bridge-seq"]), headers["ce_id"].decode())
