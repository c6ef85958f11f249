# What _native.c gives where it was built; there each function is told.

from collections.abc import Callable, Sequence
from typing import Any

from bridge.model import Kind, Layout, Message

class LazyMessage:
    seq: int
    id: str
    key: str | None
    token: str
    layout: Layout
    values: tuple[str, ...]
    data: bytes
    data_size: int

def hash_with(sha256: Callable[[bytes], Any], begin: int, update: int, end: int, /) -> None: ...
def whole(buffer: bytes | memoryview, limit: int, /) -> tuple[int, int]: ...
def table(fields: tuple[tuple[int, int, bool, bool, bool, bytes, Any], ...], /) -> Any: ...
def form(table: Any, data: bytes | memoryview, /) -> tuple[int, int]: ...
def json(table: Any, data: bytes, /) -> bytes | None: ...
def events(
    frames: bytes,
    at: int,
    seq: int,
    received: str,
    known: dict[bytes, tuple[Layout, bytes, tuple[str, ...], Any]],
    states: tuple[str, ...],
    message: type[LazyMessage],
    out: list[Message],
    /,
) -> tuple[int, int]: ...
def identities(frames: bytes, at: int, out: list[int], heights: list[int], /) -> int: ...
def remember(known: set[int], ids: Sequence[int], /) -> bytes: ...
def merkle_root(leaves: Sequence[bytes], /) -> bytes | None: ...
def credit_body(block: bytes, /) -> bytes | None: ...
def credit_identities(block: bytes, /) -> list[int] | None: ...
def by_kind(messages: Sequence[Message], /) -> tuple[dict[Kind, list[Message]], int]: ...
def records(
    messages: list[Message],
    at: int,
    prepared: dict[Layout, tuple[bytes, tuple[bytes, ...], bytes, int]],
    prepare: Callable[[Layout], object],
    most: int,
    /,
) -> tuple[bytes, int]: ...
def block(
    messages: list[Message],
    prepared: dict[Layout, tuple[bytes, tuple[bytes, ...], bytes, bytes]],
    prepare: Callable[[Layout], object],
    reply: str,
    batch: str | None,
    behind: str | None,
    /,
) -> bytes: ...
