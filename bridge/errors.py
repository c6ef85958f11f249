"""Errors of the bridge: each says what happened, has a code for labels, and what to do.

`code` is from a small fixed set (metric label, log field, dead-letter reason), `remedy` one
imperative sentence for the person who must act, and `retryable` is what loops ask.
`exit_code` is what the command ends with when the error reaches it (sysexits numbers).
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AlreadyRunning",
    "BridgeError",
    "DecodeError",
    "FrameError",
    "MessageRefused",
    "NodeRefused",
    "NodeUnavailable",
    "PortInUse",
    "ReceiverUnavailable",
    "RecordingDamaged",
    "RecordingUnwritable",
    "SettingsInvalid",
    "SinkFault",
    "SinkUnavailable",
    "SinkWedged",
    "StorageDamaged",
    "StorageFull",
    "StorageUnusable",
    "UsageError",
]

_NOT_FOUND = -32008
"""What factomd answers for a block, entry or hash that it has not."""


class BridgeError(Exception):
    """Base of every error that the bridge raises on purpose."""

    code: ClassVar[str] = "bug"
    remedy: ClassVar[str] = "Report this with the log: it is a bug."
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 70


class UsageError(BridgeError):
    """The command line cannot be carried out as given."""

    code = "usage"
    remedy = "See `factom-bridge --help`."
    exit_code = 64


class SettingsInvalid(BridgeError):
    """An environment variable is unknown, contradictory or out of range."""

    code = "settings"
    remedy = "Correct the variable; `factom-bridge settings` lists all of them."
    exit_code = 78


class PortInUse(BridgeError):
    """A listener could not bind its address."""

    code = "port_in_use"
    remedy = "Stop the other program, or set another port (0 takes a free one)."
    exit_code = 69


class FrameError(BridgeError):
    """A peer's bytes are not frames; `reason` is the dead letter's code, `sample` the bytes."""

    code = "frame"
    remedy = "Check that a factomd node, and nothing else, sends to the feed's port."

    def __init__(self, reason: str, sentence: str, sample: bytes) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sample = sample


class DecodeError(BridgeError):
    """A payload is not a FactomEvent that can be published; `reason` is the dead letter's code."""

    code = "decode"
    remedy = "Read the dead letter; a newer node may need a newer bridge."

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class StorageFull(BridgeError):
    """The journal could not be written for want of space; nothing was lost by the attempt."""

    code = "storage_full"
    remedy = "Free space on the journal's disk, or raise BRIDGE_JOURNAL__MAX_BYTES."
    retryable = True
    exit_code = 74


class StorageDamaged(BridgeError):
    """The journal failed to sync or its file is damaged: what it holds can no longer be trusted."""

    code = "storage_damaged"
    remedy = "Keep the journal's folder, check the disk, then start again."
    exit_code = 74


class StorageUnusable(BridgeError):
    """The journal cannot be opened or written at its place."""

    code = "storage_unusable"
    remedy = "Point BRIDGE_JOURNAL__DIR at a folder that this user may write."
    exit_code = 74


class AlreadyRunning(BridgeError):
    """Another process holds the journal."""

    code = "already_running"
    remedy = "Stop the other instance, or give this one its own BRIDGE_JOURNAL__DIR."
    exit_code = 75


class NodeUnavailable(BridgeError):
    """The node's API does not answer, or not as a node does."""

    code = "node_unavailable"
    remedy = "Check BRIDGE_NODE__URL, and that the node's API answers there."
    retryable = True
    exit_code = 69


class NodeRefused(BridgeError):
    """The node's API answers with an error."""

    code = "node_refused"
    remedy = "Read the node's own words; it may not be synced, or not have the block."
    retryable = True
    exit_code = 69

    def __init__(self, sentence: str, number: int | None = None) -> None:
        super().__init__(sentence)
        self.number = number
        """The node's number for it, as JSON-RPC has it; None where it told none."""

    @property
    def not_found(self) -> bool:
        """Whether the node merely has not what was asked for."""
        return self.number == _NOT_FOUND


class SinkUnavailable(BridgeError):
    """The broker did not confirm; the same messages may be sent again."""

    code = "sink_unavailable"
    remedy = "Check that the broker is reachable; the journal keeps the events meanwhile."
    retryable = True
    exit_code = 69


class SinkWedged(SinkUnavailable):
    """The broker answers, but has not acknowledged anything for several attempts."""

    code = "sink_wedged"
    remedy = "Restart the NATS server: a full disk leaves it so, also when there is room again."


class SinkFault(BridgeError):
    """The broker refuses the bridge itself, whatever it sends: rights, topics, fencing."""

    code = "sink_fault"
    remedy = "Correct the broker's rights or topics; the bridge tries again by itself."
    retryable = True
    exit_code = 69


class MessageRefused(BridgeError):
    """The broker refuses this one message for good; `position` is its place in the batch."""

    code = "message_refused"
    remedy = "Read the dead letter that took its place."

    def __init__(self, position: int, sentence: str) -> None:
        super().__init__(sentence)
        self.position = position


class ReceiverUnavailable(BridgeError):
    """Nobody listens where a recording is to be played to."""

    code = "receiver_unavailable"
    remedy = "Start the receiver, or correct its address (--to)."
    exit_code = 69


class RecordingDamaged(BridgeError):
    """A recording cannot be read from byte `at` on; everything before it was given."""

    code = "recording_damaged"
    remedy = "Copy or record it again; what is before the damage can be used."
    exit_code = 74

    def __init__(self, at: int, sentence: str) -> None:
        super().__init__(f"the recording is damaged at byte {at}: {sentence}")
        self.at = at


class RecordingUnwritable(BridgeError):
    """A recording's file cannot grow; it is readable up to its last block that fitted."""

    code = "recording_unwritable"
    remedy = "Free space on its disk, or record to another one."
    exit_code = 74
