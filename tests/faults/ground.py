"""What the faults stand on: brokers that are started when first asked for, and a folder."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Self

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker

__all__ = ["Ground"]

_START_SECONDS = 300
"""On a machine that does much else at the time."""


class Ground:
    """Two healthy brokers, and folders whose names are names on the brokers too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._numbers = count(1)
        self.tries = 0
        """Tries so far."""

    @cached_property
    def kafka(self) -> KafkaBroker:
        broker = KafkaBroker(self.folder("kafka"))
        broker.start_seconds = _START_SECONDS
        return self._stack.enter_context(broker)

    @cached_property
    def nats(self) -> NatsBroker:
        return self._stack.enter_context(NatsBroker(self.folder("nats")))

    def folder(self, name: str) -> Path:
        """Return a new folder."""
        made = self._folder / f"{name}-{next(self._numbers)}"
        made.mkdir(parents=True)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
