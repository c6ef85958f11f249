"""What an error of Kafka is: a record's, the sink's, or one that passes (delivery.md, D10)."""

from __future__ import annotations

import pytest
from aiokafka import errors as kafka

from bridge.errors import BridgeError, MessageRefused, SinkFault, SinkUnavailable
from bridge.sinks.kafka_errors import FAULTS, REFUSALS, in_our_terms

_FAULTS = [
    kafka.TopicAuthorizationFailedError(),
    kafka.ClusterAuthorizationFailedError(),
    kafka.SaslAuthenticationFailed(),
    kafka.UnknownTopicOrPartitionError(),
    kafka.OutOfOrderSequenceNumber(),
    kafka.ProducerFenced(),
    KeyError("nobody foresaw this"),
]
_PASSING = [
    kafka.KafkaTimeoutError(),
    kafka.KafkaConnectionError(),
    kafka.NotLeaderForPartitionError(),
    kafka.NotEnoughReplicasError(),
    kafka.RequestTimedOutError(),
    ConnectionResetError(),
    TimeoutError(),
]


@pytest.mark.parametrize(
    ("error", "said"),
    [*((e, SinkFault) for e in _FAULTS), *((e, SinkUnavailable) for e in _PASSING)],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_is_no_records_fault_never_costs_a_record(
    error: Exception, said: type[BridgeError]
) -> None:
    with pytest.raises(BridgeError) as raised, in_our_terms():
        raise error
    assert type(raised.value) is said
    assert raised.value.retryable
    assert not isinstance(error, REFUSALS)


def test_a_records_fault_is_not_the_sinks() -> None:
    assert set(REFUSALS) & set(FAULTS) == set()
    assert kafka.MessageSizeTooLargeError in REFUSALS
    assert not MessageRefused.retryable
