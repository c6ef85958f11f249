"""Nodes that send events for as long as somebody takes them, and remember what they sent.

No directory blocks: those are in `chain_feed`.
"""

from __future__ import annotations

import asyncio
import random
import time

from tests.support.journal_file import event_id
from tests.support.maker import Maker

__all__ = ["Feed"]

_BURSTS_PER_SECOND = 20
_DRAIN_SECONDS = 5


class Feed:
    """One node. `sent` holds the ids of all that was sent, whole or not, with their place."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._maker = Maker(seed)
        self.sent: dict[str, int] = {}
        self.ends = asyncio.Event()
        self.turned_away = 0
        """How often a bridge closed the connection, or refused one."""

    async def bursts(self, port: int) -> None:
        """Send bursts, cut anywhere, until the peer goes away."""
        writer = None
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                burst = b"".join(self.frame() for _ in range(self._random.randint(1, 24)))
                cut = self._random.randrange(len(burst))
                writer.write(burst[:cut])
                await asyncio.sleep(self._random.uniform(0, 0.02))
                writer.write(burst[cut:])
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            if writer is not None:
                writer.transport.abort()

    async def steadily(self, port: int, per_second: int, *, comes_back: bool = False) -> None:
        """Send at a pace until `ends` is set.

        A bridge that no longer reads, or closes the connection, is a failure; or, with
        `comes_back`, that is given up which was not taken, or happens meanwhile, as by a node.
        """
        while not self.ends.is_set():
            try:
                await self._steadily(port, per_second)
            except OSError as error:
                if not comes_back:
                    raise
                self.turned_away += isinstance(error, ConnectionError)
                for _ in range(per_second // 5):
                    self.frame()
                await asyncio.sleep(0.2)

    async def _steadily(self, port: int, per_second: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        began, before = time.monotonic(), len(self.sent)
        try:
            while not self.ends.is_set():
                due = int((time.monotonic() - began) * per_second) - len(self.sent) + before
                writer.write(b"".join(self.frame() for _ in range(due)))
                await asyncio.wait_for(writer.drain(), _DRAIN_SECONDS)
                await asyncio.sleep(1 / _BURSTS_PER_SECOND)
            writer.close()
            await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def some(self, port: int, count: int) -> None:
        """Send `count` events in small bursts."""
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        for start in range(0, count, 20):
            writer.write(b"".join(self.frame() for _ in range(min(20, count - start))))
            await writer.drain()
            await asyncio.sleep(0.003)
        writer.close()
        await writer.wait_closed()

    def frame(self) -> bytes:
        """Return the next event, and remember it."""
        draw = self._random.random()
        if draw < 0.002:
            made = self._maker.reveal(300_000)
        elif draw < 0.4:
            made = self._maker.reveal(int(self._random.expovariate(1 / 1200)))
        else:
            made = self._maker.commit()
        self.sent[event_id(made[5:])[1]] = len(self.sent)
        return made
