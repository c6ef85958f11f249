"""The sender's two counters, by the names that factomd's documentation gives them.

No node exports them: there they are made and never registered. Here they are, once `Counters` is
registered. Their names lack the suffix `_total` that a Prometheus counter has, so they are exported
as untyped: as counters they would appear by other names.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import UnknownMetricFamily
from prometheus_client.registry import Collector

__all__ = ["DROPPED", "NOT_SENT", "Counters"]

DROPPED = "factomd_livefeed_dropped_from_queue_counter"
NOT_SENT = "factomd_livefeed_not_send_counter"


class Counters(Collector):
    """Events lost, since the start."""

    def __init__(self) -> None:
        self.dropped = 0
        """Found the queue full."""
        self.not_sent = 0
        """Left the queue and did not reach the receiver, as far as the sender can tell."""

    def collect(self) -> Iterator[UnknownMetricFamily]:
        """Yield both, for a registry of `prometheus_client`."""
        yield UnknownMetricFamily(DROPPED, "Events dropped from the full queue", self.dropped)
        yield UnknownMetricFamily(NOT_SENT, "Events that could not be sent", self.not_sent)
