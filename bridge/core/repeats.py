"""Leaves out the directory blocks that went out before.

Nodes replay blocks over and over, and several nodes send the same; no broker but JetStream knows a
message again. What is forgotten, with a restart or because it is long ago, goes out again with the
same id.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from bridge.core.kinds import by_kind
from bridge.core.render import Rendered
from bridge.model import Kind

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
        repeated = set()
        for block in by_kind(rendered.messages).messages.get(Kind.DIRECTORY_BLOCK_COMMIT, ()):
            # The same record may be asked for again: after an error it is sent again.
            if self._first.setdefault(block.id, block.seq) < block.seq:
                repeated.add(block.seq)
            elif len(self._first) > self._known:
                self._first.popitem(last=False)
        if not repeated:
            return rendered
        kept = [message for message in rendered.messages if message.seq not in repeated]
        left_out = rendered.left_out + Counter(repeated=len(repeated))
        return rendered._replace(messages=kept, left_out=left_out)

    def forget(self) -> None:
        """Begin anew: the broker has lost something."""
        self._first.clear()
