"""`factom-bridge run`, which dies as if the protobuf library did, at a payload that holds `POISON`.

Run by the tests as `python -m tests.faults.poison run`, with POISONED in the environment: the module
whose parser dies. Nothing of this is in the bridge: the library is wrapped here.
"""

from __future__ import annotations

import importlib
import os
import resource
from collections.abc import Callable
from typing import Any

from bridge.__main__ import main
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent

__all__ = ["POISON"]

POISON = b"poison: whoever parses this dies"


def _deadly(parse: Callable[[bytes], FactomEvent]) -> Callable[[bytes], FactomEvent]:
    def parses(payload: bytes) -> FactomEvent:
        if POISON in payload:
            os.abort()
        return parse(payload)

    return parses


def _run() -> None:
    module: Any = importlib.import_module(os.environ.pop("POISONED"))
    module._from_protobuf = _deadly(module._from_protobuf)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()


if __name__ == "__main__":
    _run()
