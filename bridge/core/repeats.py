"""Leaves out the directory blocks that went out before.

Nodes replay blocks over and over, and several nodes send the same; no broker but JetStream knows a
message again. What is forgotten, with a restart or because it is long ago, goes out again with the
same id.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from bridge.core.render import Rendered
from bridge.model import Kind, Message

__all__ = ["Repeats"]

_KNOWN = 5_000
"""Blocks that are known again: as many as a node's queue holds."""


class Repeats:
    """What one lane has sent, or is about to send: it must be asked in the order of the journal."""

    def __init__(self, known: int = _KNOWN) -> None:
        self._known = known
        self._first: OrderedDict[str, int] = OrderedDict()
        """Number of the first record of each block, by the message's id."""

    def without(self, rendered: Rendered) -> Rendered:
        """Return `rendered` without blocks of which an earlier record gave the same message."""
        if not rendered.blocks:
            return rendered
        kept: list[Message] = []
        for message in rendered.messages:
            if message.layout.kind is Kind.DIRECTORY_BLOCK_COMMIT:
                # The same record may be asked for again: after an error it is sent again.
                if self._first.setdefault(message.id, message.seq) < message.seq:
                    continue
                if len(self._first) > self._known:
                    self._first.popitem(last=False)
            kept.append(message)
        repeats = len(rendered.messages) - len(kept)
        if not repeats:
            return rendered
        left_out = rendered.left_out + Counter(repeated=repeats)
        return rendered._replace(messages=kept, left_out=left_out)

    def forget(self) -> None:
        """Begin anew: the broker has lost something."""
        self._first.clear()
