"""Writes `docs/performance.md` from the figures of one run."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"

_PROTOTYPE = {"journal": 468_000, "kafka": 268_000, "nats": 171_000, "both": 107_000}
"""Events of 178 bytes, protobuf, of a prototype of the same shape without headers, settings or
error handling (`speeds.md` of the project's papers): how far a bridge is from what can be done."""

_HEAD = """# How fast it is

Written by `make bench BENCH_ARGS="--json FILE"` from the figures of one run. They are of one machine:

> {machine}

The bridge runs as one process, with its journal synced at every commit, and the brokers, the sender
and the measuring share the same cores: ratios mean more than figures. *Accepted* is from the socket
into the synced journal, *published* until every sink has acknowledged the last event. "190 B" are
entry commits, "1 KB" a mix with the proportions of real feeds, "10 KB" entry reveals, blocks have 100
KB to 1.5 MB. "always" is a NATS server that syncs each write, as the embedded one does. The script is
written by hand (`tests/bench/reference.py`) and sends from memory: no socket, journal, headers or
recovery. The end of a run is told by polling every 20 ms: above about 500,000/s the figure is coarse.

| events | to | format | accepted/s | published/s | MB/s | CPU s per 100,000 | of the prototype |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |
"""


def page(machine: str, found: dict[str, dict[str, float]]) -> str:
    """Return the page for `found`: figures by the name of the case."""
    lines = []
    for name, figures in found.items():
        method, *rest = name.split(" ")
        format_ = rest.pop() if rest[-1] in {"protobuf", "json"} else ""
        target = " ".join(rest)
        best = _PROTOTYPE.get(target) if (method, format_) != ("commit", "json") else None
        known = best is not None and method == "commit"
        ratio = f"{figures['published'] / best:.2f}" if known and best else ""
        lines.append(
            f"| {method} | {target} | {format_} | {figures['accepted']:,.0f} |"
            f" {figures['published']:,.0f} | {figures['megabytes']:,.0f} | {figures['cpu']:.2f} |"
            f" {ratio} |"
        )
    return _HEAD.format(machine=machine) + "\n".join(lines) + "\n"
