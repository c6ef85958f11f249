"""The compiled part does what the Python beside it does, whatever the bytes."""

import hashlib
import shutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.message import DecodeError as ProtobufError
from hypothesis import given, settings, strategies as st

from bridge.core.asjson import JsonWriter
from bridge.core.decode import decode, is_light
from bridge.core.framing import FrameDecoder, frame
from bridge.core.hashing import merkle_root
from bridge.core.native import native, openssl
from bridge.core.peek import Told, peek
from bridge.core.render import Format, Renderer
from bridge.core.routing import ChainFilter
from bridge.core.seen import remember
from bridge.core.tables import Tables
from bridge.errors import DecodeError, FrameError
from bridge.model import Group, Kind, Run
from bridge.pb.eventmessages.factomEvents_pb2 import (
    ChainCommit,
    EntryCreditBlock,
    EntryCreditBlockEntry,
    FactomEvent,
    IncreaseBalance,
    MinuteNumber,
    ProcessListEvent,
    ServerIndexNumber,
)
from tests.properties.test_decode_properties import RECORDED, mutated
from tests.support.both_ways import (
    ALL,
    ROUTES,
    hold_credits_together,
    hold_renderers_together,
    hold_together,
    is_short,
)
from tests.support.events import some_events

ONE = ChainFilter.of([b"\x07" * 32])


def test_it_is_built_where_there_is_a_compiler() -> None:
    if native is None and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("NO C COMPILER on this machine: the compiled part is not tested")
    assert native is not None


@st.composite
def nearly_sound(draw: st.DrawFn) -> bytes:
    """A commit, reveal or state change with the hashes that the short way looks for, and any rest.

    Or one that only looks like it: a field doubled, out of order, or written as no serialiser would.
    """
    event = draw(some_events())
    hashed = st.binary(min_size=32, max_size=32)
    name = draw(st.sampled_from(("chainCommit", "entryCommit", "entryReveal", "stateChange")))
    member = getattr(event, name)
    member.SetInParent()
    field = {"chainCommit": "chainIDHash", "stateChange": "entityHash"}.get(name, "entryHash")
    if name == "entryReveal":
        member.entry.hash, member.entry.chainID = draw(hashed), draw(hashed)
    else:
        setattr(member, field, draw(hashed))
    if draw(st.booleans()):
        member.entityState = draw(st.integers(0, 5))
    if draw(st.booleans()) and name != "stateChange":
        seconds = st.sampled_from((0, 1, 86_399, 951_782_400, 253_402_300_799, 253_402_300_800))
        nanos = st.sampled_from((0, 1, 999, 1_000, 1_000_000, 999_999_999, 10**9))
        member.timestamp.seconds, member.timestamp.nanos = draw(seconds), draw(nanos)
    front = FactomEvent(eventSource=event.eventSource, identityChainID=event.identityChainID)
    data: bytes = member.SerializeToString()
    extra = draw(
        st.sampled_from((b"", b"", b"\x08\x00", b"\x08\x81\x00", b"\x10\x01", data, b"\x50\x01"))
    )
    data = draw(st.sampled_from((data + extra, extra + data)))
    tag = (FactomEvent.DESCRIPTOR.fields_by_name[name].number << 3) | 2
    start: bytes = front.SerializeToString()
    return start + bytes((tag,)) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    return bytes((value,)) if value < 0x80 else bytes((value & 0x7F | 0x80, value >> 7))


@settings(max_examples=500, deadline=None)
@given(st.lists(nearly_sound(), min_size=1, max_size=4), st.sampled_from(["tcp/1", "api/7"]))
def test_nearly_sound_events(payloads: list[bytes], peer: str) -> None:
    hold_together(payloads, peer)


@settings(max_examples=200, deadline=None)
@given(st.lists(some_events().map(lambda event: event.SerializeToString()), min_size=1, max_size=4))
def test_made_up_events(payloads: list[bytes]) -> None:
    hold_together(payloads, "tcp/1")


@settings(max_examples=500, deadline=None)
@given(st.lists(mutated(), min_size=1, max_size=3), st.sampled_from(["tcp/1", "api/7"]))
def test_damaged_events(payloads: list[bytes], peer: str) -> None:
    hold_together(payloads, peer)


_IDS = st.integers(0, 2**64 - 1) | st.integers(0, 5)


@given(st.sets(_IDS), st.lists(_IDS))
def test_what_is_remembered(known: set[int], ids: list[int]) -> None:
    others = set(known)
    assert remember(known, ids) == remember(others, ids, None)
    assert known == others


def test_recorded_events() -> None:
    hold_together(RECORDED, "tcp/1")
    hold_together(RECORDED, "udp/1", ONE)


def test_hashlib_does_where_openssl_is_not_found() -> None:
    if native is None:
        return
    native.hash_with(hashlib.sha256, 0, 0, 0)
    try:
        hold_together(RECORDED, "tcp/1")
    finally:
        native.hash_with(hashlib.sha256, *openssl())


def test_recorded_events_in_base64() -> None:
    frames = b"".join(map(frame, RECORDED))
    group = Group(1, len(RECORDED), (Run("tcp/1", 1, len(RECORDED), frames),))
    hold_renderers_together(group, ALL, "json", "base64")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=12), max_size=6), st.data())
def test_streams_however_damaged(payloads: list[bytes], data: st.DataObject) -> None:
    stream = bytearray(b"".join(map(frame, payloads)))
    for _ in range(data.draw(st.integers(0, 2))):
        if stream:
            at = data.draw(st.integers(0, len(stream) - 1))
            stream[at] = data.draw(st.integers(0, 255))
    taken = []
    for compiled in (native, None):
        decoder = FrameDecoder(max_payload=10, compiled=compiled)
        found: list[tuple[object, ...]] = []
        for at in range(0, len(stream), 7):
            decoder.receive(bytes(stream[at : at + 7]))
            try:
                found.append((*decoder.take(), decoder.pending))
            except FrameError as error:
                found.append((error.reason, str(error), error.sample))
                break
        taken.append(found)
    assert taken[0] == taken[1]


@given(
    st.lists(st.binary(min_size=32, max_size=32), max_size=40) | st.lists(st.binary(max_size=40))
)
def test_the_root_over_any_leaves(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == merkle_root(tuple(leaves)) == merkle_root(leaves, None)


def _often_in_protobuf() -> list[bytes]:
    """The recorded payloads that come by the thousand: commits, reveals, and minutes."""
    binary = [payload for payload in RECORDED if not payload.startswith(b"{")]
    return [payload for payload in binary if isinstance(peek(payload), int | Told)]


def test_most_recorded_events_are_tracked_the_short_way() -> None:
    """Else it would be right and of no use."""
    if native is None:
        return
    often = _often_in_protobuf()
    whole = [native.identities(frame(each), 0, [], []) == len(frame(each)) for each in often]
    assert sum(whole) > 0.99 * len(whole) > 0


class Counting(ModuleType):
    """The compiled part, which counts the messages that it makes."""

    made = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(native, name)

    def events(self, *arguments: Any) -> Any:
        assert native is not None
        out = arguments[7]
        before = len(out)
        found = native.events(*arguments)
        self.made += len(out) - before
        return found


@settings(max_examples=500, deadline=None)
@given(some_events(), st.data())
def test_json_of_any_bytes(event: FactomEvent, data: st.DataObject) -> None:
    """What the compiled part writes is what was meant; whatever else it leaves to the other."""
    if native is None:
        return
    member = getattr(event, event.WhichOneof("event") or "nodeMessage")
    sound = member.SerializeToString()
    short, long = JsonWriter(), JsonWriter(compiled=None)
    assert outcome(lambda: short.write(member, sound)) == outcome(lambda: long.write(member))
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    text = native.json(short.table(member.DESCRIPTOR), bytes(damaged))
    if text is not None:
        assert text == long.write(type(member).FromString(bytes(damaged)))


@settings(max_examples=500, deadline=None)
@given(some_events(), st.data())
def test_the_form_of_any_bytes(event: FactomEvent, data: st.DataObject) -> None:
    """Of the one form is only what the serialiser would write again, byte for byte."""
    if native is None:
        return
    payload = bytearray(event.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(payload)))
        payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    parts, last = native.form(Tables(native).of(FactomEvent.DESCRIPTOR), bytes(payload))
    if not parts:
        assert last == 0
        return
    try:
        again = FactomEvent.FromString(bytes(payload))
    except ProtobufError:
        with pytest.raises(UnicodeDecodeError):
            payload.decode()
        return
    assert again.SerializeToString() == payload
    assert parts == _fields(again)
    name = again.WhichOneof("event")
    if name is not None:
        assert getattr(again, name).SerializeToString() == payload[last:]


def hashes(size: int = 32) -> st.SearchStrategy[bytes]:
    """Nearly always of that size."""
    sound = st.binary(min_size=size, max_size=size)
    return st.sampled_from((size,) * 30 + (0, size - 1, size + 1)).flatmap(
        lambda drawn: sound if drawn == size else st.binary(min_size=drawn, max_size=drawn)
    )


@st.composite
def objects(draw: st.DrawFn) -> EntryCreditBlockEntry:
    """What may stand in an entry-credit block, with numbers on both sides of their bounds."""
    made = EntryCreditBlockEntry()
    match draw(st.integers(0, 40)):
        case 0:
            return made
        case 1 | 2 | 3:
            index = draw(st.sampled_from((0, 7, 255, 256)))
            made.serverIndexNumber.CopyFrom(ServerIndexNumber(serverIndexNumber=index))
        case 4 | 5 | 6:
            made.minuteNumber.CopyFrom(MinuteNumber(minuteNumber=draw(st.sampled_from((0, 1, 10)))))
        case each if each < 15:
            numbers = st.sampled_from((0, 1, 127, 128, 16_383, 16_384, 2**56, 2**63 - 1, 2**64 - 1))
            made.increaseBalance.CopyFrom(
                IncreaseBalance(
                    entryCreditPublicKey=draw(hashes()),
                    transactionID=draw(hashes()),
                    index=draw(numbers),
                    amount=draw(numbers),
                )
            )
        case each:
            commit = made.chainCommit if each % 2 else made.entryCommit
            _fill(draw, commit)
    return made


def _fill(draw: st.DrawFn, commit: Any) -> None:
    commit.SetInParent()
    commit.entityState = draw(st.integers(-1, 4))
    commit.entryHash, commit.entryCreditPublicKey = draw(hashes()), draw(hashes())
    commit.signature = draw(hashes(64))
    commit.credits, commit.version = (draw(st.sampled_from((0, 1, 1, 255, 256))) for _ in "12")
    commit.timestamp.seconds = draw(st.sampled_from((0, 1, 1_700_000_000, 253_402_300_800)))
    commit.timestamp.nanos = draw(st.sampled_from((0, 0, 1_000_000, 999_000_000, 1, 10**9)))
    if isinstance(commit, ChainCommit):
        commit.chainIDHash, commit.weld = draw(hashes()), draw(hashes())


@settings(max_examples=500, deadline=None)
@given(st.lists(objects(), max_size=4), st.binary(max_size=32), st.booleans(), st.data())
def test_credit_blocks(
    entries: list[EntryCreditBlockEntry], before: bytes, counted: bool, data: st.DataObject
) -> None:
    block = EntryCreditBlock(entries=entries)
    block.header.previousHeaderHash = before.ljust(32, b"b")
    block.header.objectCount = len(entries) if counted else 3
    hold_credits_together(block)
    if native is None:
        return
    block.ClearField("header")
    damaged = bytearray(block.SerializeToString())
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    is_short(bytes(damaged))


def test_recorded_credit_blocks_go_the_short_way() -> None:
    """Else it would be right and of no use."""
    if native is None:
        return
    short = [
        is_short(event.member.entryCreditBlock.SerializeToString())
        for event in map(decode, RECORDED)
        if event is not None and event.kind is Kind.DIRECTORY_BLOCK_COMMIT
    ]
    assert sum(short) > 0.9 * len(short) > 0


def test_two_where_there_can_be_one_are_for_the_long_way() -> None:
    if native is None:
        return
    new_block, new_minute = b"\x0a\x02\x08\x03", b"\x12\x02\x08\x02"
    table = Tables(native).of(ProcessListEvent.DESCRIPTOR)
    for alone in (new_block, new_minute):
        assert native.form(table, alone) == (2, 2)
        assert native.json(table, alone) is not None
    assert native.form(table, new_block + new_minute) == (0, 0)
    assert native.json(table, new_block + new_minute) is None


def _fields(message: Any) -> int:
    count = 0
    for field, value in message.ListFields():
        for each in value if field.is_repeated else [value]:
            inner = field.message_type is not None and field.message_type.name != "Timestamp"
            count += 1 + (_fields(each) if inner else 0)
    return count


def outcome(write: Callable[[], bytes]) -> bytes | str:
    try:
        return write()
    except DecodeError as error:
        return str(error)


def test_most_recorded_blocks_are_written_by_the_compiled_part() -> None:
    if native is None:
        return
    short, written, of_the_form = JsonWriter(), [], []
    for payload in RECORDED:
        event = decode(payload)
        if event is not None and event.kind is Kind.DIRECTORY_BLOCK_COMMIT:
            text = native.json(short.table(event.member.DESCRIPTOR), event.data)
            written.append(text is not None)
            if text is not None:
                assert text == JsonWriter(compiled=None).write(event.member)
            if not payload.startswith(b"{"):
                of_the_form.append(is_light(payload))
    assert sum(of_the_form) > 0.8 * len(of_the_form) > 0
    # The rest are of the node that fills all fields with what never comes.
    assert sum(written) > 0.8 * len(written)


@pytest.mark.parametrize("format", ["protobuf", "json"])
def test_most_recorded_events_are_rendered_the_short_way(format: Format) -> None:
    """Else it would be right and of no use."""
    if native is None:
        return
    sound = _often_in_protobuf()
    frames = b"".join(map(frame, sound))
    group = Group(1, len(sound), (Run("tcp/1", 1, len(sound), frames),))
    counting = Counting("counting")
    Renderer(
        network="n", epoch="e", routes=ROUTES, chains=ALL, format=format, compiled=counting
    ).render(group)
    assert counting.made > 0.9 * len(sound) > 0
