"""The compiled part beside the Python that it stands in for: both must do the same."""

from __future__ import annotations

import hashlib
from typing import Literal

from bridge.core.framing import frame, split_frames
from bridge.core.kafkawire import KafkaWire
from bridge.core.native import native
from bridge.core.natswire import NatsWire
from bridge.core.peek import peek
from bridge.core.render import Format, Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.model import Group, Message, Run

__all__ = ["ALL", "ROUTES", "hold_renderers_together", "hold_together"]

JsonBytes = Literal["hex", "base64"]
ROUTES = Routes("factom", {}, ())
ALL = ChainFilter()


def renderer(
    *, compiled: bool, chains: ChainFilter, format: Format, json_bytes: JsonBytes = "hex"
) -> Renderer:
    return Renderer(
        network="n",
        epoch="e",
        routes=ROUTES,
        chains=chains,
        format=format,
        json_bytes=json_bytes,
        compiled=native if compiled else None,
    )


def told(messages: list[Message]) -> list[tuple[object, ...]]:
    """What makes up a message; the layout of another renderer is another object."""
    return [
        (
            each.seq,
            each.id,
            each.key,
            each.token,
            each.kind,
            each.attributes,
            each.values,
            each.data,
        )
        for each in messages
    ]


def hold_together(payloads: list[bytes], peer: str, chains: ChainFilter = ALL) -> None:
    # The first of an envelope always goes the long way; what follows it may go the short one.
    frames = b"".join(map(frame, payloads * 2))
    count = 2 * len(payloads)
    group = Group(7, 6 + count, (Run(peer, 1_700_000_000_123_456_789, count, frames),))
    hold_renderers_together(group, chains, "json")
    messages = hold_renderers_together(group, chains, "protobuf")
    hold_the_wires_together(messages)
    hold_identities_together(frames)


def hold_renderers_together(
    group: Group, chains: ChainFilter, format: Format, json_bytes: JsonBytes = "hex"
) -> list[Message]:
    short, long = (
        renderer(compiled=compiled, chains=chains, format=format, json_bytes=json_bytes)
        for compiled in (True, False)
    )
    short.render(group)
    found, expected = short.render(group), long.render(group)
    messages = list(found.messages)
    assert told(messages) == told(list(expected.messages))
    assert (found.first, found.last, found.left_out, found.blocks) == (
        expected.first,
        expected.last,
        expected.left_out,
        expected.blocks,
    )
    return messages


def hold_the_wires_together(messages: list[Message]) -> None:
    for batch in ("batch", None):
        blocks = [
            NatsWire("s", ROUTES, "e", compiled).block(messages, "inbox.", batch)
            for compiled in (native, None)
        ]
        assert blocks[0] == blocks[1]
    for most in (1, 700, 1_000_000):
        at = 0
        while at < len(messages):
            written = [
                KafkaWire(b"e", compiled).records(messages, at, most) for compiled in (native, None)
            ]
            assert written[0] == written[1]
            assert written[0][1] > at
            at = written[0][1]


def hold_identities_together(frames: bytes) -> None:
    if native is None:
        return
    at = 0
    for _, payload in split_frames(frames):
        found: list[int] = []
        until = native.identities(frames[: at + 5 + len(payload)], at, hashlib.sha256(), found)
        at += 5 + len(payload)
        if until == at:
            known = peek(payload)
            assert found == ([] if known is None else [known])
        else:
            assert found == []
