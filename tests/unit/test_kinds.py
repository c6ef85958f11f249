"""`core.kinds`: messages by kind, with the compiled part and without it."""

from types import ModuleType

import pytest

from bridge.core.kinds import by_kind
from bridge.core.native import native
from bridge.model import Kind, Layout, Message

COMMIT, OTHER_COMMIT = (Layout(Kind.ENTRY_COMMIT, (), ()) for _ in range(2))
BLOCK = Layout(Kind.DIRECTORY_BLOCK_COMMIT, (), ())


def message(seq: int, layout: Layout, size: int = 0) -> Message:
    return Message(seq, f"{seq}", None, "", layout, (), bytes(size))


@pytest.mark.parametrize("compiled", [native, None])
def test_layouts_of_one_kind_share_its_list_in_their_order(compiled: ModuleType | None) -> None:
    messages = [
        message(1, COMMIT),
        message(2, BLOCK, 7),
        message(3, OTHER_COMMIT, 5),
        message(4, COMMIT),
    ]
    found = by_kind(messages, compiled)
    assert {kind: [each.seq for each in of_it] for kind, of_it in found.messages.items()} == {
        Kind.ENTRY_COMMIT: [1, 3, 4],
        Kind.DIRECTORY_BLOCK_COMMIT: [2],
    }
    assert found.largest == 7


@pytest.mark.parametrize("compiled", [native, None])
def test_of_none_there_are_none(compiled: ModuleType | None) -> None:
    assert by_kind([], compiled) == ({}, 0)
