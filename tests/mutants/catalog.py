"""The mutants: what each replaces, which promise that breaks, and which tests are to notice."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["MUTANTS", "ROOT", "Edit", "Mutant"]

ROOT = Path(__file__).parents[2]


class Edit(NamedTuple):
    """One place of the code, made wrong."""

    file: str
    old: str
    """Stands there exactly once."""
    new: str


class Mutant(NamedTuple):
    """One promise, broken."""

    name: str
    breaks: str
    """The rule of docs/delivery.md, and how it no longer holds."""
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]
    """Tests, as pytest names them, of which one at least must fail."""

    def apply(self, folder: Path) -> None:
        """Change the copy of the tree in `folder`.

        Raises:
            SystemExit: the mutant no longer fits the code.
        """
        for edit in self.edits:
            path = folder / edit.file
            text = path.read_text(encoding="utf-8")
            if text.count(edit.old) != 1:
                raise SystemExit(f"{self.name} is stale: {edit.file} has {edit.old!r} not once")
            path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


_FILE = "bridge/journal/file.py"
_SQLITE = "bridge/journal/sqlite.py"
_SEGMENTS = "bridge/journal/segments.py"
_ROWS = "bridge/journal/rows.py"
_PUBLISH = "bridge/stages/publish.py"
_KAFKA = "bridge/sinks/kafka.py"
_NATS = "bridge/sinks/nats.py"
_EXCHANGE = "bridge/sinks/nats_exchange.py"
_DISK = "tests/unit/test_journal_disk.py::"
_JOURNAL = "tests/unit/test_journal.py::"
_SEGMENTS_TEST = "tests/unit/test_segments.py::"
_LANE = "tests/unit/test_publish.py::"
_RENDER = "tests/unit/test_render.py::"
_INTAKE = "tests/unit/test_intake.py::"
_IDLE = "tests/contract/test_idle.py::"
_EMBEDDED = "tests/e2e/test_embedded.py::"
_WATCHDOGS = "tests/e2e/test_watchdogs.py::"
_KAFKA_PRODUCER = "tests/contract/test_kafka_producer.py::"
_TROUBLE = "tests/contract/test_nats_trouble.py::"
_ORDER = "tests/contract/test_nats_order.py::"

MUTANTS = (
    Mutant(
        "synchronous-normal",
        "D1: accepted without a sync",
        (
            Edit(_FILE, '"synchronous = FULL"', '"synchronous = NORMAL"'),
            Edit(_FILE, '("wal", 2)', '("wal", 1)'),
        ),
        (_DISK + "test_what_was_accepted_is_there_after_a_cut_of_the_power",),
    ),
    Mutant(
        "segment-not-synced",
        "D1: the frames of a large commit are accepted without a sync",
        (Edit(_SEGMENTS, "        _sync(self._file)\n", ""),),
        (_DISK + "test_what_was_accepted_is_there_after_a_cut_of_the_power",),
    ),
    Mutant(
        "segment-given-up-too-soon",
        "D4: a segment is used again while rows refer to it",
        (Edit(_SEGMENTS, "or last < kept]", "or last <= kept]"),),
        (_SEGMENTS_TEST + "test_segments_that_nothing_refers_to_are_used_again",),
    ),
    Mutant(
        "segment-read-while-used-again",
        "D8: what was trimmed while it was read is told as damage",
        (Edit(_ROWS, "groups[0].last < first)", "not first)"),),
        (_SEGMENTS_TEST + "test_what_is_trimmed_while_it_is_read_is_no_damage",),
    ),
    Mutant(
        "settings-not-read-back",
        "D1: SQLite's mode is not looked at",
        (Edit(_FILE, '!= ("wal", 2)', "== ()"),),
        (_DISK + "test_where_there_is_no_wal_there_is_no_journal",),
    ),
    Mutant(
        "commit-not-shielded",
        "D2: a cancelled task cancels its commit",
        (Edit(_SQLITE, "await asyncio.shield(writing)", "await writing"),),
        (_JOURNAL + "test_cancelled_appends_are_committed_all_the_same",),
    ),
    Mutant(
        "commit-on-the-loop",
        "D2: whoever commits holds up everybody",
        (
            Edit(
                _SQLITE,
                "writing = asyncio.get_running_loop()"
                ".run_in_executor(self._write_thread, write, *what)",
                "writing = asyncio.get_running_loop().create_future()\n"
                "        writing.set_result(write(*what))",
            ),
        ),
        (_DISK + "test_a_disk_that_takes_long_holds_up_its_commit_and_nothing_else",),
    ),
    Mutant(
        "readers-may-write",
        "D3: more than one connection writes",
        (Edit(_FILE, "SQLITE_OPEN_READONLY", "SQLITE_OPEN_READWRITE"),),
        (_DISK + "test_only_one_connection_can_write",),
    ),
    Mutant(
        "checkpoint-before-acknowledgement",
        "D4: the checkpoint moves, then it is sent",
        (
            Edit(
                _PUBLISH,
                "        await self._set_aside_what_is_too_large(messages)\n",
                "        await self._set_aside_what_is_too_large(messages)\n"
                "        self._journal.checkpoint(self.name, batch.last, sink.mark)\n",
            ),
        ),
        (_LANE + "test_the_checkpoint_moves_only_when_the_broker_has_acknowledged",),
    ),
    Mutant(
        "trim-before-checkpoint",
        "D4: trimmed behind a checkpoint that is not durable",
        (
            Edit(
                _SQLITE,
                "delivered = min(self._durable.values(), default=0)\n            over",
                "delivered = min(self._readers.values(), default=0)\n            over",
            ),
        ),
        (_DISK + "test_nothing_is_trimmed_behind_a_checkpoint_that_is_not_yet_on_the_disk",),
    ),
    Mutant(
        "alert-outside-the-transaction",
        "D4: alerts first, then state and checkpoint",
        (
            Edit(
                "bridge/stages/track.py",
                "await self._journal.advance(READER, self._read, self._said, self._items)",
                "await self._journal.append(self._said)\n"
                "                await self._journal.advance(READER, self._read, [], self._items)",
            ),
        ),
        (
            "tests/unit/test_track_crash.py::test_after_a_crash_behind_any_write_each_word_is_said_once",
        ),
    ),
    Mutant(
        "advance-in-two-transactions",
        "D4: derived records without their checkpoint",
        (
            Edit(
                _SQLITE,
                "reader, seq, items = advance\n",
                'write("COMMIT"); write("BEGIN IMMEDIATE"); reader, seq, items = advance\n',
            ),
        ),
        (_JOURNAL + "test_derived_records_state_and_checkpoint_are_one_transaction",),
    ),
    Mutant(
        "wall-time-in-the-id",
        "D5: the time of the start is in every id",
        (
            Edit(
                "bridge/core/render.py",
                'return kind.encode() + b"\\0"',
                'return kind.encode() + str(__import__("time").time_ns()).encode()',
            ),
        ),
        (_RENDER + "test_the_id_is_the_hash_of_the_kind_and_the_canonical_bytes",),
    ),
    Mutant(
        "receipt-time-in-the-id",
        "D5: when it was received is in every id",
        (
            Edit(
                "bridge/core/render.py",
                "digest = self._salts[kind].copy()",
                "digest = self._salts[kind].copy(); digest.update(received.encode())",
            ),
        ),
        (_RENDER + "test_the_id_does_not_depend_on_node_origin_time_number_or_format",),
    ),
    Mutant(
        "checkpoint-at-the-highest",
        "D6: batches overtake, the last acknowledged counts",
        (Edit(_PUBLISH, "            await before\n", "            pass\n"),),
        (_LANE + "test_of_what_waits_one_batch_at_a_time_is_sent",),
    ),
    Mutant(
        "checkpoint-over-a-failed-partition",
        "D6: what one partition acknowledged counts for all",
        (Edit(_KAFKA, "if errors and not refusals:", "if all(errors) and not outcomes:"),),
        ("tests/contract/test_partial.py::test_what_one_topic_does_not_take_is_not_acknowledged",),
    ),
    Mutant(
        "kafka-sent-again-with-new-numbers",
        "D6: what was stored, and not acknowledged, is not known again",
        (
            Edit(
                "bridge/sinks/kafka_producer.py",
                "{place: parts[number] for place, number in first.items()}",
                "{place: self._numbered(*batches[number]) for place, number in first.items()}",
            ),
        ),
        (_KAFKA_PRODUCER + "test_what_cannot_be_replicated_is_sent_again_until_it_can",),
    ),
    Mutant(
        "kafka-gives-up-what-passes",
        "D6: a leader that moved ends the producer",
        (Edit("bridge/sinks/kafka_producer.py", "elif not kind.retriable:", "else:"),),
        (_KAFKA_PRODUCER + "test_what_cannot_be_replicated_is_sent_again_until_it_can",),
    ),
    Mutant(
        "checkpoint-over-a-hole",
        "D6: the last of a counted window stands for all",
        (Edit(_NATS, ' and "bridge-window" not in headers', ""),),
        ("tests/contract/test_window.py::test_a_hole_in_a_window_is_not_skipped",),
    ),
    Mutant(
        "full-disk-drops-the-batch",
        "D7: what met a full disk is dropped",
        (
            Edit(
                "bridge/stages/intake.py",
                "await asyncio.sleep(self._retry)\n                continue",
                "await asyncio.sleep(self._retry)\n                return",
            ),
        ),
        (_INTAKE + "test_a_full_disk_is_tried_again_with_the_same_batch_and_nothing_is_lost",),
    ),
    Mutant(
        "failed-sync-is-tried-again",
        "D7: a failed sync counts as a full disk",
        (Edit(_FILE, "in _SYNC_FAILURES", "in ()"),),
        (_DISK + "test_a_sync_that_failed_is_not_tried_again",),
    ),
    Mutant(
        "checksum-not-looked-at",
        "D8: damage in the middle is published",
        (Edit("bridge/core/groups.py", "if found != checksum or", "if None is checksum or"),),
        (_JOURNAL + "test_a_damaged_group_is_told_and_its_neighbours_are_read",),
    ),
    Mutant(
        "tail-audit-off",
        "D9: what the sink holds is not compared",
        (Edit(_PUBLISH, "await self._take_stock()", "await asyncio.sleep(0)"),),
        (_LANE + "test_what_the_broker_lost_is_sent_again_and_told_once",),
    ),
    Mutant(
        "tail-audit-off-while-idle-nats",
        "D9: nobody looks each minute (JetStream)",
        (Edit(_NATS, "if state.last_seq < self._stored:", "if state.last_seq < 0:"),),
        (_IDLE + "test_within_a_minute_an_idle_sink_tells_of_a_broker_that_was_set_back",),
    ),
    Mutant(
        "tail-audit-off-while-idle-kafka",
        "D9: nobody looks each minute (Kafka)",
        (Edit(_KAFKA, ">= _AUDIT_SECONDS", ">= float('inf')"),),
        (_IDLE + "test_within_a_minute_an_idle_sink_tells_of_a_broker_that_was_set_back",),
    ),
    Mutant(
        "any-tail-is-ours",
        "D9: another journal's message moves the checkpoint",
        (Edit(_PUBLISH, "(message.seq, message.id) == tail", "message.seq == tail.seq"),),
        (_LANE + "test_what_the_broker_holds_beyond_the_checkpoint_is_not_sent_again",),
    ),
    Mutant(
        "embedded-server-syncs-seldom",
        "D9: the embedded server acknowledges before it syncs",
        (Edit("bridge/embedded.py", "sync_interval: always", "sync_interval: 2m"),),
        (_EMBEDDED + "test_it_keeps_its_store_in_the_journals_folder_and_syncs_each_write",),
    ),
    Mutant(
        "rights-cost-an-event",
        "D10: a missing right is dead-lettered",
        (
            Edit(
                "bridge/sinks/kafka_errors.py",
                "    kafka.InvalidTimestampError,\n",
                "    kafka.InvalidTimestampError,\n    kafka.TopicAuthorizationFailedError,\n",
            ),
        ),
        ("tests/unit/test_kafka_errors.py::test_what_is_no_records_fault_never_costs_a_record",),
    ),
    Mutant(
        "no-backoff",
        "D10: a broker that is away is asked without rest",
        (Edit(_PUBLISH, "min(wait * 2, self._longest_wait)", "wait"),),
        ("tests/unit/test_lane_waits.py::test_attempts_become_fewer_and_never_end",),
    ),
    Mutant(
        "discard-old",
        "D11: a full stream forgets its oldest messages",
        (
            Edit(
                "bridge/sinks/nats_connection.py",
                "discard=DiscardPolicy.NEW,",
                "discard=DiscardPolicy.OLD,",
            ),
        ),
        (_TROUBLE + "test_a_full_stream_keeps_what_it_has_and_takes_the_rest_when_there_is_room",),
    ),
    Mutant(
        "full-stream-is-a-refusal",
        "D11: a full stream costs events",
        (Edit(_NATS, "_FULL = {10023, 10047, 10077}", "_FULL = {0}"),),
        (_TROUBLE + "test_a_full_stream_keeps_what_it_has_and_takes_the_rest_when_there_is_room",),
    ),
    Mutant(
        "chains-not-tied-together",
        "D12: what is sent ahead can overtake what is rejected",
        (Edit(_NATS, "await self._send_chain(batch, tip)", "await self._send_chain(batch)"),),
        (_ORDER + "test_a_list_with_ids_that_are_there_lets_none_behind_it_overtake",),
    ),
    Mutant(
        "prepared-behind-what-is-not",
        "D12: what is set aside is overtaken",
        (Edit(_PUBLISH, "                if not batch.fits:\n", "                if False:\n"),),
        (_LANE + "test_nothing_is_prepared_behind_what_is_not",),
    ),
    Mutant(
        "nobody-answers-is-a-fault",
        "D11: a subject without a stream is not back-pressure",
        (Edit(_EXCHANGE, '.get("Status") == "503"', '.get("Status") == "0"'),),
        (_TROUBLE + "test_where_nobody_answers_for_the_subject_it_is_told_at_once",),
    ),
    Mutant(
        "duplicate-window-2-minutes",
        "D11: ids are forgotten in a longer outage",
        (
            Edit(
                "bridge/settings.py",
                "duplicate_window_seconds: Annotated[int, Field(ge=3600)] = 7200",
                "duplicate_window_seconds: Annotated[int, Field(ge=1)] = 120",
            ),
        ),
        ("tests/contract/test_made.py::test_the_stream_is_made_as_the_contract_needs_it",),
    ),
    Mutant(
        "wedged-server-unnoticed",
        "D11: a server that acknowledges nothing is waited for",
        (Edit(_EXCHANGE, "_WEDGED_AFTER = 3", "_WEDGED_AFTER = 1_000_000"),),
        (
            _TROUBLE
            + "test_a_server_that_answers_and_acknowledges_nothing_is_wedged_at_the_third_time",
        ),
    ),
    Mutant(
        "wedged-server-not-restarted",
        "D11: the embedded server stays wedged",
        (
            Edit(
                "bridge/app.py",
                "embedded.end if embedded is not None else lambda: None",
                "lambda: None",
            ),
        ),
        (_WATCHDOGS + "test_a_wedged_embedded_server_is_restarted_and_nothing_is_lost",),
    ),
    Mutant(
        "waiting-is-ready",
        "D11: a sink that acknowledges nothing is called ready",
        (Edit(_PUBLISH, '"waiting", cause=cause', '"waiting", ready=True, cause=cause'),),
        (_LANE + "test_a_sink_that_keeps_us_waiting_is_not_called_ready",),
    ),
    Mutant(
        "dead-sink-is-ready",
        "watchdogs: a sink that is down is called ready",
        (
            Edit(
                _PUBLISH, "error.code, cause=str(error)", "error.code, ready=True, cause=str(error)"
            ),
        ),
        (_LANE + "test_a_connection_that_is_lost_while_nothing_is_sent_is_noticed",),
    ),
    Mutant(
        "dead-broker-fails-healthz",
        "watchdogs: a supervisor restarts it for a broker",
        (
            Edit(
                "bridge/status/http.py",
                'add_get("/healthz", pages.healthz)',
                'add_get("/healthz", pages.readyz)',
            ),
        ),
        (_WATCHDOGS + "test_a_broker_that_is_gone_is_told_everywhere_and_the_bridge_is_well",),
    ),
    Mutant(
        "no-wait-at-the-end",
        "D15: acknowledgements are not waited for",
        (
            Edit(
                "bridge/app.py",
                "_within(_ACKNOWLEDGE_SECONDS, _drain(intake, tasks, lanes))",
                "_within(_ACKNOWLEDGE_SECONDS, asyncio.sleep(0))",
            ),
        ),
        ("tests/e2e/test_stopping.py::test_what_was_read_is_acknowledged_before_the_end",),
    ),
    Mutant(
        "tracker-speaks-last",
        "D15: what the tracker commits while the sinks are drained waits for the next start",
        (Edit("bridge/app.py", '    await tasks.cancel("backfill", "tracker")\n', ""),),
        ("tests/e2e/test_stopping.py::test_what_the_tracker_was_about_to_say_is_published_too",),
    ),
    Mutant(
        "two-instances",
        "D17: a second instance takes the journal too",
        (Edit(_FILE, "fcntl.LOCK_EX | ", "fcntl.LOCK_SH | "),),
        (_JOURNAL + "test_a_second_instance_is_refused_while_the_first_lives",),
    ),
)
