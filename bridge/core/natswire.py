r"""Writes messages as blocks of the NATS protocol, many at a time.

    HPUB <subject> [reply] <bytes of headers> <bytes in all>\r\n
    NATS/1.0\r\n<name>: <value>\r\n ... \r\n<data>\r\n

(NATS client protocol; an atomic batch is told by headers `Nats-Batch-*`, server 2.12.) What all
messages of a layout have in common is written once; the rest is filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from urllib.parse import quote

from bridge.core.native import native
from bridge.core.routing import Routes
from bridge.model import Layout, Message

__all__ = ["NatsWire", "after"]

_MOST_LAYOUTS = 1_000
_Prepared = tuple[bytes, tuple[bytes, ...], bytes, bytes]
"""Headers that never differ, names of those that do, name of the number's header, subject."""
_VERSION, _LINE, _ID = b"NATS/1.0\r\n", b"\r\n", b"Nats-Msg-Id: "
_BEHIND = b"Nats-Expected-Last-Msg-Id: %b\r\n"
_WINDOW = b"bridge-window: 1\r\n"
"""On messages of which each is stored or refused alone: of such a one, it is not certain that those
before it are there."""


class NatsWire:
    """Encodes for one stream. `epoch` is the journal's; without `compiled` it is slower."""

    def __init__(
        self, stream: str, routes: Routes, epoch: str, compiled: ModuleType | None = native
    ) -> None:
        self._compiled = compiled
        self._stream = stream
        self._routes = routes
        self._epoch = epoch
        self._layouts: dict[Layout, _Prepared] = {}

    def block(
        self,
        messages: list[Message],
        reply: str,
        batch: str | None = None,
        behind: str | None = None,
    ) -> bytes:
        """Return the commands that publish `messages`.

        Without more, the server answers each to `reply` and its number in the sequence. As an atomic
        `batch` of that name they are answered once, to `reply` and 0; so is a chain, in which each
        is stored only directly behind the one before, and the first one where `behind` says, which is
        what `after` returns, or empty.
        """
        if self._compiled is not None:
            found: bytes = self._compiled.block(
                messages, self._layouts, self._prepare, reply, batch, behind
            )
            return found
        return self._block(messages, reply, batch, behind)

    def _block(
        self, messages: Sequence[Message], reply: str, batch: str | None, behind: str | None
    ) -> bytes:
        block: list[bytes] = []
        last = len(messages) - 1
        for place, message in enumerate(messages):
            data = message.data
            constants, names, seq, subject = self._layouts.get(message.layout) or self._prepare(
                message.layout
            )
            inbox = f"{reply}{place}"
            # The server looks for its own headers a dozen times, from the front.
            head = [_VERSION]
            if behind:
                head.append(_BEHIND % behind.encode() if place else behind.encode())
            if batch is not None:
                head.append(b"Nats-Batch-Id: %b\r\n" % batch.encode())
                head.append(b"Nats-Batch-Sequence: %d\r\n" % (place + 1))
                if place == last:
                    head.append(b"Nats-Batch-Commit: 1\r\n")
            if behind is not None:
                behind = message.id
            if batch is not None or behind is not None:
                inbox = f"{reply}0" if place == last else ""
            elif last:
                head.append(_WINDOW)
            head += (_ID, message.id.encode(), _LINE, constants)
            head += (seq, b"%d" % message.seq, _LINE)
            for name, value in zip(names, message.values, strict=True):
                head += (name, value.encode(), _LINE)
            if message.token:
                subject += b"." + message.token.encode()
            size = sum(map(len, head)) + 2
            start = b"HPUB %b %b %d %d\r\n" % (subject, inbox.encode(), size, size + len(data))
            block += (start, *head, _LINE, data, _LINE)
        return b"".join(block)

    def _prepare(self, layout: Layout) -> _Prepared:
        constant = {"Nats-Expected-Stream": self._stream}
        constant |= {f"ce-{name}": _encoded(value) for name, value in layout.constants}
        constant["bridge-epoch"] = self._epoch
        lines = (*[f"{name}: {value}" for name, value in constant.items()], "")
        if len(self._layouts) >= _MOST_LAYOUTS:
            self._layouts.clear()
        prepared = self._layouts[layout] = (
            "\r\n".join(lines).encode(),
            # Hashes, numbers, names and times: none of the values needs the binding's encoding.
            tuple(f"ce-{name}: ".encode() for name in layout.names),
            b"bridge-seq: ",
            self._routes.topics[layout.kind].encode(),
        )
        return prepared


def after(id_: str, number: int) -> str:
    """Return the headers by which a message is stored only behind that one, of that number."""
    return f"Nats-Expected-Last-Msg-Id: {id_}\r\nNats-Expected-Last-Sequence: {number}\r\n"


def _encoded(value: str) -> str:
    """Percent-encode `value` as the NATS binding says: space, quote, percent, and non-ASCII."""
    return quote(value, safe="!#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
