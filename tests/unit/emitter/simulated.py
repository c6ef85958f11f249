"""A simulated node whose sender keeps what it is given."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.emitter.archive import Archive
from bridge.emitter.block import Load
from bridge.emitter.chain import Chain
from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.faults import Faults
from bridge.emitter.node import Node, Outlet
from bridge.emitter.sender import Sender
from bridge.pb.eventmessages.factomEvents_pb2 import (
    DirectoryBlockCommit,
    FactomEvent,
)

__all__ = ["START", "Queue", "ran", "told"]

START = 1_767_225_600_000


class Queue(Sender):
    """A sender that sends nothing and keeps everything."""

    def __init__(self, config: LiveFeedConfig | None = None) -> None:
        super().__init__(config or LiveFeedConfig(enabled=True))
        self.events: list[FactomEvent] = []
        self.waited: list[bool] = []

    def offer(self, event: FactomEvent | bytes, /) -> bool:
        self._keep([event], waits=False)
        return True

    async def feed(self, events: Iterable[FactomEvent | bytes]) -> None:
        self._keep(events, waits=True)

    def _keep(self, events: Iterable[FactomEvent | bytes], *, waits: bool) -> None:
        for event in events:
            assert isinstance(event, FactomEvent)
            self.events.append(event)
            self.waited.append(waits)

    @property
    def told(self) -> list[str]:
        return [told(event) for event in self.events]

    @property
    def blocks(self) -> list[DirectoryBlockCommit]:
        return [
            event.directoryBlockCommit
            for event in self.events
            if event.HasField("directoryBlockCommit")
        ]

    @property
    def heights(self) -> list[int]:
        return [block.directoryBlock.header.blockHeight for block in self.blocks]


def told(event: FactomEvent) -> str:
    """Return what `event` is about: its kind, and heights and minutes."""
    kind = event.WhichOneof("event") or "nothing"
    match kind:
        case "directoryBlockCommit":
            return f"block {event.directoryBlockCommit.directoryBlock.header.blockHeight}"
        case "directoryBlockAnchor":
            return f"anchor {event.directoryBlockAnchor.blockHeight}"
        case "processListEvent":
            begun = event.processListEvent
            if begun.HasField("newBlockEvent"):
                return f"new {begun.newBlockEvent.newBlockHeight}"
            return f"minute {begun.newMinuteEvent.blockHeight}/{begun.newMinuteEvent.newMinute}"
    return kind


async def ran(
    blocks: int,
    *faults: str,
    config: LiveFeedConfig | None = None,
    first: int = 0,
    seed: int = 1,
    archive: Archive | None = None,
    load: Load | None = None,
) -> Queue:
    queue, chosen = Queue(config), Faults.parse(*faults)
    node = Node(
        Chain(seed, first=first, load=load),
        Outlet(queue, chosen, seed),
        start=START,
        block_seconds=0,
        faults=chosen,
        archive=archive,
    )
    await node.run(blocks)
    return queue
