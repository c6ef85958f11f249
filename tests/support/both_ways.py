"""The compiled part beside the Python that it stands in for: both must do the same."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

from google.protobuf.message import DecodeError as ProtobufError

from bridge.core.binary.credits import CreditBlock, CreditHashes
from bridge.core.decode import decode
from bridge.core.framing import frame, split_frames
from bridge.core.hashing import ZERO_HASH, sha256
from bridge.core.kafkawire import KafkaWire
from bridge.core.kinds import by_kind
from bridge.core.native import native
from bridge.core.natswire import NatsWire, after
from bridge.core.peek import Told, commit_identities, peek
from bridge.core.render import Format, Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.errors import DecodeError
from bridge.model import Group, Kind, Message, Run
from bridge.pb.eventmessages.factomEvents_pb2 import EntryCreditBlock

__all__ = [
    "ALL",
    "ROUTES",
    "hold_credits_together",
    "hold_renderers_together",
    "hold_together",
    "is_short",
]

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
    if messages:
        assert by_kind(messages) == by_kind(messages, None)
    hold_identities_together(frames)
    for payload in payloads:
        hold_block_together(payload)


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
    for batch, behind in (("batch", None), (None, None), (None, ""), (None, after("id", 7))):
        blocks = [
            NatsWire("s", ROUTES, "e", compiled).block(messages, "inbox.", batch, behind)
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
        found, heights = list[int](), list[int]()
        until = native.identities(frames[: at + 5 + len(payload)], at, found, heights)
        at += 5 + len(payload)
        noted = [*found, *map(Told, heights)]
        if until == at:
            known = peek(payload)
            assert noted == ([] if known is None else [known])
        else:
            assert noted == []


def hold_block_together(payload: bytes) -> None:
    try:
        event = decode(payload)
    except DecodeError:
        return
    if event is not None and event.kind is Kind.DIRECTORY_BLOCK_COMMIT:
        hold_credits_together(event.member.entryCreditBlock)


def hold_credits_together(block: EntryCreditBlock) -> None:
    identities = [commit_identities(block, compiled) for compiled in (native, None)]
    assert identities[0] == identities[1]
    hashes = [_hashes(block, compiled) for compiled in (native, None)]
    assert hashes[0] == hashes[1]


def _hashes(block: EntryCreditBlock, compiled: ModuleType | None) -> CreditHashes | str:
    try:
        return CreditBlock.hashes_of_message(block, ZERO_HASH, compiled)
    except DecodeError as error:
        return str(error)


def is_short(data: bytes) -> bool:
    """Say whether the compiled part takes `data`, without a header, for a credit block; then it is one."""
    assert native is not None
    body, identities = native.credit_body(data), native.credit_identities(data)
    try:
        block = EntryCreditBlock.FromString(data)
    except ProtobufError:
        # Of what is no commit the identities say nothing.
        assert body is None
        return False
    if identities is not None:
        assert identities == commit_identities(block, None)
    if body is None:
        return False
    block.header.Clear()
    block.header.previousHeaderHash, block.header.objectCount = ZERO_HASH, len(block.entries)
    expected = CreditBlock.hashes_of_message(block, ZERO_HASH, None)
    assert sha256(body) == expected.body_hash
    return True
