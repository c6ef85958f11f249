r"""Writes messages as blocks of the NATS protocol, many at a time.

    HPUB <subject> [reply] <bytes of headers> <bytes in all>\r\n
    NATS/1.0\r\n<name>: <value>\r\n ... \r\n<data>\r\n

(NATS client protocol; an atomic batch is told by headers `Nats-Batch-*`, server 2.12.) What all
messages of a layout have in common is written once; the rest is filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from bridge.core.routing import Routes
from bridge.model import Layout, Message

__all__ = ["NatsWire"]

_MOST_LAYOUTS = 1_000
_WINDOW = "bridge-window: 1\r\n"
"""On messages of which each is stored or refused alone: of such a one, it is not certain that those
before it are there."""


class NatsWire:
    """Encodes for one stream. `epoch` is the journal's."""

    def __init__(self, stream: str, routes: Routes, epoch: str) -> None:
        self._stream = stream
        self._routes = routes
        self._epoch = epoch
        self._templates: dict[Layout, str] = {}

    def block(self, messages: Sequence[Message], reply: str, batch: str | None) -> bytes:
        """Return the commands that publish `messages`.

        Without a `batch`, the server answers each to `reply` and its number in the sequence. With
        one, they are an atomic batch of that name, answered once, to `reply` and 0.
        """
        block: list[bytes] = []
        last = len(messages)
        subject_of = self._routes.subject
        for number, message in enumerate(messages, 1):
            data = message.data
            head = self._head(message)
            inbox = f"{reply}{number - 1}"
            if batch is None and last > 1:
                head += _WINDOW
            elif batch is not None:
                head += f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n"
                inbox = ""
                if number == last:
                    head += "Nats-Batch-Commit: 1\r\n"
                    inbox = f"{reply}0"
            size = len(head) + 2
            start = f"HPUB {subject_of(message)} {inbox} {size} {size + len(data)}\r\n"
            block += (f"{start}{head}\r\n".encode(), data, b"\r\n")
        return b"".join(block)

    def _head(self, message: Message) -> str:
        template = self._templates.get(message.layout)
        if template is None:
            template = self._template(message.layout)
        return template % (message.id, message.seq, *message.values)

    def _template(self, layout: Layout) -> str:
        constant = {f"ce-{name}": _encoded(value) for name, value in layout.constants}
        constant["Nats-Expected-Stream"] = self._stream
        constant["bridge-epoch"] = self._epoch
        lines = [f"{name}: {value}".replace("%", "%%") for name, value in constant.items()]
        # Hashes, numbers, names and times: none of the values needs the binding's encoding.
        lines += ["Nats-Msg-Id: %s", "bridge-seq: %d"]
        lines += [f"ce-{name}: %s" for name in layout.names]
        template = "\r\n".join(("NATS/1.0", *lines, ""))
        if len(self._templates) < _MOST_LAYOUTS:
            self._templates[layout] = template
        return template


def _encoded(value: str) -> str:
    """Percent-encode `value` as the NATS binding says: space, quote, percent, and non-ASCII."""
    return quote(value, safe="!#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
