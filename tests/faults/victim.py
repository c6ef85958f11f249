"""One bridge that is hurt, its feed, and what its journal had accepted at each of its ends."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import spawn
from tests.faults.chain_feed import ChainFeed
from tests.faults.feed import Feed
from tests.faults.ground import Ground
from tests.faults.records import Records
from tests.faults.replay import GRACE, NO_JOURNAL_YET, Replay
from tests.faults.tally import FORMAT, Tally, in_stream, in_topics
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import Read
from tests.support.journal_file import Stored
from tests.support.sinks import Sinks

__all__ = ["Launched", "Victim"]

_FINISH_SECONDS = 60

_BOTH = {"BRIDGE_JOURNAL__LARGE_BYTES": "12288"}
"""What is sent comes in small bursts: so some commits are in rows of the database, others in segments."""


class Launched(BridgeProcess):
    """A bridge started otherwise: by another module, beneath a tracer, with another library."""

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        *,
        module: str = "bridge",
        under: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, {**FORMAT, **_BOTH, **environ})
        self.module = module
        self.under = under

    def launch(self) -> None:
        (self.folder / "ports.json").unlink(missing_ok=True)
        self.ports = {}
        command = [*self.under, sys.executable, "-m", self.module, "run"]
        self._process = spawn(command, self.log, self.environ)

    def run_to_end(self) -> int:
        """Start it where another one runs, whose ports stay told; return its exit code."""
        command = [sys.executable, "-m", self.module, "run"]
        self._process = spawn(command, self.log, self.environ)
        return self.wait()

    @property
    def receives(self) -> bool:
        """Whether it told its ports since it was launched."""
        return self._has_written_ports()


class Victim:
    """Publishes to a Kafka and a NATS broker; to those of `ground` where none is given.

    With `replayed` a chain grows in its feed, and its tracker's state is compared with a replay's
    wherever it is noted and started again.
    """

    def __init__(
        self,
        ground: Ground,
        name: str,
        seed: int,
        environ: Mapping[str, str] | None = None,
        *,
        kafka: KafkaBroker | None = None,
        nats: NatsBroker | None = None,
        replayed: bool = False,
    ) -> None:
        folder = ground.folder(name)
        self._ground = ground
        self.sinks = Sinks(kafka or ground.kafka, nats or ground.nats, folder.name)
        self.random = random.Random(seed)
        self.feed = ChainFeed(seed) if replayed else Feed(seed)
        own = {**self.sinks.environ, **(GRACE if replayed else {}), **(environ or {})}
        self.bridge = Launched(folder, own)
        self.journal = Records(folder)
        self.tally = Tally()
        self._replay = Replay(folder) if replayed else None
        self._accepted: dict[int, Stored] = {}

    async def start(self, *, ready: bool) -> None:
        """Start the bridge; the time until it receives, or until all works, is a recovery."""
        comparing = asyncio.create_task(self.compare())
        began = time.monotonic()
        await asyncio.to_thread(self.bridge.start)
        if ready:
            await asyncio.to_thread(self.bridge.wait_ready)
        self.tally.recovered(time.monotonic() - began)
        await comparing

    def tried(self) -> None:
        """Count one try."""
        self.tally.tries += 1
        self._ground.tries += 1

    async def compare(self) -> None:
        """Compare the tracker's state with the replay's, as it was when last noted."""
        if self._replay is None or not self._accepted:
            return
        different = await self._replay.differences()
        if different:
            self.tally.broken += different
            # All that follows differs too.
            self._replay = None
        else:
            self.tally.compared += 1

    async def fed(self) -> None:
        """Feed a bridge that was launched, as soon as it receives, until it ends."""
        while self.bridge.pid is not None:
            if self.bridge.receives:
                await self.feed.bursts(self.bridge.feed_port)
                return
            await asyncio.sleep(0.01)

    async def recovered(self, since: float, seconds: float = _FINISH_SECONDS) -> None:
        """Return when all works and is delivered; that is a recovery, since a monotonic time."""
        await asyncio.to_thread(self.bridge.wait_ready, seconds)
        await self.bridge.delivered(0, seconds)
        self.tally.recovered(time.monotonic() - since)

    @property
    def accepted(self) -> list[Stored]:
        """All that was noted, in order."""
        return [self._accepted[seq] for seq in sorted(self._accepted)]

    def note(self) -> int:
        """Note what was accepted since the last time; return how many events of the feed."""
        try:
            new = self.journal.stored(max(self._accepted, default=0))
        except NO_JOURNAL_YET:
            return 0
        self._accepted.update({record.seq: record for record in new})
        if self._replay is not None:
            self._replay.look()
        return sum(record.is_of_feed for record in new)

    async def finish(self) -> None:
        """Let everything through, and end the bridge in order."""
        if self.bridge.pid is None:
            await self.start(ready=True)
        await self.bridge.delivered(0, _FINISH_SECONDS)
        await asyncio.to_thread(self.bridge.stop)
        self.note()

    async def check(self) -> Tally:
        """Compare journal, stream and topics; return all figures of this victim."""
        tally = self.tally
        await self.compare()
        streamed = await self.sinks.streamed()
        accepted = self._all_accepted(streamed)
        kept = self.journal.stored()
        if changed := sum(self._accepted.get(record.seq) != record for record in kept):
            tally.broken.append(f"{changed} records of the journal are not what they were")
        fed = [record.id for record in accepted if record.is_of_feed]
        places = [self.feed.sent.get(id_, -1) for id_ in fed]
        if places != sorted(set(places)):
            tally.broken.append("not accepted in the order of the feed, each once")
        tally.accepted += len(fed)
        tally.add(in_stream(accepted, streamed))
        tally.add(in_topics(accepted, await self.sinks.in_topics()))
        return tally

    def _all_accepted(self, streamed: list[Read]) -> list[Stored]:
        """Return every record, in order; what was trimmed between two notes is told by the stream.

        Numbers have no holes: one that neither the journal nor the stream had is lost.
        """
        found = dict(self._accepted)
        for message in streamed:
            told = Stored(message.seq, message.id in self.feed.sent, message.kind, message.id)
            found.setdefault(message.seq, told)
        if lost := max([*found, *self.journal.positions().values()]) - len(found):
            self.tally.lost += lost
            self.tally.lacking.append(f"{lost} numbers are neither in the journal nor the stream")
        return [found[seq] for seq in sorted(found)]
