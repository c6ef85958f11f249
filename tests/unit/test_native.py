"""What the compiled part does with what no caller gives it: it raises, and reads nothing that is not there."""

from __future__ import annotations

import _hashlib
import ctypes
import gc
import hashlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from bridge.core.framing import frame
from bridge.core.hashing import merkle_root
from bridge.core.native import native, openssl
from bridge.core.render import Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.model import Group, Kind, Layout, Message, Run
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent

if native is None:
    pytest.skip("NO COMPILED PART: it is not tested", allow_module_level=True)

compiled: ModuleType = native

_LAYOUT = Layout(Kind.ENTRY_COMMIT, (("source", "s"),), ("id",))
_PREPARED = {"records": (b"", (b"id",), b"seq", 2), "block": (b"", (b"id",), b"seq", b"subject")}


def _messages(count: int) -> list[Message]:
    return [Message(seq, "id", None, "", _LAYOUT, ("id",), b"data") for seq in range(count)]


def _write(
    kind: str, messages: list[Message], prepared: Any, prepare: Callable[[Any], object] = repr
) -> Any:
    if kind == "records":
        return compiled.records(messages, 0, prepared, prepare, 1_000)
    return compiled.block(messages, prepared, prepare, "inbox.", None, None)


@pytest.fixture
def hashing() -> Iterator[None]:
    yield
    compiled.hash_with(hashlib.sha256, *openssl())


@pytest.mark.parametrize("kind", _PREPARED)
@pytest.mark.parametrize(
    "prepared", [None, (), (b"",), (b"", [b"id"], b"", b""), (b"", None, 1, 2)]
)
def test_what_is_prepared_of_a_layout_must_have_its_form(kind: str, prepared: Any) -> None:
    with pytest.raises(TypeError):
        _write(kind, _messages(1), {_LAYOUT: prepared})


@pytest.mark.parametrize("kind", _PREPARED)
@pytest.mark.parametrize("values", [None, ["id"], ()])
def test_values_are_a_tuple_that_fits(kind: str, values: Any) -> None:
    message = _messages(1)[0]._replace(values=values)
    with pytest.raises((TypeError, ValueError)):
        _write(kind, [message], {_LAYOUT: _PREPARED[kind]})


@pytest.mark.parametrize("kind", _PREPARED)
@pytest.mark.parametrize("data", [None, object(), 7])
def test_data_is_bytes(kind: str, data: Any) -> None:
    with pytest.raises(TypeError):
        _write(kind, [_messages(1)[0]._replace(data=data)], {_LAYOUT: _PREPARED[kind]})


@pytest.mark.parametrize("data", [None, object(), 7])
def test_only_messages_are_sorted_by_kind(data: Any) -> None:
    with pytest.raises(TypeError):
        compiled.by_kind([_messages(1)[0]._replace(data=data)])
    with pytest.raises(TypeError):
        compiled.by_kind([data])
    with pytest.raises(AttributeError):
        compiled.by_kind([_messages(1)[0]._replace(layout=data)])


@pytest.mark.parametrize("kind", _PREPARED)
def test_a_list_that_shrinks_meanwhile_is_written_as_it_was(kind: str) -> None:
    expected = _write(kind, _messages(50), {_LAYOUT: _PREPARED[kind]})
    messages, prepared = _messages(50), dict[Layout, Any]()

    def prepare(layout: Layout) -> None:
        prepared[layout] = _PREPARED[kind]
        messages.clear()
        gc.collect()

    assert _write(kind, messages, prepared, prepare) == expected


def test_a_field_has_one_of_the_types() -> None:
    for type_ in (-1, 9, 99):
        with pytest.raises(ValueError, match="no type of a field"):
            compiled.table(((8, type_, False, False, False, b'"x":', None),))


def test_what_is_told_of_an_envelope_may_be_forgotten_meanwhile(hashing: None) -> None:
    events = [
        FactomEvent(entryCommit={"entryHash": bytes(31) + bytes([n]), "credits": n + 1})
        for n in range(9)
    ]
    frames = b"".join(frame(event.SerializeToString()) for event in events)
    renderer = Renderer(
        network="n", epoch="e", routes=Routes("p", {}, ()), chains=ChainFilter(), format="protobuf"
    )
    group = Group(1, 9, (Run("tcp/1", 1, 9, frames),))
    ids = [message.id for message in renderer.render(group).messages]
    known = renderer._short._known[False]

    def forgetful(data: bytes) -> Any:
        known.clear()
        gc.collect()
        return hashlib.sha256(data)

    compiled.hash_with(forgetful, 0, 0, 0)
    assert [message.id for message in renderer.render(group).messages] == ids
    assert not known


def test_functions_that_hash_another_way_are_not_used(hashing: None) -> None:
    """Else every id would silently be another."""
    begin, update, end = openssl()
    if not begin:
        pytest.skip("OPENSSL IS NOT FOUND here, so that hashlib is called")
    library = ctypes.CDLL(_hashlib.__file__)
    other = ctypes.cast(library.SHA224_Init, ctypes.c_void_p).value
    leaves = [bytes([number]) * 32 for number in range(5)]
    for given in ((other, update, end), (begin, update, 0), (begin, 0, end), (0, 0, 0)):
        compiled.hash_with(hashlib.sha256, *given)
        assert merkle_root(leaves) == merkle_root(leaves, None)


def test_the_root_is_that_of_a_list_or_a_tuple() -> None:
    assert compiled.merkle_root(iter([bytes(32)])) is None
    assert compiled.merkle_root([]) is None
    assert compiled.merkle_root([bytes(31)]) is None


def test_limits_that_no_setting_has() -> None:
    stream = frame(b"four")
    assert compiled.whole(stream, -1) == (0, 0)
    assert compiled.whole(b"\x01\xff\xff\xff\xff" + bytes(9), 2**40) == (0, 0)
    (first, *_) = _messages(3)
    written, at = compiled.records([first, first], 0, {_LAYOUT: _PREPARED["records"]}, repr, -5)
    assert (len(written) > 0, at) == (True, 1)
