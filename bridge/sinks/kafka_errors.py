"""What aiokafka raises, in the bridge's terms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import errors as kafka

from bridge.errors import BridgeError, SinkFault, SinkUnavailable

__all__ = ["FAULTS", "REFUSALS", "in_our_terms"]

REFUSALS = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordListTooLargeError,
    kafka.CorruptRecordException,
    kafka.InvalidTimestampError,
)
"""One record cannot be stored; the sink is well."""

FAULTS = (
    kafka.ClusterAuthorizationFailedError,
    kafka.TopicAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
    kafka.SaslAuthenticationFailed,
    kafka.InvalidConfigurationError,
    kafka.AuthenticationFailedError,
    kafka.UnsupportedSaslMechanismError,
    kafka.UnknownTopicOrPartitionError,
    kafka.InvalidTopicError,
    kafka.InvalidReplicationFactorError,
    kafka.PolicyViolationError,
    kafka.OutOfOrderSequenceNumber,
    kafka.ProducerFenced,
    kafka.UnsupportedVersionError,
)
"""The sink cannot be used as it is; no record is to blame."""


_PASSING = (kafka.KafkaTimeoutError, kafka.KafkaConnectionError, OSError, TimeoutError)


@contextmanager
def in_our_terms() -> Iterator[None]:
    """Say in the bridge's terms what aiokafka raises.

    What nobody foresaw is a fault of the sink, and not the end of the bridge: the producer is made
    anew, and told about.
    """
    try:
        yield
    except BridgeError:
        raise
    except Exception as error:
        text = str(error) or type(error).__name__
        passes = isinstance(error, _PASSING) or getattr(error, "retriable", False)
        if passes and not isinstance(error, FAULTS):
            raise SinkUnavailable(f"Kafka is not available: {text}") from error
        raise SinkFault(f"Kafka refuses, or the client failed: {text}") from error
