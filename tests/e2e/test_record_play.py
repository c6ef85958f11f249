"""`record` and `play` with a running bridge: what was recorded arrives as if from the node."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from bridge.recording import (
    FileReader,
    Transport,
    What,
    import_folder,
    play_shown,
)
from bridge.recording.line import Address
from bridge.recording.play import AS_FAST_AS_POSSIBLE
from tests.brokers.process import free_port
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.captures import Capture, find_capture
from tests.support.consumers import read_stream
from tests.support.journal_file import event_id

pytestmark = pytest.mark.brokers

_SECONDS = 20
_LISTENING = re.compile(r"recording \S+:(\d+) into")


def _capture(name: str = "gap-long") -> Capture:
    found = find_capture(name)
    assert found is not None
    return found


def _told(kind: str, id_: str) -> tuple[str, str]:
    # A node may say the same twice: its messages' ids hold the journal's number.
    return kind, "" if kind == "node-message" else id_


def _messages(capture: Capture) -> Counter[tuple[str, str]]:
    """Return kind and id of every message that is to come of `capture`, each once."""
    events = zip(capture.events(), capture.payloads(), strict=True)
    ids = {event_id(payload) for event, payload in events if event["which"] is not None}
    return Counter(_told(*each) for each in ids)


async def _published(bridge: BridgeProcess) -> Counter[tuple[str, str]]:
    read = await read_stream(f"nats://127.0.0.1:{bridge.nats_port}")
    own = {"gap-alert", "block-receipt"}
    return Counter(_told(each.kind, each.id) for each in read if each.kind not in own)


@pytest.mark.parametrize("transport", [None, Transport.UDP])
async def test_a_recording_played_gives_the_messages_of_the_feed(
    transport: Transport | None, tmp_path: Path
) -> None:
    capture = _capture()
    import_folder(capture.folder, tmp_path / "gap-long.rec")
    with BridgeProcess(tmp_path / "bridge") as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        told = Console(file=(tmp_path / "told").open("w"), width=100)
        assert await play_shown(
            tmp_path / "gap-long.rec",
            Address("127.0.0.1", bridge.feed_port),
            told,
            speed=AS_FAST_AS_POSSIBLE,
            transport=transport,
        )
        told.file.close()
        # The gap between the two connections is told by an alert of the bridge's own.
        await bridge.delivered(len(capture.events()))
        assert await _published(bridge) == _messages(capture)
        bridge.stop()
    assert "2 connections" in (tmp_path / "told").read_text()


@contextmanager
def _recording(path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `record`, and yield it with its port."""
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with subprocess.Popen(
        [sys.executable, "-m", "bridge", "record", str(path), "--port", "0", *arguments],
        env={**environ, "COLUMNS": "250", "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = _LISTENING.search(line)
            assert found is not None, (line, process.communicate())
            yield process, int(found[1])
        finally:
            process.kill()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_what_is_played_into_record_is_recorded(end: signal.Signals, tmp_path: Path) -> None:
    capture = _capture("tcp-protobuf-once")
    path = tmp_path / "feed.rec"
    with _recording(path) as (process, port):
        to = f"127.0.0.1:{port}"
        done = run_command("play", str(capture.folder), "--to", to, "--speed", "max")
        assert done.returncode == 0, done.stderr
        process.send_signal(end)
        out, err = process.communicate(timeout=_SECONDS)
    assert (process.returncode, err) == (0, "")
    assert f"{len(capture.events())} frames" in out
    records = list(FileReader(path))
    read = b"".join(record.data for record in records if record.what is What.READ)
    assert [read] == capture.streams()
    assert records[-1].what is What.CLOSE


def test_a_recorder_that_is_killed_leaves_what_it_had_a_second_before(tmp_path: Path) -> None:
    capture = _capture("restart-replay")
    path = tmp_path / "feed.rec"
    with _recording(path) as (process, port):
        run_command("play", str(capture.folder), "--to", f"127.0.0.1:{port}", "--speed", "max")
        before = path.stat().st_size
        for _ in range(200):
            if path.stat().st_size > max(before, 1000):
                break
            signal.sigtimedwait([], 0.02)
        process.kill()
        process.wait(_SECONDS)
    done = run_command("play", str(path), "--to", f"127.0.0.1:{free_port()}")
    assert done.returncode == 69
    with _recording(tmp_path / "again.rec", "--seconds", "3") as (process, port):
        done = run_command("play", str(path), "--to", f"127.0.0.1:{port}", "--speed", "max")
        process.communicate(timeout=_SECONDS)
    assert done.returncode == 74
    assert "not ended" in done.stderr
    records = list(FileReader(tmp_path / "again.rec"))
    assert [b"".join(r.data for r in records if r.what is What.READ)] == capture.streams()


def test_exit_codes_of_the_two_commands(tmp_path: Path) -> None:
    path = tmp_path / "feed.rec"
    done = run_command("record", str(path), "--port", "0", "--seconds", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    done = run_command("record", str(path), "--port", "0", "--seconds", "0.1")
    assert done.returncode == 64
    assert "--force" in done.stderr
    done = run_command("record", str(path), "--port", "0", "--seconds", "0.1", "--force")
    assert done.returncode == 0
    nobody = f"127.0.0.1:{free_port()}"
    folder = str(_capture().folder)
    done = run_command("play", folder, "--to", nobody)
    assert done.returncode == 69
    assert nobody in done.stderr
    for wrong in (["--faults", "x=1"], ["--speed", "0"], ["--tcp", "--udp"]):
        assert run_command("play", folder, "--to", nobody, *wrong).returncode == 64
    assert run_command("play", folder, "--to", "nowhere").returncode == 64
    assert run_command("play", str(tmp_path / "none"), "--to", nobody).returncode == 64
    (tmp_path / "noise").write_bytes(bytes(100))
    done = run_command("play", str(tmp_path / "noise"), "--to", nobody)
    assert done.returncode == 74
    assert "no recording" in done.stderr
