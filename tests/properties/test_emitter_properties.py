"""What the emitter writes, whatever the event: what Go would write, and what can be read back."""

import json

from hypothesis import given, settings, strategies as st

from bridge.core import gojson as reader
from bridge.core.framing import FrameDecoder
from bridge.emitter import gojson
from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.sender import writes
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.support.events import some_events
from tests.support.go import go_json


@settings(max_examples=300)
@given(some_events())
def test_json_is_what_the_other_writer_writes_and_the_reader_reads(event: FactomEvent) -> None:
    written = gojson.dumps(event)
    assert reader.parse(written) == event
    # The writer of the tests knows neither of a moved field nor of Go's two control characters.
    assert json.loads(written) == json.loads(go_json(event))
    if event.WhichOneof("event") not in {"nodeMessage", "directoryBlockCommit"} and not (
        set("\b\f") & set(event.factomNodeName)
    ):
        assert written == go_json(event)


@given(st.text() | st.binary())
def test_any_string_is_json_that_gives_it_back(text: str | bytes) -> None:
    quoted = gojson.quote(text)
    read = json.loads(quoted)
    assert not set("<>&\u2028\u2029") & set(quoted.decode())
    if isinstance(text, str):
        assert read == text
    elif "\ufffd" not in read:
        assert read.encode() == text


@given(st.binary(max_size=20_000))
def test_the_writes_of_an_event_are_its_frame(payload: bytes) -> None:
    pieces = list(writes(payload))
    decoder = FrameDecoder(max_payload=20_000)
    decoder.receive(b"".join(pieces))
    assert decoder.take()[0] == 1
    assert decoder.pending == 0
    assert pieces[0] == b"\x01"
    assert len(pieces) == (2 if len(payload) <= 4092 else 3)
    assert len(pieces[1]) == min(4096, len(payload) + 4)


@given(st.text(), st.dictionaries(st.sampled_from(["eventformat", "eventreceiverport"]), st.text()))
def test_any_configuration_is_read(conf: str, flags: dict[str, str]) -> None:
    config = LiveFeedConfig.parse("[LiveFeedAPI]\n" + conf, **flags)
    assert 0 < config.port < 65_536
