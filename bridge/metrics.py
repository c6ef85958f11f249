"""Everything that is counted. Names and labels of metrics stand in this file and nowhere else.

The object is made in `app` with a registry of its own; its methods are named after what happened.
Labels come from fixed sets: no address, hash or message text is ever one.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from bridge import __version__
from bridge.errors import BridgeError
from bridge.model import Kind, Message, Run, Way

__all__ = ["Metrics"]

_COMMIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class Metrics:
    """The bridge's metrics, in Prometheus' terms."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"bridge_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"bridge_{name}", text, labels, registry=self.registry)

        Info("bridge", "Version of the bridge", registry=self.registry).info(
            {"version": __version__}
        )
        self._accepted = counter(
            "events_accepted_total", "Events committed to the journal", "transport"
        )
        self._accepted_bytes = counter(
            "accepted_bytes_total", "Bytes of frames committed to the journal", "transport"
        )
        self._commit = Histogram(
            "bridge_commit_seconds",
            "Time of one commit, sync included",
            buckets=_COMMIT_BUCKETS,
            registry=self.registry,
        )
        self._refused = counter("refused_total", "Input refused or given up, by reason", "reason")
        self._connections = gauge("connections", "Peers of the feed connected now", "transport")
        self._published = counter(
            "messages_published_total", "Messages acknowledged by the broker", "sink", "kind"
        )
        self._duplicates = counter(
            "duplicates_total", "Messages that the broker had already, by their id", "sink"
        )
        self._left_out = counter(
            "events_left_out_total",
            "Events of which no message is made, by reason",
            "sink",
            "reason",
        )
        self._dead_letters = counter(
            "dead_letters_total", "Dead letters published, by reason", "sink", "reason"
        )
        self._set_aside = counter(
            "claim_checks_total", "Messages too large for the broker, stored beside it", "sink"
        )
        self._lag = gauge("sink_lag_events", "Events accepted and not yet published", "sink")
        self._lag_seconds = gauge(
            "sink_lag_seconds", "Age of the oldest event not yet published", "sink"
        )
        self._sink_up = gauge("sink_up", "1 while the broker takes messages", "sink")
        self._sink_errors = counter(
            "sink_errors_total", "Failures of a sink, by code", "sink", "code"
        )
        self._regressed = counter(
            "sink_regressed_total", "Times that a sink had lost what it had acknowledged", "sink"
        )
        self._tracker_lag = gauge("tracker_lag_events", "Events accepted and not yet tracked")
        self._gaps = gauge("gaps_open", "Gaps in the heights of directory blocks")
        self._missing = gauge("heights_missing", "Heights missing in all open gaps")
        self._highest = gauge("height_highest", "Highest directory block seen")
        self._blocks = counter("blocks_total", "Directory blocks received, by verdict", "verdict")
        self._alerts = counter("alerts_total", "Alerts of the tracker", "type", "status")
        self._recovered = counter(
            "events_recovered_total", "Commits and reveals published out of blocks", "way"
        )
        self._backfill_requests = counter(
            "backfill_requests_total", "Times that the node was asked for blocks", "way", "outcome"
        )
        self._backfill_blocks = counter(
            "backfill_blocks_total", "Blocks fetched over the node's API and journalled"
        )
        self._backfill_entries = counter(
            "backfill_entries_total", "Entries fetched over the node's API and journalled"
        )
        self._backfill_refused = counter(
            "backfill_refused_total", "Answers of the node's API not believed, by reason", "reason"
        )
        self._cut_off = counter(
            "journal_cut_off_total", "Commits lost with a damaged end of the journal"
        )
        self._quarantined = gauge(
            "records_quarantined", "Records that are not decoded: the process died at them"
        )
        self._forgotten = gauge(
            "blocks_forgotten", "Doubted and unverified blocks forgotten to stay within bounds"
        )
        self._journal_bytes = gauge("journal_bytes", "Size of the journal's live pages")
        self._journal_head = gauge("journal_head", "Number of the last record")
        self._storage_refusals = counter(
            "storage_refusals_total", "Writes that the journal's disk refused", "code"
        )
        self._log_failures = gauge("log_failures", "How often the log could not be written")
        self._tasks = gauge("tasks", "Tasks of the event loop: steady, whatever comes and goes")

    # The feed

    def committed(self, runs: Sequence[Run], seconds: float) -> None:
        """Runs became durable."""
        self._commit.observe(seconds)
        for run in runs:
            transport = run.peer.partition("/")[0]
            self._accepted.labels(transport).inc(run.records)
            self._accepted_bytes.labels(transport).inc(len(run.frames))

    def refused(self, reason: str, count: int = 1) -> None:
        """Input was refused, dropped or given up."""
        self._refused.labels(reason).inc(count)

    def connections(self, transport: str, count: int) -> None:
        """The number of peers changed."""
        self._connections.labels(transport).set(count)

    # The sinks

    def published(
        self, sink: str, kinds: Mapping[Kind, Sequence[Message]], duplicates: int
    ) -> None:
        """A batch was acknowledged."""
        for kind, messages in kinds.items():
            self._published.labels(sink, kind.value).inc(len(messages))
        for letter in kinds.get(Kind.DEAD_LETTER, ()):
            self._dead_letters.labels(sink, letter.token).inc()
        if duplicates:
            self._duplicates.labels(sink).inc(duplicates)

    def left_out(self, sink: str, reasons: Counts[str]) -> None:
        """Events gave no message, as the settings or the feed itself say."""
        for reason, count in reasons.items():
            self._left_out.labels(sink, reason).inc(count)

    def set_aside(self, sink: str) -> None:
        """A message too large was stored beside the broker's stream."""
        self._set_aside.labels(sink).inc()

    def watch_sink(
        self, sink: str, lag: Callable[[], float], lag_seconds: Callable[[], float]
    ) -> None:
        """Ask these for the lag at each scrape."""
        self._lag.labels(sink).set_function(lag)
        self._lag_seconds.labels(sink).set_function(lag_seconds)

    def watch_tracker(self, lag: Callable[[], float]) -> None:
        """Ask this for the lag at each scrape."""
        self._tracker_lag.set_function(lag)

    def sink_up(self, sink: str, *, up: bool) -> None:
        """The sink began or ceased to take messages."""
        self._sink_up.labels(sink).set(up)

    def sink_failed(self, sink: str, error: BridgeError) -> None:
        """The sink failed, and will be tried again."""
        self._sink_errors.labels(sink, error.code).inc()

    def sink_regressed(self, sink: str) -> None:
        """The sink lost what it had acknowledged."""
        self._regressed.labels(sink).inc()

    # The tracker

    def heights(self, gaps: int, missing: int, highest: int | None) -> None:
        """The tracker's state is this."""
        self._gaps.set(gaps)
        self._missing.set(missing)
        self._highest.set(highest if highest is not None else -1)

    def blocks_forgotten(self, count: int) -> None:
        """So many were, since the start."""
        self._forgotten.set(count)

    def block_judged(self, verdict: str) -> None:
        """A directory block came, and is this beside the others."""
        self._blocks.labels(verdict).inc()

    def alerted(self, type_: str, status: str) -> None:
        """An alert was made."""
        self._alerts.labels(type_, status).inc()

    def recovered(self, way: str, count: int) -> None:
        """Events that did not come were taken out of a block: of the feed, or of the API."""
        self._recovered.labels(way).inc(count)

    # Backfill

    def asked_node(self, way: Way, outcome: str) -> None:
        """The node was asked: what was asked for `came`, `nothing-came`, or the code of an error."""
        self._backfill_requests.labels(way.value, outcome).inc()

    def block_fetched(self) -> None:
        """A block that came over the API is in the journal."""
        self._backfill_blocks.inc()

    def entries_fetched(self, count: int) -> None:
        """Entries that came over the API are in the journal."""
        self._backfill_entries.inc(count)

    def answer_refused(self, reason: str) -> None:
        """What the API answered is not what was asked for."""
        self._backfill_refused.labels(reason).inc()

    # The journal

    def journal_measured(self, used_bytes: int, head: int) -> None:
        """The journal has this size."""
        self._journal_bytes.set(used_bytes)
        self._journal_head.set(head)

    def journal_cut_off(self, commits: int) -> None:
        """The end of the journal was damaged."""
        self._cut_off.inc(commits)

    def quarantined(self, count: int) -> None:
        """So many records are not to be decoded, from this start on."""
        self._quarantined.set(count)

    def storage_refused(self, error: BridgeError) -> None:
        """A write did not go through."""
        self._storage_refusals.labels(error.code).inc()

    # The process

    def watch_log(self, failures: Callable[[], float]) -> None:
        """Ask this at each scrape how often the log could not be written."""
        self._log_failures.set_function(failures)

    def watch_tasks(self, count: Callable[[], float]) -> None:
        """Ask this for the number of tasks at each scrape."""
        self._tasks.set_function(count)
