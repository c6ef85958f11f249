"""Renders groups so that a record at which the process dies is known at the next start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bridge.core.flight import Flight, Work
from bridge.core.render import Rendered, Renderer
from bridge.model import Group

__all__ = ["carefully"]


def carefully(renderer: Renderer, group: Group, flight: Flight) -> Rendered:
    """Return `group` as messages, with a dead letter in place of each quarantined record."""
    return _joined(group, [_part(renderer, part, flight) for part in flight.parts(group)])


def _joined(group: Group, parts: Sequence[Rendered]) -> Rendered:
    """Return `parts`, which are the records of `group` in order, as one."""
    if len(parts) == 1:
        return parts[0]
    return Rendered(
        group.first,
        group.last,
        [message for part in parts for message in part.messages],
        sum([part.left_out for part in parts], Counter[str]()),
        any(part.blocks for part in parts),
    )


def _part(renderer: Renderer, part: Group, flight: Flight) -> Rendered:
    if flight.bars(part):
        return renderer.quarantined(part)
    flight.begin(Work.RENDERING, part)
    rendered = renderer.render(part)
    flight.end(Work.RENDERING, part)
    return rendered
