"""The records of a victim's journal: those that the bridge derived are told from the feed's."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from tests.support.journal_file import JournalFile, Stored, event_id, payloads_of

__all__ = ["OWN_PEER", "Records", "peers"]

OWN_PEER = "bridge"
_FEED = 1
_RUN = struct.Struct("<qIIB")


class Records(JournalFile):
    """Like its base; a record is of the feed if a peer of the feed sent it.

    The bridge's own are alerts, receipts, and commits that it took out of a block.
    """

    def stored(self, after: int = 0) -> list[Stored]:
        found = []
        for first, _, head, frames in self._rows(after):
            records = zip(peers(head), payloads_of(frames), strict=True)
            for seq, (peer, (type_, payload)) in enumerate(records, first):
                if type_ == _FEED:
                    kind, id_ = event_id(payload)
                else:
                    name, _, _ = payload.partition(b"\0")
                    kind, id_ = name.decode(), hashlib.sha256(payload).hexdigest()[:32]
                found.append(Stored(seq, peer != OWN_PEER, kind, id_))
        return found


def peers(head: bytes) -> Iterator[str]:
    """Yield the peer of each record of a group."""
    at = 0
    while at < len(head):
        _, count, _, size = _RUN.unpack_from(head, at)
        at += _RUN.size
        peer = head[at : at + size].decode()
        at += size
        for _ in range(count):
            yield peer
